"""Numbers of a program that depend on the task or on the sample, from the context to the gradient."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmattn import InputError
from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.encoders.model_inputs import ModelInputs
from mmattn.fusion.task_embeddings import TaskEmbeddings
from mmattn.model.build import build_encoders, build_model
from mmattn.model.model import Model
from mmattn.training.loop import LoopConfig, Task, train

TASKS = ("read", "listen", "look")


def model_of(on: str, width: int = 0, tasks: tuple[str, ...] = TASKS) -> Model:
    program = f"Program(score=dot() >> temperature(dynamic('t', on='{on}')))"
    config = ModelConfig(
        encoders={name: EncoderConfig("tiny-text", {"dim": 6, "buckets": 31}) for name in ("text", "title")},
        fusion=FusionConfig(
            dim=22, layers=2, heads=2, width=width, program=program, dropout=0.0, tasks=tasks
        ),
        heads={"alignment": HeadConfig("alignment", {"embedding_dim": 3})},
    )
    torch.manual_seed(0)
    model = build_model(build_encoders(config.encoders), config).eval()
    with torch.no_grad():  # as after training: no block is the identity any more
        for name, parameter in model.core.blocks.named_parameters():
            if "terms" not in name:
                parameter += 0.4 * torch.randn_like(parameter)
    return model


def parts_of(model: Model, samples: int) -> dict[str, Any]:
    torch.manual_seed(1)
    words = [" ".join(f"w{int(word)}" for word in torch.randint(97, (7,))) for _ in range(samples)]
    with torch.no_grad():
        return {"text": model.encoders["text"](words), "title": model.encoders["title"](words[::-1])}


class Imitate(Task):
    """Learn the program of a teacher who differs from the student in nothing else."""

    def __init__(self, student: Model, teacher: Model):
        super().__init__()
        self.model = student.requires_grad_(False)
        self.trained = [block.get_parameter(name) for block in student.core.blocks
                        for name, _ in block.named_parameters() if "terms" in name]  # fmt: skip
        if student.core.task_embeddings is not None:
            self.trained.append(student.core.task_embeddings.embeddings)
        for parameter in self.trained:
            parameter.requires_grad_(True)
        self.inputs = ModelInputs(parts_of(teacher, 61))
        self.task = torch.arange(61) % len(TASKS)
        with torch.no_grad():
            self.expected = teacher.fuse(self.inputs.tokens, {"task": self.task}).pooled

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[Tensor]:
        yield from torch.randperm(61, generator=generator).split(17)

    def forward(self, batch: Tensor) -> Tensor:
        fused = self.model.fuse(self.model.tokens(self.inputs, batch), {"task": self.task[batch]})
        return (fused.pooled - self.expected[batch]).square().mean()

    def validate(self) -> dict[str, float]:
        return {"error": -self(torch.arange(61)).item()}


@pytest.mark.parametrize("on", ["task", "input"])
@pytest.mark.parametrize("width", [0, 10])
def test_dynamic_numbers_learn_through_the_whole_model(on: str, width: int) -> None:
    teacher = model_of(on, width)
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        for block in teacher.core.blocks:
            getattr(block, "block", block).attention.terms["t"].normal_().mul_(0.5)
    task = Imitate(student, teacher)
    before = -task.validate()["error"]
    still = {name: value.clone() for name, value in student.state_dict().items()}
    train(task, LoopConfig(epochs=40, learning_rate=0.05, weight_decay=0.0), progress=False)
    assert before > 1e-4  # there is something to learn
    assert -task.validate()["error"] < 0.1 * before
    changed = {name for name, value in student.state_dict().items() if not torch.equal(value, still[name])}
    assert all("terms.t" in name or name == "core.task_embeddings.embeddings" for name in changed)
    assert sum("terms.t" in name for name in changed) == 2
    assert ("core.task_embeddings.embeddings" in changed) == (on == "task")


def test_a_task_is_a_name_names_numbers_or_a_vector() -> None:
    model = model_of("task")
    for block in model.core.blocks:
        torch.nn.init.normal_(block.attention.terms["t"])
    parts = parts_of(model, 3)
    mixed = model.fuse(parts, {"task": ["look", "read", "look"]}).pooled
    look, read = (model.fuse(parts, {"task": name}).pooled for name in ("look", "read"))
    torch.testing.assert_close(mixed, torch.stack([look[0], read[1], look[2]]))
    assert not torch.allclose(look, read)
    numbers = model.fuse(parts, {"task": torch.tensor([2, 0, 2])}).pooled
    vectors = model.fuse(parts, {"task": model.core.task_embeddings.embeddings[[2, 0, 2]]}).pooled
    assert torch.equal(numbers, mixed)
    assert torch.equal(vectors, mixed)


def test_the_vectors_are_saved_with_the_model(tmp_path: Path) -> None:
    model = model_of("task")
    for block in model.core.blocks:
        torch.nn.init.normal_(block.attention.terms["t"])
    model.save_pretrained(tmp_path)
    again, parts = Model.from_pretrained(tmp_path), parts_of(model, 3)
    context = {"task": "listen"}
    assert torch.equal(again.fuse(parts, context).pooled, model.fuse(parts, context).pooled)


def test_tasks_that_are_not_there_are_named() -> None:
    parts = parts_of(model_of("task"), 3)
    with pytest.raises(InputError, match=r"tasks: no task 'reed'. Did you mean 'read'\?"):
        model_of("task").fuse(parts, {"task": "reed"})
    with pytest.raises(InputError, match="got torch.int64 \\(1,\\), expected int64 from 0 to 2"):
        model_of("task").fuse(parts, {"task": torch.tensor([3])})
    with pytest.raises(InputError, match="the core has no tasks; expected their names in FusionConfig.tasks"):
        model_of("task", tasks=()).fuse(parts, {"task": "read"})
    with pytest.raises(InputError, match="needs context\\['task'\\], which is missing"):
        model_of("task").fuse(parts)
    with pytest.raises(InputError, match="expected some, each of them once"):
        TaskEmbeddings(["read", "read"], 8)
