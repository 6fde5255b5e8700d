"""Exported models: equal to eager for every batch, length and absence, and clear where they cannot be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmattn import InputError, Sample, Tokens
from mmattn.attention import quantize
from mmattn.cli import main
from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.encoders.base import Encoder, EncoderCard
from mmattn.export import ExportedModel, export
from mmattn.export.network import PaddedModel
from mmattn.export.padded_encoders import padded_encoder_for
from mmattn.model.build import build_encoders, build_model
from mmattn.model.model import Model

ENCODERS = {
    "text": EncoderConfig("tiny-text", {"dim": 14}, source="title"),
    "image": EncoderConfig("tiny-image", {"dim": 10, "size": 11, "grid": 3}, standardise=True),
    "audio": EncoderConfig("log-mel", {"dim": 12, "sample_rate": 8000, "n_mels": 13, "heads": 3}),
}
KIND = {"kind": HeadConfig("classification", {"classes": ["a", "b", "c"]})}
EVERY_WORD = (
    'heads({(0, 1): Program(score=cosine >> temperature(learned("t", 0.3)) >> modality_bias("pair"), '
    'mask=route({"*": ["*"]}) & present, norm=entmax15), '
    '(1, 2): Program(score=additive(5) >> relative("far", buckets=8, longest=20), '
    "mask=window(7) | causal, norm=sparsemax), "
    '(2, 3): Program(score=bilinear("form") >> alibi >> softcap(dynamic("cap", on="input", start=9.0)), '
    'mask=where("text", blocks(4), ~dilated(5, 2)), norm=topk(6)), '
    '(3, 4): Program(score=dot(scale=dynamic("s", on="task", start=0.4)) >> head_gate("gate"), '
    'mask=global_tokens("image"), norm=softmax("sink"))})'
)


def model_of(*names: str, heads: dict[str, HeadConfig] | None = None, **fusion: Any) -> Model:
    torch.manual_seed(0)
    encoders = {name: ENCODERS[name] for name in names}
    core = FusionConfig(**{"dim": 16, "layers": 2, "heads": 4, **fusion})
    model = build_model(build_encoders(encoders), ModelConfig(encoders, core, heads or KIND))
    with torch.no_grad():  # blocks start as the identity, and would hide what is wrong in them
        for parameter in model.core.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def samples_of(names: tuple[str, ...], count: int, seed: int = 0) -> list[Sample]:
    """Samples of different lengths, a third of whose modalities are absent."""
    rng = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        content = {
            "title": " ".join(rng.choice(["one", "twenty-two", "x"], rng.integers(1, 9))),
            "image": rng.integers(0, 255, (9, 7), dtype=np.uint8),
            "audio": (rng.normal(size=rng.integers(300, 5000)).astype(np.float32), 8000),
        }
        keys = ["title" if name == "text" else name for name in names]
        samples.append(Sample(str(number), {key: content[key] for key in keys if rng.random() < 0.67}))
    return samples


class Words(Encoder):
    """An encoder that nobody wrote a padded form for."""

    name, modality, dim = "words", "text", 3

    def encode(self, contents: Any) -> Tokens:
        return Tokens.empty(len(contents), 3, ("text",))

    def describe(self) -> EncoderCard:
        return EncoderCard(self.name, self.modality, self.dim, revision="1")


def check_equal(model: Model, exported: ExportedModel, task: str | None = None) -> None:
    names = tuple(model.encoders)
    nothing = Sample("nothing", {})
    for count in (1, 2, 5, 13):
        samples = [*samples_of(names, count, seed=count), nothing]
        with torch.no_grad():
            fused = model.fuse(model.encode(samples), None if task is None else {"task": task})
            expected = {"pooled": fused.pooled, "presence": fused.presence, "kind": model.head("kind")(fused)}
        actual = exported.run(samples)
        for name, value in expected.items():
            np.testing.assert_allclose(actual[name], value.numpy(), atol=1e-4, rtol=1e-5, err_msg=name)


# The program with every word covers the .pt2 file of text and pictures: tracing takes seconds.
SLOW = pytest.mark.slow


@pytest.mark.parametrize("suffix", [pytest.param(".pt2", marks=SLOW), ".onnx"])
def test_text_and_pictures_give_what_eager_gives(suffix: str, tmp_path: Path) -> None:
    model, path = model_of("text", "image"), tmp_path / f"model{suffix}"
    export(model, path)
    exported = ExportedModel.load(path)
    check_equal(model, exported)
    assert exported.modalities == ("text", "image")
    assert exported.output_names == ("pooled", "presence", "kind")
    assert exported.class_names == {"kind": ("a", "b", "c")}
    samples = samples_of(("text", "image"), 7)
    in_pieces, at_once = exported.run(samples, batch_size=3), exported.run(samples)
    np.testing.assert_allclose(in_pieces["kind"], at_once["kind"], atol=1e-5)


@pytest.mark.parametrize("suffix", [pytest.param(".pt2", marks=SLOW), ".onnx"])
def test_sound_gives_what_eager_gives(suffix: str, tmp_path: Path) -> None:
    model, path = model_of("audio", layers=1), tmp_path / f"model{suffix}"
    export(model, path)
    check_equal(model, ExportedModel.load(path))


@pytest.mark.parametrize("suffix", [".pt2", pytest.param(".onnx", marks=SLOW)])
def test_words_of_the_language_are_exported(suffix: str, tmp_path: Path) -> None:
    model = model_of("text", "image", program=EVERY_WORD, tasks=["read", "look"], width=8, layers=1)
    path = tmp_path / f"model{suffix}"
    export(model, path, task="look")
    check_equal(model, ExportedModel.load(path), task="look")


def test_fields_and_times_and_every_encoder_in_padded_form() -> None:
    """Without a file: the padded network itself, over all encoders at once."""
    encoders = {**ENCODERS, "text": EncoderConfig("tiny-text", {"dim": 14}, fields=3)}
    torch.manual_seed(0)
    program = 'Program(score=dot() >> time_bias("late"))'
    core = FusionConfig(dim=16, layers=1, heads=2, program=program)
    model = build_model(build_encoders(encoders), ModelConfig(encoders, core, KIND)).eval()
    contents = {
        "text": [["one two", "three", "four", "five six"], None, ["seven"]],
        "image": [None, np.zeros((5, 5), np.uint8), np.ones((5, 5), np.uint8)],
        "audio": [(np.sin(np.arange(2000) * 0.3), 8000), (np.sin(np.arange(999) * 0.2), 8000), None],
    }
    samples = [Sample(str(n), {name: values[n] for name, values in contents.items()}) for n in range(3)]
    with torch.no_grad():
        actual = PaddedModel(model)(inputs_of(model, samples))["pooled"]
        torch.testing.assert_close(actual, model.fuse(model.encode(samples)).pooled)


DETECTION = {"boxes": HeadConfig("detection", {"labels": ["a", "b"], "num_queries": 11, "layers": 2})}


def detector_of(*names: str, **options: Any) -> Model:
    """With proposals and biases that say something; 9 patches are fewer than its queries."""
    model = model_of(
        *names, heads={"boxes": replace(DETECTION["boxes"], options=DETECTION["boxes"].options | options)}
    )
    with torch.no_grad():
        for parameter in model.head("boxes").parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("options", [{}, {"use_proposals": False}, {"image_modality": ""}])
def test_the_detection_head_in_padded_form(options: dict[str, Any]) -> None:
    model = detector_of("text", "image", **options)
    samples = [*samples_of(("text", "image"), 7), Sample("nothing", {})]
    with torch.no_grad():
        logits, boxes = model.head("boxes")(model.fuse(model.encode(samples)))
        actual = PaddedModel(model)(inputs_of(model, samples))
    torch.testing.assert_close(actual["boxes.logits"], logits, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(actual["boxes.boxes"], boxes, atol=1e-4, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_a_detector_gives_what_eager_gives(suffix: str, tmp_path: Path) -> None:
    model, path = detector_of("text", "image"), tmp_path / f"model{suffix}"
    export(model, path)
    exported = ExportedModel.load(path)
    for count in (1, 2, 7):
        samples = samples_of(("text", "image"), count, seed=count)
        with torch.no_grad():
            logits, boxes = model.head("boxes")(model.fuse(model.encode(samples)))
        actual = exported.run(samples)
        np.testing.assert_allclose(actual["boxes.logits"], logits.numpy(), atol=1e-4, rtol=1e-5)
        np.testing.assert_allclose(actual["boxes.boxes"], boxes.numpy(), atol=1e-4, rtol=1e-5)


def inputs_of(model: Model, samples: list[Sample]) -> dict[str, torch.Tensor]:
    """What the padded network takes, without a file."""
    network, inputs = PaddedModel(model), {}
    for name, form in network.encoders.items():
        reader = form.reader(form.settings())
        raw = [sample.content.get(model._source(name)) for sample in samples]
        read = [None if content is None else reader.read(content) for content in raw]
        actual = form.collate(reader, read, network.min_length)
        inputs |= {f"{name}.{tensor}": value for tensor, value in actual.items()}
    return inputs


def test_a_timm_network_in_padded_form() -> None:
    config = EncoderConfig("timm", {"model_name": "test_resnet", "grid": 2, "size": 32}, finetune="full")
    encoder = build_encoders({"image": config})["image"].eval()
    form = padded_encoder_for(encoder)
    pictures = [np.full((9, 9), 99, np.uint8), None]
    reader = form.reader(form.settings())
    read = [None if picture is None else reader.read(picture) for picture in pictures]
    with torch.no_grad():
        padded = form(**form.collate(reader, read, 4))
        tokens = encoder(pictures)
    assert padded.mask.tolist() == [[True] * 4, [False] * 4]
    torch.testing.assert_close(padded.values[padded.mask], tokens.values)


def test_what_cannot_be_exported_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    with pytest.raises(InputError, match="model.zip', expected a name that ends in .pt2 or .onnx"):
        export(model_of("text"), tmp_path / "model.zip")
    with pytest.raises(InputError, match=r'graph_bias\("kg".*cannot run over padded tokens'):
        export(model_of("text", program='Program(score=dot() >> graph_bias("kg", relations=2))'), path)
    with pytest.raises(InputError, match="no head 'kimd'. Did you mean 'kind'"):
        export(model_of("text"), path, heads=["kimd"])
    quantised = model_of("text")
    quantize(quantised)
    with pytest.raises(InputError, match="is quantised; export the model as it was before"):
        export(quantised, path)
    with pytest.raises(InputError, match="'words' of 'text' has no padded form; those with one: LogMel"):
        padded_encoder_for(Words())
    tags = {"tags": HeadConfig("tagging", {"tags": ["O", "B-person"]})}
    with pytest.raises(InputError, match="the head 'tags' reads single tokens"):
        export(model_of("text", heads=tags), path)
    assert not path.exists()


def test_files_that_are_no_exported_model_are_refused(tmp_path: Path) -> None:
    for name in ("model.pt2", "model.onnx"):
        path = tmp_path / name
        with pytest.raises(InputError, match="expected a file that ends in"):
            ExportedModel.load(path)
        path.write_bytes(b"no model")
        with pytest.raises(InputError, match="or a damaged one"):
            ExportedModel.load(path)


def test_the_command_writes_a_saved_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = model_of("text", layers=1)
    model.save_pretrained(tmp_path / "run" / "seed-3" / "model")
    out = tmp_path / "model.pt2"
    assert main(["export", str(tmp_path / "run"), "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["bytes"] == out.stat().st_size
    check_equal(model, ExportedModel.load(out))
    assert main(["export", str(tmp_path / "nothing"), "--out", str(out)]) == 2
    assert "holds no finished run" in capsys.readouterr().err
