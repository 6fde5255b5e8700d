"""sentence-transformers loads, trains and searches with a model's text side."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("sentence_transformers", reason="an extra: pip install 'mmattn[sentence-transformers]'")

from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments

from datasets import Dataset
from mmattn import InputError, Sample
from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.model.build import build_encoders, build_model
from mmattn.model.model import Model
from mmattn.testing.plugin_checks import check_adapter
from mmattn_adapters.sentence_transformers import MmattnText

PAIRS = [("one", "uno"), ("two", "due"), ("three", "tre"), ("four", "quattro"), ("five", "cinque")]
WORDS = [word for pair in PAIRS for word in pair]


def made() -> Model:
    torch.manual_seed(0)
    config = ModelConfig(
        {
            "text": EncoderConfig("tiny-text", {"dim": 11, "layers": 1}),
            "image": EncoderConfig("tiny-image", {"dim": 5, "grid": 2, "size": 16}),
        },
        FusionConfig(dim=16, heads=4, dropout=0.0),
        {"alignment": HeadConfig("alignment", {"embedding_dim": 7})},
    )
    return build_model(build_encoders(config.encoders), config).eval()


def hosted(model: Model) -> SentenceTransformer:
    return SentenceTransformer(modules=[MmattnText(model)], device="cpu")


def test_it_encodes_as_the_model_does() -> None:
    model = made()
    host = hosted(model)
    with torch.no_grad():
        expected = model([Sample(word, {"text": word}) for word in WORDS])["alignment"]
    torch.testing.assert_close(
        host.encode(WORDS, batch_size=3, convert_to_tensor=True), expected, rtol=1e-5, atol=1e-6
    )
    assert host.get_embedding_dimension() == 7
    with torch.no_grad():
        prompted = model([Sample("", {"text": "number: one"})])["alignment"]
    torch.testing.assert_close(host.encode(["one"], prompt="number: ", convert_to_tensor=True), prompted)


def test_what_it_saves_is_both_hosts_(tmp_path: Path) -> None:
    model = made()
    host = hosted(model)
    host.save_pretrained(str(tmp_path))
    again = SentenceTransformer(str(tmp_path), device="cpu", trust_remote_code=True)
    assert isinstance(again[0], MmattnText)
    expected = host.encode(WORDS, convert_to_tensor=True)
    torch.testing.assert_close(again.encode(WORDS, convert_to_tensor=True), expected, rtol=0, atol=0)
    assert set(Model.from_pretrained(tmp_path).encoders) == {"text", "image"}  # the pictures came along


def test_its_trainer_trains_the_text_side(tmp_path: Path) -> None:
    host = hosted(made())
    data = Dataset.from_dict({"anchor": [pair[0] for pair in PAIRS], "positive": [pair[1] for pair in PAIRS]})
    arguments = SentenceTransformerTrainingArguments(
        str(tmp_path), num_train_epochs=30, per_device_train_batch_size=5, learning_rate=0.01,
        logging_steps=5, save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    trainer = SentenceTransformerTrainer(
        host, args=arguments, train_dataset=data, loss=MultipleNegativesRankingLoss(host)
    )
    trainer.train()
    falling = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert falling[-1] < falling[0] / 2
    left = host.encode([pair[0] for pair in PAIRS], convert_to_tensor=True)
    right = host.encode([pair[1] for pair in PAIRS], convert_to_tensor=True)
    assert (left @ right.T).argmax(1).tolist() == [0, 1, 2, 3, 4]


def test_what_it_refuses() -> None:
    with pytest.raises(InputError, match=r"no modality 'txt'. Did you mean 'text'\?"):
        MmattnText(made(), "txt")
    with pytest.raises(InputError, match="no head 'alignmnt'"):
        MmattnText(made(), head="alignmnt")


def test_it_is_registered() -> None:
    check_adapter(MmattnText)
