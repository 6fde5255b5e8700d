"""The contracts: round trips, prime sizes, empty samples, absent modalities, no tokens at all."""

from __future__ import annotations

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmattn import Fused, InputError, Sample, Tokens

NAMES = ("text", "image", "audio")


@st.composite
def batches(draw: st.DrawFn, samples: int | None = None, optional: bool = True) -> Tokens:
    """Jagged batches of any shape: no samples, empty samples, absent modalities, optional fields."""
    count = draw(st.integers(0, 7)) if samples is None else samples
    sizes = draw(st.lists(st.integers(0, 11), min_size=count, max_size=count))
    total = sum(sizes)
    index = st.integers(0, 2)
    modality = draw(st.lists(index, min_size=total, max_size=total))
    numbers = torch.arange(total, dtype=torch.float64)
    return Tokens(
        values=torch.stack([numbers, numbers * 7 + 1, -numbers], 1),
        offsets=torch.tensor([0, *sizes]).cumsum(0),
        modality=torch.tensor(modality, dtype=torch.int64),
        position=torch.arange(total),
        modalities=NAMES,
        time=numbers * 0.5 if optional and draw(st.booleans()) else None,
        entity=torch.arange(total) % 5 - 1 if optional and draw(st.booleans()) else None,
    )


def assert_same(one: Tokens, other: Tokens) -> None:
    assert one.modalities == other.modalities
    for name in ("values", "offsets", "modality", "position", "time", "entity"):
        left, right = getattr(one, name), getattr(other, name)
        assert (left is None) == (right is None), name
        if left is not None:
            torch.testing.assert_close(left, right, rtol=0, atol=0, equal_nan=True, msg=name)


# --- round trips ---------------------------------------------------------------------------------


@given(batches(), st.integers(0, 5))
def test_padding_round_trip(tokens: Tokens, extra: int) -> None:
    longest = int(tokens.lengths.max()) if len(tokens) else 0
    values, mask = tokens.to_padded(longest + extra, padding_value=float("nan"))
    assert values.shape == (len(tokens), longest + extra, 3)
    assert mask.sum(1).tolist() == tokens.length_list
    assert values[~mask].isnan().all()

    def padded(field: torch.Tensor | None) -> torch.Tensor | None:
        if field is None:
            return None
        return (
            tokens.with_values(field[:, None].double()).to_padded(longest + extra)[0][..., 0].to(field.dtype)
        )

    back = Tokens.from_padded(
        values,
        mask,
        padded(tokens.modality),
        modalities=NAMES,
        position=padded(tokens.position),
        time=padded(tokens.time),
        entity=padded(tokens.entity),
    )
    assert_same(back, tokens)


@given(batches())
def test_splitting_by_modality_and_joining_again_keeps_every_token(tokens: Tokens) -> None:
    parts = [tokens.select_modalities(name) for name in NAMES]
    joined = Tokens.cat(parts)
    assert joined.length_list == tokens.length_list
    for sample in range(len(tokens)):
        before = tokens.sequences()[sample][:, 0].sort().values
        after = joined.sequences()[sample][:, 0].sort().values
        assert before.tolist() == after.tolist()
    torch.testing.assert_close(joined.presence, tokens.presence)


@given(batches())
def test_select_all_is_the_identity_and_select_composes(tokens: Tokens) -> None:
    everything = torch.arange(len(tokens))
    assert_same(tokens.select(everything), tokens)
    twice = torch.cat([everything.flip(0), everything])
    chosen = tokens.select(twice)
    assert chosen.length_list == tokens.length_list[::-1] + tokens.length_list
    assert_same(chosen.select(torch.arange(len(tokens), 2 * len(tokens))), tokens)


@given(st.data(), st.integers(0, 5))
def test_cat_interleaves_sample_by_sample(data: st.DataObject, count: int) -> None:
    parts = [data.draw(batches(samples=count)) for _ in range(3)]
    joined = Tokens.cat(parts)
    for sample in range(count):
        expected = torch.cat([part.sequences()[sample] for part in parts])
        assert joined.sequences()[sample].tolist() == expected.tolist()
    assert (joined.time is None) == all(part.time is None for part in parts)


