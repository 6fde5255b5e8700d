"""What the benchmarks of attention and fusion run over: batches of tokens, and programs with their masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mmattn import attention as A
from mmattn.types import Tokens

LENGTHS = {"text": (8, 64), "image": (49, 49), "audio": (0, 200)}
ABSENT = 0.3


def multimodal(samples: int, dim: int) -> Tokens:
    """Samples of three modalities, each absent with probability 0.3.

    Samples without any token are drawn again: padded layers make NaN of them.
    """
    generator = torch.Generator().manual_seed(0)
    lengths_BM = torch.zeros(samples, len(LENGTHS), dtype=torch.int64)
    while (empty_B := lengths_BM.sum(1) == 0).any():
        drawn = [
            torch.randint(low, high + 1, (samples,), generator=generator) for low, high in LENGTHS.values()
        ]
        drawn_BM = torch.stack(drawn, dim=1)
        drawn_BM[torch.rand(drawn_BM.shape, generator=generator) < ABSENT] = 0
        lengths_BM = torch.where(empty_B[:, None], drawn_BM, lengths_BM)
    return Tokens.cat(
        [
            Tokens.from_lengths(torch.randn(int(column.sum()), dim, generator=generator), column, name)
            for name, column in zip(LENGTHS, lengths_BM.T, strict=True)
        ]
    )


@dataclass(frozen=True)
class Case:
    """A program over some tokens, and how padded attention says the same.

    Args:
        name: in the table.
        program: what mmattn runs.
        q, kv: the tokens; their values are not used, their width is the layer's.
        heads: H.
        mask: boolean [1 or B, 1, 1 or Q, K] for padded attention, None for none.
        causal: may padded attention say `is_causal`?
        bias: does a bias [H, M, M] over the modalities of query and key join the scores?
        tokens: are the tokens kept from call to call, new at every call, or also made within its time?
    """

    name: str
    program: A.Program
    q: Tokens
    kv: Tokens
    heads: int
    mask: Tensor | None = None
    causal: bool = False
    bias: bool = False
    tokens: Literal["kept", "new", "made"] = "kept"

    @property
    def pairs(self) -> int:
        """Pairs of tokens that the program lets meet."""
        sizes = list(zip(self.q.length_list, self.kv.length_list, strict=True))
        if self.causal:
            return sum(size * (size + 1) // 2 for size, _ in sizes)
        if self.mask is None:
            return sum(queries * keys for queries, keys in sizes)
        there_BQ = torch.arange(max(self.q.length_list)) < self.q.lengths[:, None]
        return int((self.mask & there_BQ[:, None, :, None]).sum())


def sentence(lengths: list[int], dim: int, name: str = "text") -> Tokens:
    """Samples of one modality."""
    return Tokens.from_lengths(torch.zeros(sum(lengths), dim), torch.tensor(lengths), name)


def key_mask(tokens: Tokens) -> Tensor:
    """[B, 1, 1, K], which padded keys are there."""
    return tokens.to_padded()[1][:, None, None]


def padded_modality(tokens: Tokens) -> Tensor:
    """[B, T] the modality of each padded place, 0 where there is no token."""
    column = tokens.modality[:, None].float()
    return tokens.with_values(column).to_padded()[0][..., 0].long()


def cases(length: int) -> Iterator[Case]:
    """Eight heads of 64.

    Args:
        length: tokens of the long samples, 2048; the others get longer and shorter with it.
    """
    heads, dim = 8, 512
    draw = _drawing(length / 2048)
    long = sentence([length], dim)
    position = torch.arange(length)
    near = ((position[:, None] - position).abs() <= 64)[None, None]
    names = ("text", "image", "audio", "table")
    mixed = Tokens.cat([sentence([length // 4], dim, name) for name in names])
    same = (mixed.modality[:, None] == mixed.modality)[None, None]
    ragged, tiny = (sentence(draw(*range_), dim) for range_ in ((20, 485, 32), (1, 16, 512)))
    keys, latents, short = sentence(draw(50, 700, 32), dim), sentence([32] * 32, dim), sentence([64], dim)
    alone = A.route({name: [name] for name in names})
    biased = A.Program(score=A.dot() >> A.modality_bias("pair"))
    yield Case("window(64)", A.Program(mask=A.window(64)), long, long, heads, near)
    yield Case("routes, 25% of the blocks", A.Program(mask=alone), mixed, mixed, heads, same)
    yield Case("causal", A.Program(mask=A.causal), long, long, heads, causal=True)
    yield Case("ragged, 32 samples", A.Program(), ragged, ragged, heads, key_mask(ragged))
    yield Case("tiny, 512 samples", A.Program(), tiny, tiny, heads, key_mask(tiny))
    yield Case("latents, 32 over ragged keys", A.Program(), latents, keys, heads, key_mask(keys))
    yield Case("modality bias, ragged", biased, ragged, ragged, heads, key_mask(ragged), bias=True)
    yield Case("64 tokens, kept", A.Program(), short, short, heads)
    yield Case("64 tokens, planned anew", A.Program(), short, short, heads, tokens="new")
    yield Case("64 tokens, made and planned anew", A.Program(), short, short, heads, tokens="made")


def ragged_cases(samples: int, dim: int) -> Iterator[Case]:
    """The multimodal batch of the fusion benchmark, for GPUs: heads of 64."""
    tokens, heads = multimodal(samples, dim), dim // 64
    present = key_mask(tokens)
    routes = {"text": ["text", "image"], "image": ["image", "text"], "audio": ["*"]}
    allowed_MM = torch.zeros(len(tokens.modalities), len(tokens.modalities), dtype=torch.bool)
    for query, keys in routes.items():
        for key in tokens.modalities if keys == ["*"] else keys:
            allowed_MM[tokens.modality_index(query), tokens.modality_index(key)] = True
    kind_BT = padded_modality(tokens)
    routed = allowed_MM[kind_BT[:, :, None], kind_BT[:, None]][:, None] & present
    score = A.dot() >> A.modality_bias("pair")
    yield Case("multimodal, plain", A.Program(), tokens, tokens, heads, present)
    yield Case("multimodal, routed", A.Program(mask=A.route(routes)), tokens, tokens, heads, routed)
    yield Case("multimodal, biased", A.Program(score=score), tokens, tokens, heads, present, bias=True)
    yield Case(
        "multimodal, routed and biased",
        A.Program(score=score, mask=A.route(routes)),
        tokens,
        tokens,
        heads,
        routed,
        bias=True,
    )


def _drawing(scale: float) -> Callable[[int, int, int], list[int]]:
    """Draws `count` lengths from `low` to `high`, scaled."""
    generator = torch.Generator().manual_seed(0)

    def draw(low: int, high: int, count: int) -> list[int]:
        bounds = (max(1, round(bound * scale)) for bound in (low, high))
        first, last = bounds
        return torch.randint(first, last + 1, (count,), generator=generator).tolist()

    return draw
