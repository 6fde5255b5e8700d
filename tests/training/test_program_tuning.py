"""Program tuning: what is trained, what stays, and the small file that holds the difference."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmattn import InputError, Tokens
from mmattn import attention as A
from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.model.build import build_encoders, build_model
from mmattn.model.model import Model
from mmattn.training.loop import LoopConfig, Task, train
from mmattn.training.program_tuning import load_tuned, save_tuned, tune_program

RICHER = "Program(score=dot() >> modality_bias('pair') >> relative('near', 8) >> head_gate('gate'))"


def model_of(seed: int = 0) -> Model:
    config = ModelConfig(
        encoders={
            name: EncoderConfig("tiny-text", {"dim": 6, "buckets": 31}, standardise=True)
            for name in ("text", "title")
        },
        fusion=FusionConfig(dim=20, layers=2, heads=5, dropout=0.0),
        heads={"alignment": HeadConfig("alignment", {"embedding_dim": 3})},
    )
    torch.manual_seed(seed)
    model = build_model(build_encoders(config.encoders), config).eval()
    with torch.no_grad():  # as after training: no block is the identity any more
        for parameter in model.core.blocks.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


def parts_of(model: Model) -> dict[str, Tokens]:
    words = ["one two three", "four", "five six", "seven eight nine ten"]
    with torch.no_grad():
        return {"text": model.encoders["text"](words), "title": model.encoders["title"](words[::-1])}


class Point(Task):
    """The head's first coordinate is to be high: anything that is trained will move."""

    def __init__(self, model: Model):
        super().__init__()
        self.model, self.parts = model, parts_of(model)

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[int]:
        yield 0

    def forward(self, batch: int) -> Tensor:
        return -self.model.head("alignment")(self.model.fuse(self.parts))[:, 0].mean()

    def validate(self) -> dict[str, float]:
        return {}


def test_a_richer_program_changes_nothing_at_first() -> None:
    model = model_of()
    parts = parts_of(model)
    before = model.fuse(parts).pooled
    tuned = tune_program(model, RICHER)
    torch.testing.assert_close(model.fuse(parts).pooled, before, rtol=1e-4, atol=1e-4)
    shapes = {name.split("attention.")[1]: tuple(value.shape) for name, value in tuned.items()}
    assert shapes == {"terms.pair": (5, 8, 8), "terms.near": (5, 8), "terms.gate": (5,)}
    assert len(tuned) == 6  # two layers
    assert model.config is not None
    assert model.config.fusion.program == str(A.parse(RICHER))


def test_only_what_is_named_is_trained_statistics_included() -> None:
    model = model_of()
    tuned = tune_program(model, RICHER, extra_modules=["heads.alignment.project"])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train(Point(model), LoopConfig(epochs=5, learning_rate=0.05), progress=False)
    after = model.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == set(tuned)
    assert {"heads.alignment.project.weight", "core.blocks.1.attention.terms.gate"} <= changed


def test_parameters_that_both_programs_have_are_kept() -> None:
    model = model_of()
    tuned = tune_program(model, RICHER)
    pair = tuned["core.blocks.0.attention.terms.pair"]
    torch.nn.init.normal_(pair)
    A.reprogram(
        model, A.Program(score=A.dot() >> A.alibi >> A.modality_bias("pair") >> A.relative("near", 4))
    )
    layer = model.core.blocks[0].attention
    assert layer.terms["pair"] is pair
    assert layer.terms["near"].shape == (5, 4)
    assert layer.slope.shape == (5,)
    A.reprogram(model, A.Program())
    assert not hasattr(layer, "slope")
    assert layer.program_parameters() == {}


def test_the_file_holds_the_difference_and_knows_its_model(tmp_path: Path) -> None:
    model, path = model_of(), tmp_path / "task.safetensors"
    tuned = tune_program(model, RICHER, extra_modules=["heads.alignment"])
    train(Point(model), LoopConfig(epochs=3, learning_rate=0.05), progress=False)
    save_tuned(model, path)
    assert path.stat().st_size < 4 * sum(value.numel() for value in tuned.values()) + 2000
    fresh, parts = model_of(), parts_of(model)
    load_tuned(fresh, path)
    assert torch.equal(fresh.fuse(parts).pooled, model.fuse(parts).pooled)
    head = fresh.head("alignment")(fresh.fuse(parts))
    assert torch.equal(head, model.head("alignment")(model.fuse(parts)))
    with pytest.raises(InputError, match="was tuned on the frozen weights .*, this model has"):
        load_tuned(model_of(seed=1), path)
    path.write_bytes(b"no such thing")
    with pytest.raises(InputError, match="not a file of tuned programs"):
        load_tuned(fresh, path)


def test_a_tuned_model_is_saved_with_its_program(tmp_path: Path) -> None:
    model = model_of()
    for value in tune_program(model, RICHER).values():
        torch.nn.init.normal_(value)
    model.save_pretrained(tmp_path)
    again, parts = Model.from_pretrained(tmp_path), parts_of(model)
    assert torch.equal(again.fuse(parts).pooled, model.eval().fuse(parts).pooled)


def test_mistakes_are_named() -> None:
    with pytest.raises(InputError, match="the program has no parameter to tune"):
        tune_program(model_of())
    with pytest.raises(InputError, match="no module 'heads.alignmnt'. Did you mean 'heads.alignment'"):
        tune_program(model_of(), RICHER, extra_modules=["heads.alignmnt"])
    with pytest.raises(InputError, match="Linear has no attention layer"):
        A.reprogram(torch.nn.Linear(2, 2), A.Program())
    halves = A.heads({(0, 2): A.Program(), (2, 4): A.Program(mask=A.causal)})
    with pytest.raises(InputError, match="got a program for 4 heads, expected 5, not pruned"):
        A.reprogram(model_of(), halves)