@given(batches())
def test_filter_everything_away_leaves_samples_without_tokens(tokens: Tokens) -> None:
    nothing = tokens.filter(torch.zeros(len(tokens.values), dtype=torch.bool))
    assert len(nothing) == len(tokens)
    assert nothing.length_list == [0] * len(tokens)
    assert not nothing.presence.any()
    assert nothing.to_padded()[0].shape == (len(tokens), 0, 3)


# --- by hand, prime sizes -----------------------------------------------------------------------


def test_cat_by_hand() -> None:
    text = Tokens.from_sequences(
        [torch.full((2, 1), 1.0), torch.full((0, 1), 2.0), torch.full((1, 1), 3.0)], "text"
    )
    image = Tokens.from_lengths(
        torch.tensor([[10.0], [11.0], [12.0]]),
        torch.tensor([1, 2, 0]),
        "image",
        entity=torch.tensor([4, 5, 6]),
    )
    both = Tokens.cat([text, image])
    assert both.values[:, 0].tolist() == [1, 1, 10, 11, 12, 3]
    assert both.offsets.tolist() == [0, 3, 5, 6]
    assert both.modality.tolist() == [0, 0, 1, 1, 1, 0]
    assert both.position.tolist() == [0, 1, 0, 0, 1, 0]
    assert both.entity is not None
    assert both.entity.tolist() == [-1, -1, 4, 5, 6, -1]
    assert both.presence.tolist() == [[True, True], [False, True], [True, False]]
    assert both.sample.tolist() == [0, 0, 0, 1, 1, 2]


def test_gradients_pass_through_padding_and_selection() -> None:
    values = torch.randn(7, 5, requires_grad=True)
    tokens = Tokens.from_lengths(values, torch.tensor([3, 0, 4]), "text")
    padded, _ = tokens.to_padded(11)
    (padded.sum() + 2 * tokens.select([2, 2]).values.sum()).backward()
    assert values.grad is not None
    assert values.grad[:, 0].tolist() == [1, 1, 1, 5, 5, 5, 5]


def test_layout_is_derived_once_for_a_stack_of_layers() -> None:
    tokens = Tokens.from_lengths(torch.zeros(5, 3), torch.tensor([2, 3]), "text")
    wider = tokens.with_values(torch.ones(5, 13))
    assert wider.sample is tokens.sample
    assert wider.dim == 13
    assert tokens.select([0]).length_list == [2]  # another layout has its own


def test_zero_samples_and_zero_tokens() -> None:
    for tokens in (Tokens.empty(0, 3, ("text",)), Tokens.empty(5, 3, ("text",))):
        assert tokens.presence.shape == (len(tokens), 1)
        assert tokens.to_padded()[0].shape == (len(tokens), 0, 3)
        assert Tokens.cat([tokens, tokens]).length_list == [0] * len(tokens)


def test_to_changes_dtype_and_repr_says_what_it_is() -> None:
    tokens = Tokens.from_lengths(torch.zeros(5, 3), torch.tensor([2, 3]), "text")
    assert tokens.to(dtype=torch.float64).dtype == torch.float64
    assert repr(tokens) == "Tokens(2 samples, 5 tokens of width 3, {'text': 5}, float32 on cpu)"


def test_sample_drops_what_is_absent_is_immutable_and_pickles() -> None:
    sample = Sample("1", {"text": "", "image": None, "audio": b"RIFF"})
    assert sample.modalities == ("text", "audio")  # an empty text is there; None is not
    with pytest.raises(TypeError):
        sample.content["text"] = "other"  # type: ignore[index]
    assert pickle.loads(pickle.dumps(sample)) == sample


# --- what is refused ----------------------------------------------------------------------------

