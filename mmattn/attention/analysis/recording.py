"""Whole matrices of weights, of every attention layer of a module, beside whatever backend runs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmattn.attention.execution import reference
from mmattn.attention.layer.attention import Attention
from mmattn.errors import InputError
from mmattn.types import Tokens

__all__ = ["LayerWeights", "Recording", "record"]


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """How one layer weighed its keys, sample by sample.

    Args:
        query, key: the tokens of either side; their values do not matter, their layout does.
        matrices: [H, Q_b, K_b] for each sample b, before dropout; a query that may attend to nothing has
            a row of zeros.
        gate: [H], what each head's result is multiplied with (see `head_gate`); None for all ones.
        gradient: as `matrices`, how a score changes with each weight; None where nobody asked.
        name: where the layer stands in the module that was recorded.

    Raises:
        InputError: a matrix does not fit the tokens.

    Example:
        >>> import torch
        >>> from mmattn.types import Tokens
        >>> two = Tokens.from_sequences([torch.zeros(2, 1)], "text")
        >>> LayerWeights(two, two, (torch.full((1, 2, 2), 0.5),)).heads
        1
    """

    query: Tokens
    key: Tokens
    matrices: tuple[Tensor, ...]
    gate: Tensor | None = None
    gradient: tuple[Tensor, ...] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        for what, matrices in (("matrices", self.matrices), ("gradient", self.gradient)):
            if matrices is None:
                continue
            expected = [
                (self.heads, q, k) for q, k in zip(self.query.length_list, self.key.length_list, strict=True)
            ]
            if [tuple(matrix.shape) for matrix in matrices] != expected:
                raise InputError(
                    f"LayerWeights.{what}: got shapes {[tuple(matrix.shape) for matrix in matrices][:3]}, "
                    f"expected {expected[:3]}, [H, Q, K] of each sample"
                )

    @property
    def heads(self) -> int:
        """Number of heads H (0 where there is no sample)."""
        return self.matrices[0].shape[0] if self.matrices else 0


@dataclass(frozen=True, eq=False)
class _RecordedCall:
    """One call of one layer: its weights, and what the gradient of a score needs beside them."""

    layer: Attention
    weights: LayerWeights
    v: Tensor
    out: Tensor

    def gradient(self, output_gradient: Tensor) -> tuple[Tensor, ...]:
        """How a score changes with each weight, from how it changes with the layer's result [Nq, D].

        The result is linear in the weights, so this is exact, and no backend has to keep them.
        """
        # Through the module and not through its weight, which may have an adapter around it.
        with torch.enable_grad():
            heads = output_gradient.new_zeros(
                len(output_gradient), self.v.shape[1] * self.v.shape[2], requires_grad=True
            )
            (of_heads,) = torch.autograd.grad(self.layer.o_proj(heads), heads, output_gradient)
        of_heads = of_heads.unflatten(-1, self.v.shape[1:])
        if self.weights.gate is not None:
            of_heads = of_heads * self.weights.gate[:, None]
        queries = of_heads.split(self.weights.query.length_list)
        keys = self.v.split(self.weights.key.length_list)
        return tuple(torch.einsum("qhd,khd->hqk", q, k) for q, k in zip(queries, keys, strict=True))


class Recording:
    """What `record` heard: the calls of all layers, in the order in which they ran."""

    def __init__(self) -> None:
        self._calls: list[_RecordedCall] = []

    def __len__(self) -> int:
        return len(self._calls)

    def weights(self, score: Tensor | None = None) -> list[LayerWeights]:
        """The weights of every call.

        Args:
            score: a scalar that was computed from what the recorded pass gave; the weights then carry its
                gradient. Samples do not see each other, so the sum over a batch serves all of them.

        Raises:
            InputError: the score is no scalar, or the pass ran without gradients.
        """
        if score is None:
            return [heard.weights for heard in self._calls]
        if score.dim() or not score.requires_grad:
            raise InputError(
                f"record: got a score {tuple(score.shape)} {'with' if score.requires_grad else 'without'} a "
                "gradient, expected a scalar computed from a pass that ran with gradients"
            )
        outs = [heard.out for heard in self._calls]
        gradients = torch.autograd.grad(score, outs, retain_graph=True, allow_unused=True)
        return [
            replace(heard.weights, gradient=heard.gradient(torch.zeros_like(heard.out) if of is None else of))
            for heard, of in zip(self._calls, gradients, strict=True)
        ]

    @torch.no_grad()
    def _record_call(self, name: str, layer: Any, args: Any, kwargs: Mapping[str, Any], result: Any) -> None:
        q, kv, context = _call_arguments(*args, **kwargs)
        call = layer._build_call(q, kv, context, *layer._project(q, kv))
        matrices = tuple(
            torch.cat([reference.attention_weights(part, sample) for part in layer._split_by_program(call)])
            for sample in range(len(q))
        )
        out = (result[0] if isinstance(result, tuple) else result).values
        # Where all weights are frozen the result starts a graph of its own, so that a score reaches it.
        if not out.requires_grad and not out.is_inference():
            out.requires_grad_()
        weights = LayerWeights(
            _layout_only(q), _layout_only(kv), matrices, _evaluation_gates(layer), name=name
        )
        self._calls.append(_RecordedCall(layer, weights, call.v, out))


@contextmanager
def record(module: nn.Module) -> Iterator[Recording]:
    """Record the weights of every `Attention` in a module, while the `with` block runs.

    The layers run on whatever backend they choose; beside it the reference works out each weight, which
    costs memory for every query-key pair: for looking at a few samples in evaluation, not for training.
    `decode` is not recorded.

    Args:
        module: any module that has `Attention` layers, or is one.

    Yields:
        A `Recording` that fills as the layers run.

    Raises:
        InputError: the module has no attention layer.

    Example:
        >>> import torch
        >>> from mmattn import attention as A
        >>> from mmattn.types import Tokens
        >>> layer = A.Attention(A.Program(mask=A.causal), dim=8, heads=2)
        >>> with record(layer) as heard:
        ...     out = layer(Tokens.from_sequences([torch.randn(3, 8)], "text"))
        >>> heard.weights()[0].matrices[0].shape
        torch.Size([2, 3, 3])
        >>> heard.weights(out.values.sum())[0].gradient[0].shape
        torch.Size([2, 3, 3])
    """
    layers = [(name, part) for name, part in module.named_modules() if isinstance(part, Attention)]
    if not layers:
        raise InputError(f"record: {type(module).__name__} has no attention layer, expected at least one")
    recording = Recording()
    handles = [
        layer.register_forward_hook(partial(recording._record_call, name), with_kwargs=True)
        for name, layer in layers
    ]
    try:
        yield recording
    finally:
        for handle in handles:
            handle.remove()


def _call_arguments(
    q: Tokens, kv: Tokens | None = None, context: Mapping[str, Any] | None = None, explain: Any = None
) -> tuple[Tokens, Tokens, Mapping[str, Any]]:
    """What the layer was called with, as its `forward` names it."""
    return q, q if kv is None else kv, context or {}


def _layout_only(tokens: Tokens) -> Tokens:
    """The layout alone."""
    return tokens.with_values(tokens.values.new_zeros(len(tokens.values), 0))


def _evaluation_gates(layer: Attention) -> Tensor | None:
    """[H], the heads' gates as they stand outside training."""
    if not layer._gates:
        return None
    gate_H = layer.o_proj.weight.new_ones(layer.heads)
    for first, last, term in layer._gates:
        gate_H[first:last] *= term.gate(layer.terms[term.name][first:last], training=False)
    return gate_H
