"""Random programs and random batches, to hold the backends against the reference with.

The same seed draws the same things everywhere.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmattn.attention.language.biases import (
    BoxBias,
    GraphBias,
    alibi,
    box_bias,
    graph_bias,
    modality_bias,
    relative,
    time_bias,
)
from mmattn.attention.language.modality_masks import global_tokens, present, route, where
from mmattn.attention.language.norms import Norm, entmax15, sigmoid, softmax, sparsemax, topk
from mmattn.attention.language.parameters import Number, dynamic, learned
from mmattn.attention.language.position_masks import blocks, causal, dilated, full, window
from mmattn.attention.language.program import Heads, Program, heads
from mmattn.attention.language.scores import (
    BaseScore,
    Chain,
    ScoreModifier,
    additive,
    bilinear,
    cosine,
    dot,
    head_gate,
    softcap,
    temperature,
)
from mmattn.attention.visualize.example_batch import program_modalities
from mmattn.types import Tokens

if TYPE_CHECKING:
    from mmattn.attention.language.mask_algebra import Mask

__all__ = ["MODALITIES", "RELATIONS", "random_batch", "random_context", "random_program", "random_tokens"]

MODALITIES = ("text", "image", "audio")
RELATIONS = 3
_ENTITIES = 7
# Lengths that catch what round numbers hide: nothing, one token, primes around the block sizes.
_LENGTHS = (0, 0, 1, 1, 2, 3, 5, 7, 11, 13, 17, 23)
_LONG_LENGTHS = (61, 131, 197)


def random_program(rng: random.Random, num_heads: int = 4) -> Program | Heads:
    """A random program; sometimes two, for other heads of `num_heads`.

    Args:
        rng: source of randomness.
        num_heads: number of heads.
    """
    if num_heads > 1 and rng.random() < 0.15:
        middle = rng.randint(1, num_heads - 1)
        return heads(
            {(0, middle): _random_program(rng, "left"), (middle, num_heads): _random_program(rng, "right")}
        )
    return _random_program(rng, "")


def _random_program(rng: random.Random, prefix: str) -> Program:
    # Plain masks more often than chance has it: some backends run nothing else.
    plain: list[Mask] = [full, causal]
    mask = rng.choice(plain) if rng.random() < 0.25 else random_mask(rng)
    return Program(score=_random_score(rng, prefix), mask=mask, norm=_random_norm(rng, prefix))


def _random_score(rng: random.Random, prefix: str) -> Chain | BaseScore:
    base = rng.choice(  # type: ignore[no-untyped-call]
        [
            lambda: dot(),
            lambda: dot(),
            lambda: dot(scale=_random_number(rng, prefix + "scale", 0.3)),
            lambda: cosine,
            lambda: bilinear(prefix + "bilinear"),
            lambda: additive(3, prefix + "additive"),
        ]
    )()
    changes: list[Callable[[], ScoreModifier]] = [
        lambda: alibi,
        lambda: relative(prefix + "relative", 8, 20),
        lambda: modality_bias(prefix + "pair"),
        lambda: graph_bias(prefix + "kg", RELATIONS),
        lambda: time_bias(prefix + "time", 6),
        lambda: box_bias(prefix + "box"),
        lambda: softcap(_random_number(rng, prefix + "cap", 4.0)),
        lambda: temperature(_random_number(rng, prefix + "temperature", 0.7)),
        lambda: head_gate(prefix + "gate"),
    ]
    chain: Chain | BaseScore = base
    for make in rng.sample(changes, rng.choice([0, 0, 1, 1, 2, 3])):
        chain = chain >> make()
    return chain


def _random_number(rng: random.Random, name: str, value: float) -> Number:
    numbers: list[Number] = [
        value,
        learned(name, value),
        dynamic(name, on="task", start=value),
        dynamic(name, start=value),
    ]
    return rng.choice(numbers)


def _random_norm(rng: random.Random, prefix: str) -> Norm:
    plain = [softmax()] * 6
    return rng.choice(
        [*plain, softmax(prefix + "sink"), sigmoid, sparsemax, entmax15, topk(rng.choice([1, 3, 8]))]
    )


def random_mask(rng: random.Random, depth: int = 0) -> Mask:
    """A random mask with operators nested up to three deep.

    Args:
        rng: source of randomness.
        depth: nesting so far.
    """
    if depth < 3 and rng.random() < 0.45:
        a, b = random_mask(rng, depth + 1), random_mask(rng, depth + 1)
        return rng.choice([~a, a & b, a | b, where(rng.choice(MODALITIES), a, b)])
    choices: list[Callable[[], Mask]] = [
        lambda: full,
        lambda: causal,
        lambda: present,
        lambda: window(rng.choice([0, 1, 4, 30])),
        lambda: dilated(rng.choice([3, 12, 60]), rng.choice([1, 2, 5])),
        lambda: blocks(rng.choice([1, 3, 16, 64])),
        lambda: _random_route(rng),
        lambda: global_tokens(rng.choice(MODALITIES)),
    ]
    return rng.choice(choices)()


def _random_route(rng: random.Random) -> Mask:
    routes = {
        name: rng.sample(MODALITIES, rng.randint(0, 3)) for name in rng.sample(MODALITIES, rng.randint(0, 2))
    }
    return route({**routes, "*": rng.choice([["*"], [], [rng.choice(MODALITIES)]])})


def random_batch(rng: random.Random, program: Program | Heads, dim: int) -> tuple[Tokens, Tokens]:
    """Queries and keys that the program can run over: half of the time the same tokens, where it allows
    that, otherwise of other lengths.

    Args:
        rng: source of randomness.
        program: that has to run over the tokens.
        dim: width of the tokens.
    """
    query, key = program_modalities(program)
    samples = rng.choice([1, 2, 5, 7])
    q = random_tokens(rng, samples, dim, query)
    itself = rng.random() < 0.5 and query == key
    return q, q if itself else random_tokens(rng, samples, dim, key)


def random_tokens(
    rng: random.Random, samples: int, dim: int, modalities_in_use: tuple[str, ...] = MODALITIES
) -> Tokens:
    """Float64 tokens of some of these modalities, with times, entities and gaps in both.

    Args:
        rng: source of randomness.
        samples: number of samples.
        dim: width of the tokens.
        modalities_in_use: modalities to draw from.
    """
    generator = torch.Generator().manual_seed(rng.randrange(1 << 30))
    parts = []
    alone = rng.choice(modalities_in_use) if rng.random() < 0.25 else None
    equal = rng.choice(_LENGTHS) if rng.random() < 0.15 else None
    for name in modalities_in_use:
        lengths = [rng.choice(_LENGTHS) if equal is None else equal for _ in range(samples)]
        if alone not in (None, name):
            lengths = [0] * samples
        if rng.random() < 0.1:
            lengths[rng.randrange(samples)] = rng.choice(_LONG_LENGTHS)
        parts.append(_random_modality_tokens(name, torch.tensor(lengths), dim, generator))
    return Tokens.cat(parts)


def _random_modality_tokens(name: str, lengths: Tensor, dim: int, generator: torch.Generator) -> Tokens:
    total = int(lengths.sum())
    # Two days in seconds, and about a tenth unknown.
    time = torch.rand(total, generator=generator, dtype=torch.float64) * 172_800
    time[torch.rand(total, generator=generator) < 0.1] = float("nan")
    entity = torch.randint(-1, _ENTITIES, (total,), generator=generator)
    values = torch.randn(total, dim, generator=generator, dtype=torch.float64)
    return Tokens.from_lengths(values, lengths, name, time=time, entity=entity)


def random_context(program: Program | Heads, q: Tokens, kv: Tokens, rng: random.Random) -> dict[str, Any]:
    """Everything that a drawn program may refer to.

    Args:
        program: that may refer to the context.
        q: queries.
        kv: keys and values.
        rng: source of randomness.
    """
    generator = torch.Generator().manual_seed(rng.randrange(1 << 30))
    context: dict[str, Any] = {"task": torch.randn(q.dim, generator=generator, dtype=torch.float64)}
    if rng.random() < 0.3:
        context["presence"] = torch.rand(len(kv), len(kv.modalities), generator=generator) < 0.7
    for term in program.walk():
        if isinstance(term, GraphBias):
            context[term.name] = torch.stack(
                [
                    torch.randint(0, top, (37,), generator=generator)
                    for top in (_ENTITIES, _ENTITIES, term.relations)
                ]
            )
        elif isinstance(term, BoxBias):
            context[term.name] = tuple(_random_boxes(len(tokens.values), generator) for tokens in (q, kv))
    return context


def _random_boxes(count: int, generator: torch.Generator) -> Tensor:
    corner = torch.rand(count, 2, generator=generator, dtype=torch.float64)
    size = torch.rand(count, 2, generator=generator, dtype=torch.float64) + 0.1
    boxes = torch.cat([corner, corner + size], dim=1)
    boxes[torch.rand(count, generator=generator) < 0.2] = float("nan")
    return boxes
