"""The same programs over padded tokens: one dense rectangle of pairs, without a choice that looks at data.

Compilers and exporters want one graph for all lengths, which jagged tokens do not give them. Here every word
of the language says what it says everywhere, through its own `match`, `change`, `allow` and `normalize`, and
padding is one more thing that no query may attend to. Only `graph_bias` joins tokens by what is in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmattn.attention.language.biases import ALIBI_SLOPE_KEY, BoxBias, GraphBias, box_features
from mmattn.attention.language.pairs import Pairs, TokenFields
from mmattn.attention.language.parameters import Dynamic
from mmattn.errors import InputError
from mmattn.types import Tokens

if TYPE_CHECKING:
    from mmattn.attention.layer.attention import Attention

__all__ = ["PaddedTokens", "attend_padded", "check_supports_padding"]


@dataclass(frozen=True, eq=False)
class PaddedTokens:
    """Tokens of a batch in one rectangle.

    Args:
        values: [B, T, D]; what stands in padded places is finite, and nobody sees it.
        mask: [B, T] boolean, True where there is a token.
        modality: [B, T] int64, an index into `modalities`.
        position: [B, T] int64.
        modalities: the names.
        time: [B, T] seconds, NaN where unknown; None where nothing has a time.

    Example:
        >>> two = Tokens.from_sequences([torch.ones(2, 4), torch.ones(3, 4)], "text")
        >>> PaddedTokens.from_tokens(two).mask.tolist()
        [[True, True, False], [True, True, True]]
    """

    values: Tensor
    mask: Tensor
    modality: Tensor
    position: Tensor
    modalities: tuple[str, ...]
    time: Tensor | None = None

    @classmethod
    def from_tokens(cls, tokens: Tokens) -> PaddedTokens:
        """The tokens in a rectangle as long as the longest sample.

        Args:
            tokens: B samples.
        """
        values, mask = tokens.to_padded()

        def padded(field: Tensor, filler: float) -> Tensor:
            return field.new_full(mask.shape, filler).masked_scatter(mask, field)

        return cls(
            values,
            mask,
            padded(tokens.modality, 0),
            padded(tokens.position, 0),
            tokens.modalities,
            None if tokens.time is None else padded(tokens.time, float("nan")),
        )

    def with_values(self, values: Tensor) -> PaddedTokens:
        """The same layout with other values [B, T, D'].

        Args:
            values: [B, T, D'].
        """
        return replace(self, values=values)


def check_supports_padding(layer: Attention) -> None:
    """Can this layer's program run over padded tokens?

    Args:
        layer: the attention layer.

    Raises:
        InputError: it has a word that cannot; the word is named.
        InputError: the program depends on what padded tokens do not have.
    """
    for term in layer.program.walk():
        if isinstance(term, GraphBias):
            raise InputError(
                f"attention: {term} cannot run over padded tokens: edges are joined to the tokens by the "
                "entities that are in a batch"
            )


def attend_padded(
    layer: Attention,
    q: PaddedTokens,
    kv: PaddedTokens | None = None,
    context: Mapping[str, Any] | None = None,
) -> Tensor:
    """What `layer(q, kv, context)` gives in evaluation, for padded tokens.

    Args:
        layer: any; its backend is not asked.
        q: the queries' tokens, width D.
        kv: the keys' tokens; left out, the queries' own.
        context: "task" [B, D] or [D] for `dynamic(on="task")`, and boxes [B, T, 4] for `box_bias` (NaN in
            padded places), a pair where queries and keys differ.

    Returns:
        [B, T, D]; what stands in padded places means nothing.

    Raises:
        InputError: as `check_supports_padding`; tokens without times where a term asks for them.

    Example:
        >>> from mmattn import attention as A
        >>> layer = A.Attention(A.Program(mask=A.causal), dim=8, heads=2)
        >>> tokens = Tokens.from_sequences([torch.randn(2, 8), torch.randn(3, 8)], "text")
        >>> padded = PaddedTokens.from_tokens(tokens)
        >>> torch.allclose(attend_padded(layer, padded)[padded.mask], layer(tokens).values, atol=1e-6)
        True
    """
    check_supports_padding(layer)
    kv, context = q if kv is None else kv, context or {}
    if any("M" in spec.shape for spec in layer.program.parameters()):
        layer.register_modalities([*q.modalities, *kv.modalities])
    shape = (layer.heads, layer.width)
    q_BHTK = layer.q_proj(q.values).unflatten(-1, shape).transpose(1, 2)
    k_BHTK = layer.k_proj(kv.values).unflatten(-1, shape).transpose(1, 2)
    v_BHTK = layer.v_proj(kv.values).unflatten(-1, shape).transpose(1, 2)
    boxes = {term.name: context[term.name] for term in layer.program.walk() if isinstance(term, BoxBias)}
    pairs = Pairs(
        query=_padded_fields(q, -1, {name: _boxes_of_side(given, 0) for name, given in boxes.items()}),
        key=_padded_fields(kv, -2, {name: _boxes_of_side(given, 1) for name, given in boxes.items()}),
        head=torch.arange(layer.heads, device=q.values.device)[:, None, None],
        parameters=_parameters(layer, q, context),
        modality_slots=layer._modalities,
    )
    out = []
    for first, last, program in layer._head_programs:
        part = replace(pairs, head=pairs.head[first:last])
        score = program.chain.score(q_BHTK[:, first:last], k_BHTK[:, first:last], part)
        allowed = program.mask.allow(part) & kv.mask[:, None, None, :]
        out.append(program.norm.normalize(score, allowed, part) @ v_BHTK[:, first:last])
    out_BHTK = torch.cat(out, dim=1) if len(out) > 1 else out[0]
    for first, last, gate in layer._gates:
        open_H = torch.ones(layer.heads, device=q.values.device, dtype=q.values.dtype)
        open_H[first:last] = gate.gate(layer.terms[gate.name][first:last], training=False)
        out_BHTK = out_BHTK * open_H[:, None, None]
    result: Tensor = layer.o_proj(out_BHTK.transpose(1, 2).flatten(2))
    return result


def _padded_fields(side: PaddedTokens, axis: int, boxes: Mapping[str, Tensor]) -> TokenFields:
    """The fields of one side, [B, 1, T, 1] or [B, 1, 1, T]."""

    def shaped(field: Tensor) -> Tensor:
        return field[:, None].unsqueeze(axis)

    return TokenFields(
        position=shaped(side.position),
        modality=shaped(side.modality),
        modalities=side.modalities,
        time=None if side.time is None else shaped(side.time),
        extra={name: tuple(map(shaped, box_features(given))) for name, given in boxes.items()},
    )


def _boxes_of_side(value: Any, side_index: int) -> Tensor:
    boxes: Tensor = value[side_index] if isinstance(value, tuple) else value
    return boxes


def _parameters(layer: Attention, q: PaddedTokens, context: Mapping[str, Any]) -> dict[str, Tensor]:
    """The layer's own, and what is predicted of each sample, [B, H]."""
    parameters: dict[str, Tensor] = dict(layer.program_parameters())
    for term in layer.program.walk():
        if isinstance(term, Dynamic):
            parameters[term.name] = _dynamic_input(term, q, context) @ parameters[term.name].T
    if layer._has_slope:
        parameters[ALIBI_SLOPE_KEY] = layer.get_buffer("slope")
    return parameters


def _dynamic_input(term: Dynamic, q: PaddedTokens, context: Mapping[str, Any]) -> Tensor:
    """[B, D], what a dynamic number is predicted from."""
    if term.on == "task":
        task: Tensor = context["task"]
        return task.expand(q.values.shape[0], -1)
    total_BD = (q.values * q.mask[:, :, None]).sum(1)
    return total_BD / q.mask.sum(1, keepdim=True).clamp(min=1)
