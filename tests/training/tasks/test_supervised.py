"""Supervised heads trained on samples: batches, augmentation, perturbation, a teacher."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mmattn import InputError, Tokens
from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.encoders.model_inputs import ModelInputs
from mmattn.model.build import build_encoders, build_model
from mmattn.model.model import Model
from mmattn.training.loop import LoopConfig, train
from mmattn.training.tasks.adversarial import FGM
from mmattn.training.tasks.distillation import DistillationTask, distillation_loss
from mmattn.training.tasks.supervised import SupervisedTask

COUNT, CLASSES = 97, ["ash", "beech", "cedar"]
TREES = {"ash": "grey slender", "beech": "smooth broad", "cedar": "dark fragrant"}


def model_of(dim: int, classes: list[str] = CLASSES, seed: int = 0) -> Model:
    torch.manual_seed(seed)
    config = ModelConfig(
        {
            "text": EncoderConfig("tiny-text", {"dim": 16, "layers": 0}),
            "leaf": EncoderConfig("tiny-image", {"dim": 5}),
        },
        FusionConfig(dim=dim, layers=1, heads=2, dropout=0.0),
        {"tree": HeadConfig("classification", {"classes": classes})},
    )
    return build_model(build_encoders(config.encoders), config)


def data() -> tuple[ModelInputs, list[str | None]]:
    """Words for most trees, stored leaves for some; the last five have no target."""
    rng = np.random.default_rng(0)
    targets: list[str | None] = [CLASSES[number] for number in rng.integers(3, size=COUNT)]
    reader = model_of(8).encoders["text"]
    words = [f"{TREES[name or '']} tree {rng.integers(9)}" for name in targets]
    contents = [None if number % 7 == 0 else reader.read(text) for number, text in enumerate(words)]
    means = torch.tensor([CLASSES.index(name or "") for name in targets]).float()
    leaves = Tokens.from_lengths(
        means[:, None] + 0.5 * torch.randn(COUNT, 5, generator=torch.Generator().manual_seed(1)),
        torch.ones(COUNT, dtype=torch.long), "leaf",
    )  # fmt: skip
    return ModelInputs({"leaf": leaves}, {"text": contents}), [*targets[:-5], *[None] * 5]


def task_of(
    inputs: ModelInputs, targets: list[str | None], model: Model | None = None, **options: Any
) -> SupervisedTask:
    return SupervisedTask(model or model_of(8), inputs, targets, range(COUNT), head="tree", **options)


def accuracy(task: SupervisedTask, truth: list[str | None]) -> float:
    actual = task.predict(range(COUNT - 5))
    return sum(entry == other for entry, other in zip(actual, truth, strict=False)) / len(actual)


def test_it_learns_and_predicts_in_order() -> None:
    inputs, targets = data()
    task = SupervisedTask(
        model_of(8), inputs, targets, range(COUNT), head="tree", batch_size=13, drop_modality=0.2
    )
    assert sorted(row for batch in task.batches(1, torch.Generator()) for row in batch.tolist()) == list(
        range(92)
    )
    assert task.num_batches(1) == 8
    train(task, LoopConfig(epochs=6, learning_rate=0.04), progress=False)
    assert accuracy(task, targets) > 0.95
    assert task.predict([5, 3]) == [task.predict([5])[0], task.predict([3])[0]]


def test_targets_have_to_fit() -> None:
    inputs, targets = data()
    with pytest.raises(InputError, match=f"task 'tree': got 3 targets, expected {COUNT}"):
        SupervisedTask(model_of(8), inputs, targets[:3], range(3), head="tree")
    with pytest.raises(InputError, match="no sample with a target"):
        SupervisedTask(model_of(8), inputs, targets, [COUNT - 1], head="tree")
    with pytest.raises(InputError, match="elm"):
        SupervisedTask(model_of(8), inputs, ["elm"] * COUNT, [0], head="tree")(torch.tensor([0]))


def test_augmentation_changes_contents_and_targets() -> None:
    inputs, targets = data()
    model = model_of(8)
    cedar = model.encoders["text"].read("dark fragrant")
    seen = []

    def all_cedars(contents: dict, target: str) -> tuple[dict, str]:
        seen.append((set(contents), target))
        return {"text": cedar}, "cedar"

    task = SupervisedTask(
        model, inputs.without_modality("leaf"), targets, range(COUNT), head="tree", augment=all_cedars
    )
    loss = task(torch.tensor([4, 8, 15]))
    assert seen == [({"text"}, targets[row]) for row in (4, 8, 15)]
    fused = model.fuse({"text": model.encoders["text"]([cedar] * 3)})
    assert loss.item() == pytest.approx(model.head("tree").loss(fused, ["cedar"] * 3).item())


def test_perturbation_sees_the_tokens() -> None:
    inputs, targets = data()
    model = model_of(8)
    rows = torch.tensor([1, 2, 3])
    plain = task_of(inputs, targets, model)(rows)
    pushed = task_of(inputs, targets, model, perturb=FGM(0.1))(rows)
    assert pushed > 2 * plain


def test_soft_loss_by_hand() -> None:
    """At temperature 2 the answers are (.5, .5) and (.731, .269): .731 ln(.731/.5) + .269 ln(.269/.5)."""
    divergence = 0.7310586 * np.log(0.7310586 / 0.5) + 0.2689414 * np.log(0.2689414 / 0.5)
    actual = distillation_loss(torch.tensor([[3.0, 3.0]]), torch.tensor([[2.0, 0.0]]), 2.0)
    assert actual.item() == pytest.approx(4 * divergence, rel=1e-5)
    several = distillation_loss(torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 1.0]]), 2.0, multi_label=True)
    assert several.item() == pytest.approx(4 * divergence, rel=1e-5)
    with pytest.raises(InputError, match=r"the student says \(1, 2\), the teacher \(1, 3\)"):
        distillation_loss(torch.zeros(1, 2), torch.zeros(1, 3), 1.0)


def test_a_student_learns_from_the_teacher_alone() -> None:
    """No truth in the loss, wrong targets: what it knows comes from the teacher, which is not changed."""
    inputs, targets = data()
    teacher = model_of(16, seed=3)
    taught = SupervisedTask(teacher, inputs, targets, range(COUNT), head="tree")
    train(taught, LoopConfig(epochs=5, learning_rate=0.04), progress=False)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    wrong = [None if name is None else "ash" for name in targets]
    task = DistillationTask(
        model_of(4), inputs, wrong, range(COUNT), teacher=teacher, head="tree", teacher_weight=1.0,
        hint_weight=0.5,
        batch_size=13, drop_modality=0.1,
    )  # fmt: skip
    assert not any("teacher" in name for name in task.state_dict())
    train(task, LoopConfig(epochs=10, learning_rate=0.05), progress=False)
    assert accuracy(task, targets) > 0.9
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_distillation_is_a_mixture() -> None:
    inputs, targets = data()
    teacher, student, rows = model_of(16, seed=3), model_of(4), torch.tensor([2, 3, 5])

    def loss(**options: float) -> float:
        task = DistillationTask(
            student, inputs, targets, range(COUNT), teacher=teacher, head="tree", **options
        )
        return task(rows).item()

    group, soft = loss(teacher_weight=0.0), loss(teacher_weight=1.0, temperature=3.0)
    assert loss(teacher_weight=0.25, temperature=3.0) == pytest.approx(0.75 * group + 0.25 * soft, rel=1e-5)
    fused = [model.fuse(model.tokens(inputs, rows)) for model in (student, teacher)]
    student_BC, teacher_BC = (
        model.head("tree")(f) for model, f in zip((student, teacher), fused, strict=True)
    )
    by_hand = (
        F.kl_div((student_BC / 3).log_softmax(1), (teacher_BC / 3).softmax(1), reduction="batchmean") * 9
    )
    assert soft == pytest.approx(by_hand.item(), rel=1e-4)


def test_a_teacher_of_other_classes_is_refused() -> None:
    inputs, targets = data()
    other = model_of(8, ["cedar", "beech", "ash"])
    with pytest.raises(InputError, match="teacher's head knows"):
        DistillationTask(model_of(4), inputs, targets, range(COUNT), teacher=other, head="tree")
    with pytest.raises(InputError, match="teacher_weight 2"):
        DistillationTask(
            model_of(4), inputs, targets, [0], teacher=model_of(8), head="tree", teacher_weight=2
        )
