"""Mixtures: contents and losses in the same shares, and what does not fit is left alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.encoders.audio.conv_mel import ConvMel
from mmattn.encoders.model_inputs import ModelInputs
from mmattn.errors import InputError
from mmattn.model.build import build_model
from mmattn.training.loop import LoopConfig, train
from mmattn.training.tasks.mixup import MixupTask

DIGITS = ["one", "two", "two", "one", "one", "two"]


def made(contents: list[Any], inputs: ModelInputs | None = None, **options: Any) -> MixupTask:
    torch.manual_seed(0)
    encoder = ConvMel(dim=8, n_mels=5, channels=(3, 5))
    config = ModelConfig(
        {"audio": EncoderConfig("conv-mel", encoder.options())},
        FusionConfig(dim=8, heads=2, layers=0),
        {"said": HeadConfig("classification", {"classes": ["one", "two"]})},
    )
    model = build_model({"audio": encoder}, config)
    inputs = inputs or ModelInputs({}, {"audio": contents})
    return MixupTask(model, inputs, DIGITS, range(6), head="said", batch_size=6, **options)


def frames(*lengths: int) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(length, 5, generator=generator) for length in lengths]


def test_contents_and_losses_are_mixed_in_one_share() -> None:
    contents = frames(*[7] * 6)
    task = made(contents)
    torch.manual_seed(3)
    batch, both = task._load_batch(torch.arange(6))
    share = both[0].first_weight
    assert 0 < share < 1
    assert len({entry.first_weight for entry in both}) == 1
    assert sorted(entry.second for entry in both) == sorted(DIGITS)
    for position, (mixed, element) in enumerate(zip(batch.contents["audio"], both, strict=True)):
        assert element.first == DIGITS[position]
        fits = [
            DIGITS[other]
            for other in range(6)
            if torch.allclose(mixed, share * contents[position] + (1 - share) * contents[other], atol=1e-6)
        ]
        assert fits == [element.second]
    task.eval()
    fused = task.model.fuse(task.model.tokens(batch, torch.arange(6)))
    log_BC = task.head(fused).log_softmax(1)
    number = {"one": 0, "two": 1}
    expected = torch.stack(
        [
            -share * log_BC[index, number[entry.first]] - (1 - share) * log_BC[index, number[entry.second]]
            for index, entry in enumerate(both)
        ]
    ).mean()
    torch.testing.assert_close(task.criterion(batch, both)(fused), expected)


def test_what_does_not_fit_is_left_alone() -> None:
    contents = [*frames(7, 7, 4), None, None, frames(9)[0]]
    for seed in range(20):
        torch.manual_seed(seed)
        batch, both = made(contents)._load_batch(torch.arange(6))
        actual = batch.contents["audio"]
        assert [None if entry is None else len(entry) for entry in actual] == [7, 7, 4, None, None, 9]
        for index in (2, 5):
            assert actual[index] is contents[index]
            assert both[index].second == DIGITS[index]


def test_it_trains_and_predicts_plain_samples() -> None:
    contents = [
        torch.full((7, 5), -1.0 if digit == "one" else 1.0) + 0.1 * noise
        for digit, noise in zip(DIGITS, frames(*[7] * 6), strict=True)
    ]
    task = made(contents)
    train(task, LoopConfig(epochs=30, learning_rate=0.02), progress=False)
    assert task.predict(range(6)) == DIGITS


def test_refused() -> None:
    with pytest.raises(InputError, match="task 'said': got mixing 0"):
        made(frames(*[7] * 6), alpha=0)
    tokens = ConvMel(dim=8, n_mels=5, channels=(3, 5)).eval()(frames(*[7] * 6))
    with pytest.raises(InputError, match="got stored tokens of audio"):
        made([], ModelInputs({"audio": tokens}))