GOOD = {
    "values": torch.zeros(5, 3),
    "offsets": torch.tensor([0, 2, 5]),
    "modality": torch.zeros(5, dtype=torch.int64),
    "position": torch.arange(5),
    "modalities": ("text", "image"),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": torch.zeros(5)}, r"Tokens.values: got \(5,\) torch.float32, expected a floating point"),
        ({"values": torch.zeros(5, 3, dtype=torch.int64)}, r"got \(5, 3\) torch.int64"),
        ({"values": [1.0]}, "Tokens.values: got list"),
        (
            {"offsets": torch.tensor([0, 3, 2, 5])},
            r"got \[0, 3, 2, 5\], expected to start at 0, never decrease",
        ),
        ({"offsets": torch.tensor([0, 4])}, "end at 5"),
        ({"offsets": torch.tensor([1, 5])}, "start at 0"),
        ({"offsets": torch.tensor([0.0, 5.0])}, "Tokens.offsets: got .* expected int64"),
        ({"modality": torch.full((5,), 2)}, r"got 2 to 2, expected indices into \('text', 'image'\)"),
        (
            {"modality": torch.zeros(4, dtype=torch.int64)},
            r"Tokens.modality: got \(4,\) .* expected int64 \[5\]",
        ),
        ({"position": torch.zeros(5)}, "Tokens.position: .* expected int64"),
        ({"time": torch.zeros(5, dtype=torch.int64)}, "Tokens.time: .* expected floating point"),
        ({"entity": torch.zeros(3, dtype=torch.int64)}, r"Tokens.entity: got \(3,\)"),
        ({"modalities": ("text", "text")}, "expected distinct names"),
    ],
)
def test_a_field_that_does_not_fit_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Tokens(**{**GOOD, **change})  # type: ignore[arg-type]


def test_joining_what_does_not_fit_is_refused() -> None:
    tokens = Tokens(**GOOD)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="part 1 has dim 7, expected 3 as in part 0"):
        Tokens.cat([tokens, tokens.with_values(torch.zeros(5, 7))])
    with pytest.raises(InputError, match="part 1 has num_samples 1, expected 2"):
        Tokens.cat([tokens, tokens.select([0])])
    with pytest.raises(InputError, match="got no parts"):
        Tokens.cat([])


def test_selecting_and_padding_outside_the_range_is_refused() -> None:
    tokens = Tokens(**GOOD)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="got samples 0 to 2, expected 0 to 1"):
        tokens.select([0, 2])
    with pytest.raises(InputError, match=r"got a boolean \(3,\), expected \[2\]"):
        tokens.select(torch.tensor([True, False, True]))
    with pytest.raises(InputError, match="got length 2, expected at least 3"):
        tokens.to_padded(2)
    with pytest.raises(InputError, match="no modality 'imgae'. Did you mean 'image'"):
        tokens.select_modalities("imgae")
    with pytest.raises(InputError, match="got 4 rows, expected 5"):
        tokens.with_values(torch.zeros(4, 3))
    with pytest.raises(InputError, match="lengths add up to 4, expected 5"):
        Tokens.from_lengths(torch.zeros(5, 3), torch.tensor([4]), "text")
    with pytest.raises(InputError, match="expected a boolean"):
        tokens.filter(torch.ones(5))


def test_fused_checks_its_shapes() -> None:
    tokens = Tokens(**GOOD)  # type: ignore[arg-type]
    good = {
        "tokens": tokens,
        "pooled": torch.zeros(2, 3),
        "by_modality": torch.zeros(2, 2, 3),
        "presence": tokens.presence,
    }
    assert len(Fused(**good)) == 2  # type: ignore[arg-type]
    for name, wrong in {
        "pooled": torch.zeros(3, 3),
        "by_modality": torch.zeros(2, 3, 3),
        "presence": torch.zeros(2, 2),
    }.items():
        with pytest.raises(InputError, match=f"Fused.{name}: got"):
            Fused(**{**good, name: wrong})  # type: ignore[arg-type]


def test_sample_refuses_wrong_names() -> None:
    with pytest.raises(InputError, match=r"Sample.id: got 1 \(int\), expected a string"):
        Sample(1)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="got modality name ''"):
        Sample("1", {"": 1})
