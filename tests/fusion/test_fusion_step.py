"""The core step by step: what follows gives what the whole would, in memory that has an end."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mmattn import attention as A
from mmattn.config import EncoderConfig, FusionConfig, ModelConfig
from mmattn.errors import InputError
from mmattn.fusion.core import FusionCore
from mmattn.model.build import build_core
from mmattn.types import Tokens


def core(program: str, positions: bool = True, **options: object) -> FusionCore:
    torch.manual_seed(0)
    encoders = {name: EncoderConfig("", positional_encoding=positions) for name in ("text", "audio")}
    fusion = FusionConfig(dim=12, layers=2, heads=2, program=program, **options)  # type: ignore[arg-type]
    made = build_core({"text": 5, "audio": 7}, ModelConfig(encoders, fusion)).eval()
    with torch.no_grad():  # blocks start as the identity
        for value in made.parameters():
            value.add_(torch.randn_like(value) * 0.3)
    return made


def some(lengths: list[int], dim: int, modality: str) -> Tokens:
    return Tokens.from_sequences([torch.randn(length, dim) for length in lengths], modality)


@pytest.mark.parametrize(
    ("program", "options"),
    [
        ("Program(mask=causal & window(3))", {}),
        ('Program(score=dot() >> relative("r", 8) >> modality_bias("pair"), mask=causal)', {"width": 6}),
        ('Program(score=dot() >> temperature(dynamic("t", on="task")), mask=causal)', {"tasks": ["a", "b"]}),
    ],
)
@torch.no_grad()
def test_steps_give_what_the_whole_gives(program: str, options: dict[str, object]) -> None:
    made = core(program, **options)
    context = {"task": "b"} if "tasks" in options else None
    parts = {"text": some([11, 3], 5, "text"), "audio": some([7, 13], 7, "audio")}
    whole = made(parts, context).tokens
    caches, got = (), torch.zeros_like(whole.values)
    for first, last in [(0, 1), (1, 4), (4, 4), (4, 11), (11, 13)]:
        piece = {
            name: tokens.filter((tokens.position >= first) & (tokens.position < last))
            for name, tokens in parts.items()
        }
        out, caches = made.decode(piece, caches, context)
        got[(whole.position >= first) & (whole.position < last)] = out.values
    torch.testing.assert_close(got, whole.values, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_window_forgets() -> None:
    made, caches = core("Program(mask=causal & window(3))"), ()
    for index in range(20):
        token = some([1], 7, "audio")
        _, caches = made.decode({"audio": replace(token, position=token.position + index)}, caches)
    assert [len(cache) for cache in caches] == [3, 3]


@pytest.mark.parametrize(
    ("mask", "reach"),
    [
        (A.causal, None),
        (A.causal & A.window(5), 5),
        (A.causal & (A.window(5) | A.dilated(12, 3)), 12),
        (A.causal & (A.window(5) | A.global_tokens("cls")), None),
        (A.causal & A.window(5) & A.blocks(3), 2),
        (A.where("text", A.causal & A.window(2), A.causal & A.window(7)), 7),
        (~A.window(5), None),
    ],
    ids=str,
)
def test_how_far_back_a_mask_looks(mask: A.Mask, reach: int | None) -> None:
    assert mask.max_lookback == reach


def test_what_looks_ahead_has_no_steps() -> None:
    with pytest.raises(InputError, match="may look ahead"):
        core("Program(mask=window(3))").decode({"audio": some([2], 7, "audio")})


@torch.no_grad()
def test_without_positions_a_token_is_the_same_wherever_it_stands() -> None:
    token = some([1], 7, "audio")
    later = replace(token, position=token.position + 90_000)
    for positions in (True, False):
        entry = core("Program(mask=causal)", positions).input_projection
        same = torch.equal(entry({"audio": token}).values, entry({"audio": later}).values)
        assert same is not positions
