"""The layer: projections around a program."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor, nn

from mmattn.attention.backends import Conditions
from mmattn.attention.backends.selection import Plan, get_backend, plan_program
from mmattn.attention.execution.attention_call import AttentionCall
from mmattn.attention.execution.context_tensors import ContextTensors, build_context_tensors, dynamic_input
from mmattn.attention.execution.layout import Layout
from mmattn.attention.language.biases import ALIBI_SLOPE_KEY, Alibi, alibi_slopes
from mmattn.attention.language.parameters import Dynamic
from mmattn.attention.language.scores import HeadGate
from mmattn.attention.layer.dispatch import projection_dtype, run_programs, sample_gates, split_by_program
from mmattn.attention.layer.exact_weights import Explanation, Rows, compute_exact_weights
from mmattn.attention.layer.head_pruning import KEPT_HEADS, PrunableAttention, keep_heads, prune_to_state
from mmattn.attention.layer.kv_cache import Cache, append_to_cache, check_supports_decoding, drop_unreachable
from mmattn.attention.layer.linear import Linear
from mmattn.attention.layer.nan_checks import check_inputs, check_result, debug_enabled
from mmattn.attention.layer.parameter_init import (
    MAX_MODALITIES,
    check_arguments,
    head_programs,
    init_parameter,
)
from mmattn.errors import InputError
from mmattn.types import Tokens

if TYPE_CHECKING:
    from mmattn.attention.language.program import Heads, Program
    from mmattn.attention.language.term import Term

__all__ = ["Attention"]


class Attention(PrunableAttention):
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
        >>> layer.plan(two).backend
        'jagged'
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
        check_arguments(program, dim, heads, dropout)
        if backend != "auto":
            get_backend(backend)
        self.program = program
        self.dim, self.heads, self.width = dim, heads, dim // heads
        self.kv_dim = dim if kv_dim is None else kv_dim
        self.dropout = dropout
        self.backend = backend
        self.q_proj = Linear(dim, dim, bias=bias)
        self.k_proj = Linear(self.kv_dim, dim, bias=bias)
        self.v_proj = Linear(self.kv_dim, dim, bias=bias)
        self.o_proj = Linear(dim, dim, bias=bias)
        self.terms = nn.ParameterDict(
            {spec.name: init_parameter(spec, heads, self.width, dim) for spec in program.parameters()}
        )
        self.register_buffer(KEPT_HEADS, None)
        self._modalities: tuple[str, ...] = ()
        self._index_program()
        self._has_slope = any(isinstance(term, Alibi) for term in program.walk())
        if self._has_slope:
            self.register_buffer("slope", alibi_slopes(heads))

    def _index_program(self) -> None:
        """What the layer looks up in its program at every call."""
        self._head_programs = head_programs(self.program, self.heads)
        terms: list[Term] = [term for _, _, part in self._head_programs for term in part.walk()]
        self._has_modality_parameters = any("M" in spec.shape for spec in self.program.parameters())
        self._dynamic = {term.name: term for term in terms if isinstance(term, Dynamic)}
        self._gates = [
            (first, last, term)
            for first, last, part in self._head_programs
            for term in part.chain.modifiers
            if isinstance(term, HeadGate)
        ]

    @overload
    def forward(
        self,
        q: Tokens,
        kv: Tokens | None = None,
        context: Mapping[str, Any] | None = None,
        explain: None = None,
    ) -> Tokens: ...

    @overload
    def forward(
        self, q: Tokens, kv: Tokens | None = None, context: Mapping[str, Any] | None = None, *, explain: Rows
    ) -> tuple[Tokens, Explanation]: ...

    def forward(
        self,
        q: Tokens,
        kv: Tokens | None = None,
        context: Mapping[str, Any] | None = None,
        explain: Rows | None = None,
    ) -> Tokens | tuple[Tokens, Explanation]:
        """Attend.

        Args:
            q: the queries' tokens, width `dim`.
            kv: the keys' tokens, as many samples, width `kv_dim`; left out, the queries' own.
            context: what terms refer to by name: "task" [B, D] or [D] for `dynamic(on="task")`, "presence"
                [B, M] boolean for `present`, edges [3, E] for `graph_bias`, boxes [N, 4] for `box_bias`.
            explain: `rows([...])`, the queries whose exact weights are wanted.

        Returns:
            Tokens of the queries' layout, width `dim`, and an `Explanation` beside them if asked. A query
            that may attend to nothing gives zeros before the last projection.

        Raises:
            InputError: tokens or context do not fit the layer or the program, or the backend that was
                asked for cannot run it.
        """
        kv, context = q if kv is None else kv, context or {}
        projected = self._project(q, kv)
        if debug_enabled():
            check_inputs(self, q, kv, context)
        call = self._build_call(q, kv, context, *projected)
        out = q.with_values(self._attend(call))
        if debug_enabled():
            check_result("results", out.values, out)
        return out if explain is None else (out, compute_exact_weights(self._split_by_program(call), explain))

    def decode(
        self, tokens: Tokens, cache: Cache | None = None, context: Mapping[str, Any] | None = None
    ) -> tuple[Tokens, Cache]:
        """Attend from new tokens to themselves and to all before them, whose keys and values are kept.

        Decoding token by token gives what `forward` gives for the whole sequence. Keys that the program's
        window has left behind are forgotten, so that a stream may go on for ever.

        Args:
            tokens: the tokens that follow in each sample (some samples may get none).
            cache: what the call before returned; left out, these are the first tokens.
            context: as in `forward`; boxes as a pair, for the new tokens and for all.

        Returns:
            The new tokens' results, and the cache for the next call.

        Raises:
            InputError: the program may look ahead, or the new tokens' positions do not come after those
                in the cache.
        """
        check_supports_decoding(self.program)
        q_NHK, k_NHK, v_NHK = self._project(tokens, tokens)
        cache = append_to_cache(cache, tokens, k_NHK, v_NHK)
        return self._attend_to_cache(tokens, q_NHK, cache, context), drop_unreachable(cache, self.program)

    def cache_keys(self, kv: Tokens) -> Cache:
        """Keys and values of tokens that many calls of `attend_cached` will read, projected once.

        Args:
            kv: the keys' tokens, width `kv_dim`.
        """
        _check_width("kv", kv, self.kv_dim)
        shape = (self.heads, self.width)
        k_NHK, v_NHK = (project(kv.values).unflatten(-1, shape) for project in (self.k_proj, self.v_proj))
        return append_to_cache(None, kv, k_NHK, v_NHK)

    def attend_cached(self, q: Tokens, cache: Cache, context: Mapping[str, Any] | None = None) -> Tokens:
        """Attend to what `cache_keys` kept: what `forward` gives for these queries and those keys.

        Args:
            q: the queries' tokens, width `dim`, as many samples as were kept.
            cache: of `cache_keys`.
            context: as in `forward`.
        """
        _check_width("q", q, self.dim)
        return self._attend_to_cache(
            q, self.q_proj(q.values).unflatten(-1, (self.heads, self.width)), cache, context
        )

    def plan(self, q: Tokens, kv: Tokens | None = None, context: Mapping[str, Any] | None = None) -> Plan:
        """Which backend runs over these tokens, at what cost, and why each other one does not.

        It answers for the layer as it stands: training or not, with gradients or under `no_grad`.

        Args:
            q: queries, as in `forward`.
            kv: keys and values, as in `forward`.
            context: as in `forward`, where edges and presence change what is to be done; left out, the plan
                is made without looking at what the terms refer to.

        Raises:
            InputError: as in `forward`.
        """
        kv = q if kv is None else kv
        layout = self._layout(q, kv)
        given = (
            ContextTensors()
            if context is None
            else build_context_tensors(self.program, q, kv, layout, context)
        )
        inputs = (q.values, kv.values, *self.parameters())
        gradient = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
        parts = []
        for first, last, program in self._head_programs:
            conditions = Conditions(
                device=q.device.type,
                dtype=projection_dtype(self.q_proj.weight),
                heads=last - first,
                width=self.width,
                gradient=gradient,
                program_gradient=gradient and self._program_needs_gradient(),
                dropout=self.training and self.dropout > 0,
            )
            parts.append(plan_program(program, layout, conditions, given, self.backend, (first, last)))
        return Plan(tuple(parts))

    def program_parameters(self) -> dict[str, nn.Parameter]:
        """The program's own parameters by the name of their term, [H, ...] each."""
        return dict(self.terms.items())

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay must not draw to zero: those of the program."""
        return {f"terms.{name}" for name in self.terms}

    def gate_parameters(self) -> dict[str, nn.Parameter]:
        """The program's parameters that are logits of a `head_gate`, by the name of their term."""
        return {term.name: self.terms[term.name] for _, _, term in self._gates}

    @property
    def has_gates(self) -> bool:
        """Does any head stand behind a `head_gate`?"""
        return bool(self._gates)

    def gate_penalty(self) -> Tensor:
        """The expected number of heads whose `head_gate` is open; add a share of it to the loss."""
        total = self.o_proj.weight.new_zeros(())
        for first, last, term in self._gates:
            total = total + term.open_probability(self.terms[term.name][first:last]).sum()
        return total

    @torch.no_grad()
    def prune(self) -> tuple[int, ...]:
        """Remove the heads whose `head_gate` is closed; what the layer computes does not change.

        At least one head stays. Optimizers have to be made anew: the projections get smaller. The layer's
        state says which heads are left, and loads into a whole layer of the same program. See `A.prune`
        for all layers of a model.

        Returns:
            The numbers of the heads that were removed.

        Raises:
            InputError: a projection has an adapter around it.
        """
        open_H = torch.ones(self.heads, device=self.q_proj.weight.device)
        for first, last, term in self._gates:
            open_H[first:last] *= term.gate(self.terms[term.name][first:last], training=False)
        kept = open_H.nonzero()[:, 0].tolist() or [0]
        removed = tuple(head for head in range(self.heads) if head not in kept)
        if removed:
            keep_heads(self, kept)
        return removed

    def register_modalities(self, names: Sequence[str]) -> None:
        """Give these modalities their rows in the parameters over modalities, in this order.

        A layer that meets a new modality gives it the next row by itself; processes that train together
        should agree beforehand.

        Args:
            names: modalities, in the order of their rows.

        Raises:
            InputError: there are more modalities than rows.
        """
        new = tuple(dict.fromkeys(name for name in names if name not in self._modalities))
        if len(self._modalities) + len(new) > MAX_MODALITIES:
            raise InputError(
                f"Attention: got the modalities {[*self._modalities, *new]}, expected at most "
                f"{MAX_MODALITIES}; "
                "name them in the term, as in modality_bias(name, modalities=[...])"
            )
        self._modalities += new

    def get_extra_state(self) -> Tensor:
        # Names as the bytes of their JSON: a tensor, so that any tensor-only format can hold the state.
        return torch.tensor(list(json.dumps(self._modalities).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        self._modalities = tuple(json.loads(bytes(state.tolist())))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        prune_to_state(self, state_dict, prefix)  # before shapes are compared
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return f"{self.program}, dim={self.dim}, heads={self.heads}, backend={self.backend!r}"

    # --- one call -------------------------------------------------------------------------------

    def _layout(self, q: Tokens, kv: Tokens) -> Layout:
        _check_width("q", q, self.dim)
        _check_width("kv", kv, self.kv_dim)
        return Layout.from_tokens(q, kv)

    def _project(self, q: Tokens, kv: Tokens) -> tuple[Tensor, Tensor, Tensor]:
        """[Nq, H, K], [Nk, H, K], [Nk, H, K]."""
        self._layout(q, kv)  # a clear error before a matrix product fails
        shape = (self.heads, self.width)
        return (
            self.q_proj(q.values).unflatten(-1, shape),
            self.k_proj(kv.values).unflatten(-1, shape),
            self.v_proj(kv.values).unflatten(-1, shape),
        )

    def _attend_to_cache(
        self, q: Tokens, q_NHK: Tensor, cache: Cache, context: Mapping[str, Any] | None
    ) -> Tokens:
        """The queries' results over cached keys and values."""
        k_NHK, v_NHK = cache.tokens.values.unflatten(-1, (2, self.heads, self.width)).unbind(1)
        call = self._build_call(q, cache.tokens, context or {}, q_NHK, k_NHK, v_NHK)
        return q.with_values(self._attend(call))

    def _build_call(
        self, q: Tokens, kv: Tokens, context: Mapping[str, Any], q_NHK: Tensor, k_NHK: Tensor, v_NHK: Tensor
    ) -> AttentionCall:
        layout = Layout.from_tokens(q, kv)
        call = AttentionCall(
            program=self._head_programs[0][2],
            q=q_NHK,
            k=k_NHK,
            v=v_NHK,
            layout=layout,
            dropout=self.dropout if self.training else 0.0,
        )
        if not context and not self._has_slope and len(self.terms) == 0:
            return call
        if self._has_modality_parameters:
            self.register_modalities([*q.modalities, *kv.modalities])
        parameters = {name: value.to(q_NHK.dtype) for name, value in self.terms.items()}
        for name, term in self._dynamic.items():
            parameters[name] = dynamic_input(term, q, context).to(q_NHK.dtype) @ parameters[name].T
        if self._has_slope:
            parameters[ALIBI_SLOPE_KEY] = self.slope.to(q_NHK.dtype)
        return replace(
            call,
            parameters=parameters,
            modality_slots=self._modalities,
            context_tensors=build_context_tensors(self.program, q, kv, layout, context),
        )

    def _attend(self, call: AttentionCall) -> Tensor:
        """[Nq, D], after the last projection."""
        out_NHK = run_programs(self._split_by_program(call), self._program_needs_gradient, self.backend)
        if self._gates:
            out_NHK = out_NHK * sample_gates(call, self._head_programs, self._gates, self.training)
        result: Tensor = self.o_proj(out_NHK.flatten(1))
        return result

    def _split_by_program(self, call: AttentionCall) -> list[AttentionCall]:
        """One call for each program of the layer, over its own heads."""
        return split_by_program(call, self._head_programs)

    def _program_needs_gradient(self) -> bool:
        """Would the program's parameters get gradients?"""
        # A dynamic number needs a gradient wherever what it is predicted from does.
        return bool(self._dynamic) or any(value.requires_grad for value in self.terms.values())


def _check_width(name: str, tokens: Tokens, dim: int) -> None:
    if tokens.dim != dim:
        raise InputError(f"Attention: {name} has width {tokens.dim}, expected {dim}")
