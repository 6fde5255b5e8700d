"""Ablations keep who has what, unless a modality is dropped; nobody keeps its own content in an exchange."""

from __future__ import annotations

import pytest
import torch

from mmattn.encoders.model_inputs import ModelInputs
from mmattn.errors import InputError
from mmattn.experiments.ablation import ablate, ablations
from mmattn.types import Tokens


@pytest.fixture
def inputs() -> ModelInputs:
    """17 samples; every third has no picture, and the audio is read in training."""
    generator = torch.Generator().manual_seed(0)
    tokens = {}
    for name, lengths in (("text", [2] * 17), ("image", [0 if b % 3 == 0 else 1 + b % 2 for b in range(17)])):
        total = sum(lengths)
        tokens[name] = Tokens(
            values=torch.randn(total, 5, generator=generator) * 3 + 7,
            offsets=torch.tensor([0, *lengths]).cumsum(0),
            modality=torch.zeros(total, dtype=torch.int64),
            position=torch.zeros(total, dtype=torch.int64),
            modalities=(name,),
        )
    return ModelInputs(tokens, {"audio": [None if b % 5 == 0 else b for b in range(17)]})


def test_shuffled(inputs: ModelInputs) -> None:
    before, after = inputs.tokens["image"], ablate(inputs, "image", "shuffle", seed=3).tokens["image"]
    assert ((before.lengths > 0) == (after.lengths > 0)).all()
    old, new = before.sequences(), after.sequences()
    for mine, other in zip(old, new, strict=True):
        assert not len(mine) or not torch.equal(mine, other)
    assert sorted(part.sum().item() for part in old) == sorted(part.sum().item() for part in new)
    sounds = ablate(inputs, "audio", "shuffle").contents["audio"]
    assert [sound is None for sound in sounds] == [b % 5 == 0 for b in range(17)]
    assert all(sound != b for b, sound in enumerate(sounds) if sound is not None)


def test_noise_has_the_layout_and_the_scale_and_nothing_else(inputs: ModelInputs) -> None:
    before, after = inputs.tokens["text"], ablate(inputs, "text", "noise").tokens["text"]
    assert torch.equal(before.offsets, after.offsets)
    assert not torch.isclose(before.values, after.values).all(1).any()
    assert after.values.mean().item() == pytest.approx(before.values.mean().item(), abs=1.0)
    assert after.values.std().item() == pytest.approx(before.values.std().item(), rel=0.3)
    assert torch.equal(ablate(inputs, "text", "noise").tokens["text"].values, after.values)


def test_contents_of_several_encoders_move_together(inputs: ModelInputs) -> None:
    """A sample gets all of another one's: what it has of the one comes from where the other comes from."""
    numbers = [None if b % 3 == 0 else b for b in range(17)]  # present where the picture is
    both = ModelInputs(inputs.tokens, {**inputs.contents, "colours": numbers})
    moved = ablate(both, ("image", "colours"), "shuffle", seed=1)
    old, new = inputs.tokens["image"].sequences(), moved.tokens["image"].sequences()
    for index, number in enumerate(moved.contents["colours"]):
        assert (number is None) == (index % 3 == 0)
        if number is not None:
            assert number != index
            assert torch.equal(new[index], old[number])
    assert ablate(both, ["image", "colours"]).modalities == ("text", "audio")


def test_every_ablation_of_a_report(inputs: ModelInputs) -> None:
    contents = {"words": ("text",), "media": ("image", "audio")}
    actual = dict(ablations(inputs, contents))
    assert list(actual) == [
        "without-words", "without-media", "without-media.image", "without-media.audio",
        "shuffled-words", "shuffled-media", "shuffled-media.image", "shuffled-media.audio",
        "noise-words", "noise-media.image",
    ]  # fmt: skip
    assert actual["without-media"].modalities == ("text",)
    assert actual["without-media.image"].modalities == ("text", "audio")
    apart = {name: (name,) for name in inputs.modalities}
    subsets = dict(ablations(inputs, apart, methods=(), include_encoders=False))
    assert {name: left.modalities for name, left in subsets.items()} == {
        "only-text": ("text",), "only-image": ("image",), "only-audio": ("audio",),
        "only-text+image": ("text", "image"), "only-text+audio": ("text", "audio"),
        "only-image+audio": ("image", "audio"),
    }  # fmt: skip
    # With drops, a subset that lacks one content is its drop.
    names = [name for name, _ in ablations(inputs, apart, methods=("drop",))]
    assert names == [*(f"without-{name}" for name in apart), *(f"only-{name}" for name in apart)]
    alone = inputs.without_modality("image").without_modality("audio")
    assert [name for name, _ in ablations(alone, {"text": ("text",)})] == ["shuffled-text", "noise-text"]


def test_refusals(inputs: ModelInputs) -> None:
    with pytest.raises(InputError, match="no modality 'imgae'. Did you mean 'image'"):
        ablate(inputs, "imgae")
    with pytest.raises(InputError, match="got 'shufle'. Did you mean 'shuffle'"):
        ablate(inputs, "image", "shufle")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'audio' has no stored vectors to replace by noise"):
        ablate(inputs, "audio", "noise")
    with pytest.raises(InputError, match="1 samples have 'audio', expected two"):
        ablate(ModelInputs({}, {"audio": [None, 1]}), "audio", "shuffle")
