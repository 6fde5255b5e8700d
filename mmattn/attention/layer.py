"""The layer: projections around a program."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mmattn.attention.backends import Conditions
from mmattn.attention.call import Call, Extras
from mmattn.attention.layout import Layout
from mmattn.attention.parameters import Dynamic, ParameterSpec
from mmattn.attention.plan import Plan, choose, find
from mmattn.attention.program import Heads, Program
from mmattn.attention.scores import Base
from mmattn.errors import InputError
from mmattn.types import Tokens

__all__ = ["Attention"]

# Rows that a parameter over modalities has until its term names them.
_MODALITIES = 8


class Attention(nn.Module):
    """Multi-head attention over jagged tokens that runs a program.

    Args:
        program: what to run, a `Program` or `heads({...})`.
        dim: width D of the queries and of the result.
        heads: H; `dim` is a multiple of it.
        kv_dim: width of the keys' tokens, left out: `dim`.
        bias: do the projections have a bias?
        dropout: probability that a weight is dropped while training.
        backend: "auto", or the name of the one that has to run (see `backends()`).

    Raises:
        InputError: an argument does not fit; `dim` is no multiple of `heads`; the program's head ranges
            do not cover `heads`.

    Example:
        >>> import torch
        >>> from mmattn import attention as A
        >>> from mmattn.types import Tokens
        >>> layer = A.Attention(A.Program(mask=A.causal), dim=8, heads=2)
        >>> two = Tokens.from_sequences([torch.randn(3, 8), torch.randn(0, 8)], "text")
        >>> layer(two).values.shape
        torch.Size([3, 8])
    """

    def __init__(
        self,
        program: Program | Heads,
        dim: int,
        heads: int,
        kv_dim: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        _check_arguments(program, dim, heads, dropout)
        if backend != "auto":
            find(backend)
        self.program = program
        self.dim, self.heads, self.width = dim, heads, dim // heads
        self.kv_dim = dim if kv_dim is None else kv_dim
        self.dropout = dropout
        self.backend = backend
        self.q_proj = nn.Linear(dim, dim, bias=bias)
        self.k_proj = nn.Linear(self.kv_dim, dim, bias=bias)
        self.v_proj = nn.Linear(self.kv_dim, dim, bias=bias)
        self.o_proj = nn.Linear(dim, dim, bias=bias)
        self.terms = nn.ParameterDict({spec.name: self._new(spec) for spec in program.parameters()})
        self._slots: tuple[str, ...] = ()
        self._parts = _parts(program, heads)
        self._dynamic = {
            term.name: term for _, _, part in self._parts for term in part.walk() if isinstance(term, Dynamic)
        }

    def _new(self, spec: ParameterSpec) -> nn.Parameter:
        """A parameter as its term starts it, with one leading row a head."""
        sizes = {"K": self.width, "D": self.dim, "M": _MODALITIES}
        shape = [self.heads, *(sizes[size] if isinstance(size, str) else size for size in spec.shape)]
        match spec.start:
            case "zero":
                return nn.Parameter(torch.zeros(shape))
            case "identity":
                return nn.Parameter(torch.eye(shape[-1]).expand(shape).clone())
            case "random":
                return nn.Parameter(torch.randn(shape) / math.sqrt(shape[1]))
            case number:
                return nn.Parameter(torch.full(shape, float(number)))

    def forward(
        self,
        q: Tokens,
        kv: Tokens | None = None,
        context: Mapping[str, Any] | None = None,
        explain: Any = None,
    ) -> Tokens:
        """Attend.

        Args:
            q: the queries' tokens, width `dim`.
            kv: the keys' tokens, as many samples, width `kv_dim`; left out, the queries' own.
            context: what terms refer to by name: "task" [B, D] or [D] for dynamic numbers, "presence"
                [B, M] boolean for `present`.

        Returns:
            Tokens of the queries' layout, width `dim`; zeros (before the last projection) for a query
            that may attend to nothing.

        Raises:
            InputError: tokens or context do not fit the layer or the program.
        """
        kv = q if kv is None else kv
        layout = self._layout(q, kv)
        q_NHK = self.q_proj(q.values).unflatten(-1, (self.heads, self.width))
        k_NHK = self.k_proj(kv.values).unflatten(-1, (self.heads, self.width))
        v_NHK = self.v_proj(kv.values).unflatten(-1, (self.heads, self.width))
        call = self._call(q, kv, layout, context or {}, q_NHK, k_NHK, v_NHK)
        out = [
            choose(part.program, layout, self._conditions(part), self.backend)[0].run(part)
            for part in _split(call, self._parts)
        ]
        out_NHK = out[0] if len(out) == 1 else torch.cat(out, dim=1)
        return q.with_values(self.o_proj(out_NHK.flatten(1)))

    def plan(self, q: Tokens, kv: Tokens | None = None) -> Plan:
        """Which backend runs over these tokens, at what cost, and why each other one does not.

        It answers for the layer as it stands: training or not, with gradients or under `no_grad`.
        """
        kv = q if kv is None else kv
        layout = self._layout(q, kv)
        parts = []
        for first, last, program in self._parts:
            gradient = torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters())
            conditions = Conditions(
                q.device.type, q.dtype, last - first, self.width, gradient, self.training and self.dropout > 0
            )
            parts.append(replace(choose(program, layout, conditions, self.backend)[1], heads=(first, last)))
        return Plan(tuple(parts))

    def program_parameters(self) -> dict[str, nn.Parameter]:
        """The program's own parameters by the name of their term, [H, ...] each."""
        return dict(self.terms.items())

    def name_modalities(self, names: tuple[str, ...] | list[str]) -> None:
        """Give these modalities their rows in the parameters over modalities, in this order.

        A layer that meets a new modality gives it the next row by itself; processes that train together
        should agree beforehand.

        Raises:
            InputError: there are more modalities than rows.
        """
        new = [name for name in names if name not in self._slots]
        if len(self._slots) + len(new) > _MODALITIES:
            raise InputError(
                f"attention: got the modalities {[*self._slots, *new]}, expected at most {_MODALITIES}; "
                "name them in the term, as in modality_bias(name, modalities=[...])"
            )
        self._slots += tuple(new)

    def get_extra_state(self) -> dict[str, Any]:
        return {"modalities": list(self._slots)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._slots = tuple(state["modalities"])

    def extra_repr(self) -> str:
        return f"{self.program}, dim={self.dim}, heads={self.heads}, backend={self.backend!r}"

    # --- one call -------------------------------------------------------------------------------

    def _layout(self, q: Tokens, kv: Tokens) -> Layout:
        for name, tokens, dim in (("q", q, self.dim), ("kv", kv, self.kv_dim)):
            if tokens.dim != dim:
                raise InputError(f"Attention: {name} has width {tokens.dim}, expected {dim}")
        return Layout.of(q, kv)

    def _call(
        self,
        q: Tokens,
        kv: Tokens,
        layout: Layout,
        context: Mapping[str, Any],
        q_NHK: Tensor,
        k_NHK: Tensor,
        v_NHK: Tensor,
    ) -> Call:
        self.name_modalities([*q.modalities, *kv.modalities]) if self.terms else None
        parameters = {name: value.to(q_NHK.dtype) for name, value in self.terms.items()}
        for name, term in self._dynamic.items():
            parameters[name] = self._predict(term, q, context) @ parameters[name].T
        return Call(
            program=self.program,  # type: ignore[arg-type]
            q=q_NHK,
            k=k_NHK,
            v=v_NHK,
            layout=layout,
            parameters=parameters,
            slots=self._slots,
            extras=Extras(present=_present(context, kv, layout)),
            dropout=self.dropout if self.training else 0.0,
        )

    def _predict(self, term: Dynamic, q: Tokens, context: Mapping[str, Any]) -> Tensor:
        """[B, D], what a dynamic number is predicted from."""
        if term.on == "input":
            total_BD = q.values.new_zeros(len(q), q.dim).index_add(0, q.sample, q.values)
            return total_BD / q.lengths.clamp(min=1)[:, None]
        task = context.get("task")
        if not isinstance(task, Tensor) or task.shape not in ((self.dim,), (len(q), self.dim)):
            got = tuple(task.shape) if isinstance(task, Tensor) else task
            raise InputError(
                f'Attention: context["task"] is {got}, expected [{self.dim}] or [{len(q)}, {self.dim}]'
            )
        return task.to(q.values).expand(len(q), self.dim)

    def _conditions(self, call: Call) -> Conditions:
        gradient = torch.is_grad_enabled() and (
            call.q.requires_grad
            or call.k.requires_grad
            or call.v.requires_grad
            or any(value.requires_grad for value in call.parameters.values())
        )
        return Conditions(
            call.q.device.type, call.q.dtype, call.q.shape[1], call.q.shape[2], gradient, call.dropout > 0
        )


def _split(call: Call, parts: tuple[tuple[int, int, Program], ...]) -> list[Call]:
    """One call for each program of the layer, over its own heads."""
    if len(parts) == 1:
        return [replace(call, program=parts[0][2])]
    return [
        replace(
            call,
            program=program,
            q=call.q[:, first:last],
            k=call.k[:, first:last],
            v=call.v[:, first:last],
            first_head=first,
        )
        for first, last, program in parts
    ]


def _parts(program: Program | Heads, heads: int) -> tuple[tuple[int, int, Program], ...]:
    if isinstance(program, Program):
        return ((0, heads, program),)
    if program.total != heads:
        raise InputError(f"Attention: the program's heads go to {program.total}, expected {heads}")
    return program.parts


def _present(context: Mapping[str, Any], kv: Tokens, layout: Layout) -> Tensor | None:
    """[Nk] from `context["presence"]`."""
    presence = context.get("presence")
    if presence is None:
        return None
    expected = (len(kv), len(kv.modalities))
    if not isinstance(presence, Tensor) or presence.shape != expected or presence.dtype != torch.bool:
        got = f"{tuple(presence.shape)} {presence.dtype}" if isinstance(presence, Tensor) else repr(presence)
        raise InputError(f'Attention: context["presence"] is {got}, expected a boolean {list(expected)}')
    return presence[layout.key.sample, kv.modality]


def _check_arguments(program: Any, dim: int, heads: int, dropout: float) -> None:
    if not isinstance(program, (Program, Heads)):
        hint = ": wrap it in Program(score=...)" if isinstance(program, Base) else ""
        raise InputError(f"Attention(program): got {program!r}, expected a Program or heads({{...}}){hint}")
    for name, value in (("dim", dim), ("heads", heads)):
        if type(value) is not int or value < 1:
            raise InputError(f"Attention({name}): got {value!r}, expected a whole number from 1")
    if dim % heads:
        raise InputError(f"Attention(dim): got {dim}, expected a multiple of heads, {heads}")
    if not 0.0 <= dropout < 1.0:
        raise InputError(f"Attention(dropout): got {dropout}, expected 0 or more and below 1")
