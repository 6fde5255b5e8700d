"""Scores under noise and under attack, on a model whose answers are known by hand."""

from __future__ import annotations

import math

import pytest
import torch

from mmattn import InputError, Tokens
from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.encoders.model_inputs import ModelInputs
from mmattn.experiments.supervised.robustness import add_noise, evaluate_under_attack, evaluate_under_noise
from mmattn.model.build import build_encoders, build_model
from mmattn.training.loop import LoopConfig, train
from mmattn.training.tasks.supervised import SupervisedTask

COUNT = 151


def accuracy(found: list[str], truth: list[str]) -> float:
    return sum(entry == other for entry, other in zip(found, truth, strict=True)) / len(truth)


@pytest.fixture(scope="module")
def task() -> SupervisedTask:
    """Two stored modalities; the second one says nothing of the class."""
    torch.manual_seed(0)
    classes = torch.randint(2, (COUNT,))
    steady = (2.0 * classes - 1)[:, None] + 0.3 * torch.randn(COUNT, 5)
    ones = torch.ones(COUNT, dtype=torch.long)
    inputs = ModelInputs(
        {
            "text": Tokens.from_lengths(steady, ones, "text"),
            "image": Tokens.from_lengths(torch.randn(COUNT, 3), ones, "image"),
        }
    )
    config = ModelConfig(
        {
            "text": EncoderConfig("tiny-text", {"dim": 5}),
            "image": EncoderConfig("tiny-image", {"dim": 3}),
        },
        FusionConfig(dim=8, layers=0, dropout=0.0),
        {"side": HeadConfig("classification", {"classes": ["down", "up"]})},
    )
    model = build_model(build_encoders(config.encoders), config)
    targets = [["down", "up"][number] for number in classes.tolist()]
    made = SupervisedTask(model, inputs, targets, range(COUNT), head="side", batch_size=50)
    train(made, LoopConfig(epochs=5, learning_rate=0.05), progress=False)
    return made


def test_noise_is_as_loud_as_said_and_leaves_nothing_else_changed() -> None:
    tokens = Tokens.from_lengths(torch.randn(4001, 7) * 3, torch.tensor([4000, 0, 1]), "text")
    noisy = add_noise({"text": tokens}, 0.25, torch.Generator().manual_seed(1))["text"]
    change = (noisy.values - tokens.values)[:4000].norm() / tokens.values[:4000].norm()
    assert change.item() == pytest.approx(0.25, rel=0.02)
    assert noisy.length_list == tokens.length_list
    again = add_noise({"text": tokens}, 0.5, torch.Generator().manual_seed(1))["text"]
    assert torch.allclose(again.values - tokens.values, 2 * (noisy.values - tokens.values), atol=1e-5)


def test_score_against_noise(task: SupervisedTask) -> None:
    actual = evaluate_under_noise(task, range(COUNT), accuracy, levels=(0.0, 0.5, 50.0), batch_size=40)
    assert set(actual) == {"text", "image", "all"}
    assert actual["text"][0] == actual["image"][0] == actual["all"][0] == accuracy(
        task.predict(range(COUNT)), list(task.targets)
    )  # fmt: skip
    assert actual["text"][0] > 0.98
    assert actual["text"][2] < 0.75
    assert actual["image"][1] > 0.9  # what says nothing may be drowned
    assert actual == evaluate_under_noise(
        task, range(COUNT), accuracy, levels=(0.0, 0.5, 50.0), batch_size=40
    )


def test_score_against_attacks(task: SupervisedTask) -> None:
    """A push does more harm than noise of the same length, and a long one turns every answer over."""
    once = evaluate_under_attack(task, range(COUNT), accuracy, radii=(0.0, 0.3, 3.0))
    searched = evaluate_under_attack(task, range(COUNT), accuracy, radii=(0.0, 0.3, 3.0), steps=5)
    noise = evaluate_under_noise(task, range(COUNT), accuracy, levels=(0.3, 3.0))["all"]
    assert once[0] == searched[0] > 0.98
    assert once[2] < noise[1] - 0.1
    assert once[2] < 0.1
    assert searched[2] < 0.1
    assert not math.isnan(once[1])
    assert all(parameter.grad is None for parameter in task.model.encoders.parameters())


def test_nothing_harms_a_sample_without_a_target(task: SupervisedTask) -> None:
    unknown = SupervisedTask(task.model, task.inputs, [*task.targets[:-1], None], range(COUNT), head="side")
    with pytest.raises(InputError, match=f"sample {COUNT - 1} has no target"):
        evaluate_under_attack(unknown, [3, COUNT - 1], accuracy)
