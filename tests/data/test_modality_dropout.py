"""Modalities are dropped at random, but never all of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmattn.data.modality_dropout import drop_modalities
from mmattn.errors import InputError
from mmattn.types import Tokens

NAMES = ("text", "image", "audio")


def part(lengths: list[int], name: str, value: float) -> Tokens:
    return Tokens.from_sequences([torch.full((length, 5), value) for length in lengths], name)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(
    lengths=st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=11),
    probability=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 999),
)
def test_what_stays_is_whole_and_never_nothing(
    lengths: list[tuple[int, int, int]], probability: float, seed: int
) -> None:
    columns = list(map(list, zip(*lengths, strict=True)))
    parts = {
        name: part(column, name, float(index))
        for index, (name, column) in enumerate(zip(NAMES, columns, strict=True))
    }
    joint = drop_modalities(Tokens.cat(parts.values()), probability, seeded(seed))
    apart = drop_modalities(parts, probability, seeded(seed))
    # One batch or one a modality: the same are dropped.
    assert torch.equal(Tokens.cat(apart.values()).values, joint.values)
    for sample, before in enumerate(lengths):
        after = [apart[name].length_list[sample] for name in NAMES]
        assert all(now in (0, was) for now, was in zip(after, before, strict=True))
        assert any(after) == any(before)
        if probability == 0:
            assert after == list(before)
        if probability == 1:
            assert sum(map(bool, after)) == min(1, sum(map(bool, before)))


def test_the_rates_are_those_asked_for() -> None:
    """Two of two present, probability p = 0.4: both stay .36, only one .48, and where both would go (.16)
    either stays. So each modality stays with .6 + .08 = .68."""
    samples = 20011
    parts = {name: part([1] * samples, name, 1.0) for name in ("text", "image")}
    kept = drop_modalities(parts, 0.4, seeded(0))
    stays_BM = torch.stack([tokens.lengths for tokens in kept.values()], dim=1).float()
    torch.testing.assert_close(stays_BM.mean(0), torch.tensor([0.68, 0.68]), atol=0.012, rtol=0)
    assert abs(stays_BM.prod(1).mean().item() - 0.36) < 0.012
    assert stays_BM.sum(1).min() == 1


def test_the_same_generator_drops_the_same() -> None:
    parts = {name: part([1] * 101, name, 1.0) for name in NAMES}
    first, second = (drop_modalities(parts, 0.5, seeded(3)) for _ in range(2))
    assert all(first[name].length_list == second[name].length_list for name in NAMES)
    assert first["text"].length_list != drop_modalities(parts, 0.5, seeded(4))["text"].length_list


def test_nothing_to_drop() -> None:
    assert drop_modalities({}, 0.5) == {}
    assert len(drop_modalities(Tokens.empty(3, 5), 0.5)) == 3


def test_wrong_arguments() -> None:
    parts = {"text": part([1, 1], "text", 0.0), "image": part([1], "image", 0.0)}
    with pytest.raises(InputError, match=r"got samples \{'text': 2, 'image': 1\}, expected the same number"):
        drop_modalities(parts, 0.5)
    with pytest.raises(InputError, match=r"got probability 1\.5, expected 0 to 1"):
        drop_modalities(parts["text"], 1.5)
