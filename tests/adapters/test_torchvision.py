"""The detector against torchvision's own, with tokens and without, and what it refuses."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmattn.boxes import Boxes
from mmattn.config import EncoderConfig, FusionConfig, ModelConfig
from mmattn.encoders.audio.log_mel import LogMel
from mmattn.encoders.base import Unreadable
from mmattn.encoders.image.tiny_image import TinyImage
from mmattn.encoders.text.tiny_text import TinyText
from mmattn.errors import InputError
from mmattn.model.build import build_encoders, build_model
from mmattn.registry import adapters
from mmattn.testing.plugin_checks import check_adapter
from mmattn.types import Sample, Tokens
from mmattn_adapters.torchvision import Detector

KINDS = ("faster-rcnn", "retinanet", "fcos")
SIZES = ((43, 61), (59, 47), (43, 61))
SMALL: dict[str, Any] = {"backbone": "resnet10t", "levels": (2,), "extra_levels": "none", "fpn_channels": 32}


def made(kind: Any = "fcos", classes: Any = ("seven", "two"), **options: Any) -> Detector:
    torch.manual_seed(0)
    given = {**SMALL, "num_convs": 1, "representation_size": 32, "min_size": 53, "max_size": 97, **options}
    if kind == "faster-rcnn":  # an untrained detector, asked for everything that it may have found
        given["options"] = {
            "box_score_thresh": 0.0,
            "box_detections_per_img": 7,
            "rpn_post_nms_top_n_test": 31,
        }
    else:
        given["options"] = {"score_thresh": 0.0, "detections_per_img": 7}
    return Detector.build(kind, classes, **given)


def pictures() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, *size, generator=generator) for size in SIZES]


def truth() -> list[Boxes]:
    two = torch.tensor([[3.0, 5.0, 23.0, 31.0], [20.0, 11.0, 41.0, 37.0]])
    return [Boxes(two, ["seven", "two"], SIZES[0]), Boxes.empty(SIZES[1]), Boxes(two[:1], ["two"], SIZES[2])]


def as_torchvision(targets: list[Boxes], first: int) -> list[dict[str, Tensor]]:
    numbers = {"seven": first, "two": first + 1}
    return [
        {"boxes": target.boxes, "labels": torch.tensor([numbers[label] for label in target.labels]).long()}
        for target in targets
    ]


def words(*lengths: int, dim: int = 6) -> Tokens:
    generator = torch.Generator().manual_seed(2)
    return Tokens.from_sequences([torch.randn(n, dim, generator=generator) for n in lengths], "text")


def wake(detector: Detector) -> Detector:
    """Give the conditioning weights, as training would: it starts at zero."""
    torch.manual_seed(3)
    for name, parameter in detector.named_parameters():
        if name.startswith(("map_conditioning.", "region_conditioning.")) and ".down." in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return detector


def same(ours: Boxes, theirs: Boxes) -> bool:
    return ours.labels == theirs.labels and bool(
        torch.equal(ours.boxes, theirs.boxes) and torch.equal(ours.scores, theirs.scores)
    )


# --- an ordinary detector --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokens", [None, "nobody says anything"])
def test_without_tokens_losses_are_torchvision_s_to_the_bit(kind: str, tokens: str | None) -> None:
    detector = wake(made(kind, conditioning=6)).train()
    answer = None if tokens is None else words(0, 0, 0)
    torch.manual_seed(5)  # Faster R-CNN draws the boxes that it learns from
    ours = detector(pictures(), truth(), answer)
    torch.manual_seed(5)
    theirs = detector.network(pictures(), as_torchvision(truth(), int(kind == "faster-rcnn")))
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert all(bool(loss.isfinite()) for loss in ours.values())


@pytest.mark.parametrize("kind", KINDS)
def test_without_tokens_boxes_are_torchvision_s_to_the_bit(kind: str) -> None:
    detector = wake(made(kind, conditioning=6)).eval()
    with torch.no_grad():
        ours = detector(pictures(), tokens=words(0, 0, 0))
        theirs = detector.network(pictures())
    first = int(kind == "faster-rcnn")
    for mine, their, size in zip(ours, theirs, SIZES, strict=True):
        order = their["scores"].argsort(descending=True, stable=True)
        assert len(mine) == 7
        assert torch.equal(mine.boxes, their["boxes"][order])
        assert torch.equal(mine.scores, their["scores"][order])
        assert list(mine.labels) == [("seven", "two")[n - first] for n in their["labels"][order].tolist()]
        assert mine.size == size
        assert bool((mine.boxes[:, 2:] <= torch.tensor([size[1], size[0]])).all())


# --- tokens ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shared", [True, False])
def test_a_sample_without_tokens_is_as_ever_beside_one_that_is_told_something(
    kind: str, shared: bool
) -> None:
    detector = made(kind, conditioning=6, share_levels=shared, levels=(1, 2)).eval()
    plain = detector(pictures())
    at_first = detector(pictures(), tokens=words(3, 0, 2))
    assert all(same(entry, other) for entry, other in zip(plain, at_first, strict=True))  # it starts at zero
    wake(detector)
    told = detector(pictures(), tokens=words(3, 0, 2))
    assert [same(entry, other) for entry, other in zip(plain, told, strict=True)] == [False, True, False]
    assert len(detector.map_conditioning.layers) == (1 if shared else 2)  # type: ignore[union-attr]


def test_regions_listen_after_they_are_pooled() -> None:
    detector = made("faster-rcnn", conditioning=6).eval()
    torch.manual_seed(3)
    torch.nn.init.normal_(detector.region_conditioning.layer.down.weight)  # type: ignore[union-attr]
    plain, told = detector(pictures()), detector(pictures(), tokens=words(3, 0, 2))
    assert [same(entry, other) for entry, other in zip(plain, told, strict=True)] == [False, True, False]


def test_what_is_read_is_the_attention_of_the_program() -> None:
    """By hand, on one cell and two tokens, with all projections the identity."""
    from mmattn import attention as A
    from mmattn_adapters.detection.conditioning import Modulation

    layer = Modulation(2, 2, A.Program(), heads=1, expansion=1)
    attention = layer.attention
    with torch.no_grad():
        for linear in (
            attention.q_proj,
            attention.k_proj,
            attention.v_proj,
            attention.o_proj,
            layer.up,
            layer.down,
        ):
            linear.weight.copy_(torch.eye(2))
            linear.bias.zero_()
        layer.modulate.weight.copy_(
            torch.cat([torch.eye(2), torch.zeros(2, 2)])
        )  # it scales and does not shift
        layer.modulate.bias.zero_()
    cells = Tokens.from_sequences([torch.tensor([[3.0, 1.0]])], "cell")
    answer = Tokens.from_sequences([torch.tensor([[1.0, 0.0], [0.0, 1.0]])], "text")
    # Normed, the cell is (1, -1), and so are the tokens, (1, -1) and (-1, 1): scores sqrt(2) and -sqrt(2).
    heavy = 1 / (1 + math.exp(-2 * math.sqrt(2)))
    scale = heavy - (1 - heavy)  # and minus that for the second channel

    def gelu(x: float) -> float:
        return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))

    wanted = [3 + gelu(1 * (1 + scale)), 1 + gelu(-1 * (1 - scale))]
    assert layer(cells, answer)[0].tolist() == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("kind", ["fcos", "faster-rcnn"])
def test_a_program_says_which_modality_a_cell_may_hear(kind: str) -> None:
    program = 'Program(mask=route({"cell": ["audio"], "region": ["audio"]}))'
    detector = wake(made(kind, conditioning=6, program=program)).eval()
    generator = torch.Generator().manual_seed(4)
    text, audio = (
        Tokens.from_sequences([torch.randn(n, 6, generator=generator) for n in (1, 2, 3)], name)
        for name in ("text", "audio")
    )
    both = Tokens.cat([text, audio])
    other = both.with_values(
        torch.where(both.modality[:, None] == 0, both.values + 1, both.values)
    )  # other words
    louder = both.with_values(torch.where(both.modality[:, None] == 1, both.values + 1, both.values))
    heard = detector(pictures(), tokens=both)
    assert all(same(entry, two) for entry, two in zip(heard, detector(pictures(), tokens=other), strict=True))
    assert not any(
        same(entry, two) for entry, two in zip(heard, detector(pictures(), tokens=louder), strict=True)
    )


def test_questions_about_one_picture_share_the_backbone() -> None:
    detector = wake(made(conditioning=6)).eval()
    passed: list[int] = []
    detector.network.backbone.register_forward_hook(
        lambda module, given, result: passed.append(len(given[0]))
    )
    shared = detector(pictures(), tokens=words(3, 2, 4, 1), image_index=[2, 0, 0, 1])
    alone = detector([pictures()[index] for index in (2, 0, 0, 1)], tokens=words(3, 2, 4, 1))
    assert passed == [3, 4]
    for entry, other in zip(shared, alone, strict=True):
        assert entry.labels == other.labels
        assert torch.allclose(entry.boxes, other.boxes, atol=1e-3)
    assert [actual.size for actual in shared] == [SIZES[2], SIZES[0], SIZES[0], SIZES[1]]


def test_threads_do_not_hear_each_other() -> None:
    detector = wake(made(conditioning=6)).eval()
    wanted = [detector(pictures(), tokens=words(*lengths)) for lengths in ((1, 2, 3), (4, 0, 1))]
    wrong: list[int] = []

    def ask(which: int) -> None:
        for _ in range(5):
            actual = detector(pictures(), tokens=words(*((1, 2, 3), (4, 0, 1))[which]))
            wrong.extend(which for a, b in zip(actual, wanted[which], strict=True) if not same(a, b))

    threads = [threading.Thread(target=ask, args=(which,)) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- samples ---------------------------------------------------------------------------------------


def spoken(**options: Any) -> Detector:
    encoders = {
        "text": TinyText(dim=8),
        "audio": LogMel(dim=8, sample_rate=8000, n_mels=11, heads=2, layers=1),
    }
    return made("fcos", ["asked for"], conditioning=encoders, **options)


def scene() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, SIZES[0], np.uint8)


def asked() -> list[Sample]:
    picture = scene()
    tone = (np.sin(np.arange(3000) * 0.3).astype(np.float32), 8000)
    return [
        Sample("both", {"image": picture, "text": "the sevens", "audio": tone}),
        Sample("said", {"image": picture, "audio": tone}),
        Sample("written", {"image": picture, "text": "find a two"}),
        Sample("nothing", {"image": picture}),
    ]


def test_gradients_reach_what_reads_the_phrase_and_the_sound() -> None:
    detector = wake(spoken()).train()
    target = Boxes(torch.tensor([[3.0, 5.0, 23.0, 31.0]]), ["asked for"], SIZES[0])
    losses = detector.losses(asked(), [target] * 4)
    torch.stack(list(losses.values())).sum().backward()
    for part in (
        detector.conditioning_model.encoders["text"].ngram_embedding.weight,
        detector.conditioning_model.encoders["audio"].position_convolution.weight,
    ):  # type: ignore[union-attr]
        assert part.grad is not None
        assert float(part.grad.abs().max()) > 0


def test_one_picture_is_read_once_and_samples_keep_their_order() -> None:
    detector = wake(spoken()).eval()
    read, tokens, indices = detector.prepare_queries(asked())
    assert (len(read), indices) == (1, [0, 0, 0, 0])
    assert tokens is not None
    assert tokens.presence.tolist() == [[True, True], [False, True], [True, False], [False, False]]
    actual = detector.predict(asked(), batch_size=3)
    alone = [detector.predict([sample])[0] for sample in asked()]
    for entry, other in zip(actual, alone, strict=True):
        assert torch.allclose(entry.boxes, other.boxes, atol=1e-3)
    assert not torch.allclose(actual[2].scores, actual[3].scores)  # type: ignore[arg-type]


def test_a_whole_model_and_an_example_picture_may_say_what_to_look_for(tmp_path: Path) -> None:
    configs = {
        "text": EncoderConfig("tiny-text", {"dim": 8}),
        "crop": EncoderConfig("tiny-image", {"dim": 8, "size": 8, "grid": 1}),
    }
    config = ModelConfig(configs, FusionConfig(dim=8, layers=1, heads=2))
    model = build_model(build_encoders(configs), config)
    detector = wake(made(conditioning=model)).eval()
    picture = scene()
    crop = picture[3:20, 4:19]
    samples = [Sample("1", {"image": picture, "crop": crop}), Sample("2", {"image": picture})]
    actual = detector.predict(samples)
    assert not torch.equal(actual[0].scores, actual[1].scores)  # type: ignore[arg-type]
    detector.save_pretrained(tmp_path)
    again = Detector.from_pretrained(tmp_path)
    assert all(same(entry, other) for entry, other in zip(again.predict(samples), actual, strict=True))
    assert model.quantize()
    detector.save_pretrained(tmp_path)
    again = Detector.from_pretrained(tmp_path)
    changed = zip(again.predict(samples), detector.predict(samples), strict=True)
    assert all(same(entry, other) for entry, other in changed)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_it_finds_the_same(kind: str, tmp_path: Path) -> None:
    detector = wake(made(kind, conditioning={"text": TinyText(dim=8)}, norm="frozen"))
    actual = detector.predict(asked())
    detector.save_pretrained(tmp_path)
    again = Detector.from_pretrained(tmp_path)
    assert again.config == detector.config
    assert all(same(entry, other) for entry, other in zip(again.predict(asked()), actual, strict=True))
    with pytest.raises(InputError, match="weights of another detector; the first that does not fit is"):
        again._load_trained({"a": torch.zeros(1)}, "here")


def test_tokens_of_elsewhere_are_remembered_by_their_width(tmp_path: Path) -> None:
    wake(made(conditioning=6)).save_pretrained(tmp_path)
    again = Detector.from_pretrained(tmp_path)
    assert again.token_dim == 6
    assert len(again(pictures(), tokens=words(1, 0, 2))) == 3


def test_a_folder_without_a_detector_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"format": 7}')
    with pytest.raises(InputError, match="got format 7, expected 1 of a detector"):
        Detector.from_pretrained(tmp_path)


def test_it_is_an_adapter() -> None:
    assert adapters.load("torchvision") is Detector
    check_adapter("torchvision")


# --- what it refuses -------------------------------------------------------------------------------


def boxed(*corners: float, label: str = "seven") -> list[Boxes]:
    return [Boxes(torch.tensor([[1.0, 2.0, 9.0, 8.0], corners]), ["two", label], SIZES[0]), *truth()[1:]]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (None, "got no targets, expected one a picture or question in training"),
        (truth()[:2], "got 2 targets, expected 3"),
        (truth()[::-1][1:] + truth()[:1], r"target 0 is of a picture \(59, 47\), expected \(43, 61\)"),
        (
            boxed(5, 5, 5, 9),
            r"target 0, box 1: got \[5.0, 5.0, 5.0, 9.0\], expected left < right and top < bottom",
        ),
        (boxed(5, 9, 8, 3), "target 0, box 1: got"),
        (boxed(5, 5, 62, 9), "within 61 x 43 pixels"),
        (boxed(-1, 5, 6, 9), "within 61 x 43 pixels"),
        (boxed(float("nan"), 5, 6, 9), "within 61 x 43 pixels"),
        (boxed(5, 5, 6, 9, label="sevn"), "no class 'sevn'. Did you mean 'seven'?"),
    ],
)
def test_targets_that_do_not_fit(targets: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        made().train()(pictures(), targets)
    assert "\n" not in str(error.value)


def test_pictures_without_any_box_are_learned_from() -> None:
    for kind in KINDS:
        losses = made(kind).train()(pictures(), [Boxes.empty(size) for size in SIZES])
        assert all(bool(loss.isfinite()) for loss in losses.values())
        assert torch.stack(list(losses.values())).sum() > 0


def test_tokens_that_do_not_fit() -> None:
    detector = made(conditioning=6).eval()
    with pytest.raises(InputError, match="got tokens of 2 samples, expected 3, one a question"):
        detector(pictures(), tokens=words(1, 2))
    with pytest.raises(InputError, match="got tokens of width 5, expected 6"):
        detector(pictures(), tokens=words(1, 2, 3, dim=5))
    with pytest.raises(InputError, match="it was built without conditioning"):
        made().eval()(pictures(), tokens=words(1, 2, 3))
    with pytest.raises(InputError, match=r"ask about \[0, 3\], expected pictures 0 to 2"):
        detector(pictures(), image_index=[0, 3])
    with pytest.raises(InputError, match="got no picture"):
        detector([])


def test_samples_that_do_not_fit() -> None:
    detector = spoken()
    with pytest.raises(InputError, match="sample 'x' has no 'image', expected a picture"):
        detector.predict([Sample("x", {"text": "the sevens"})])
    with pytest.raises(Unreadable, match="not an image in any known format"):
        detector.predict([Sample("x", {"image": b"nothing"})])
    with pytest.raises(Unreadable, match=r"got a tensor \(1, 5, 7\), expected \[3, H, W\]"):
        detector.predict([Sample("x", {"image": torch.zeros(1, 5, 7)})])
    with pytest.raises(Unreadable, match="got a tensor of torch.int64, expected uint8, or float32"):
        detector.predict([Sample("x", {"image": torch.zeros(3, 5, 7).long()})])
    with pytest.raises(InputError, match="losses are for training"):
        detector.eval().losses(asked(), truth())


def test_pictures_of_every_sort_are_read() -> None:
    detector = made().eval()
    grey16 = (scene().astype(np.uint16) * 257)[:, :, None]
    actual = detector.predict(
        [Sample(str(n), {"image": entry}) for n, entry in enumerate((scene(), grey16, scene()))]
    )
    assert same(actual[0], actual[1])
    assert same(actual[0], actual[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "fcoss"}, "kind: got 'fcoss', expected one of faster-rcnn, retinanet, fcos"),
        ({"classes": []}, r"got classes \[\], expected different names, at least one"),
        ({"classes": ["a", "a"]}, "expected different names"),
        ({"fpn_chanels": 64}, "unknown key 'fpn_chanels'. Did you mean 'fpn_channels'?"),
        ({"fpn_channels": 48}, "got width 48, expected a multiple of 32"),
        ({"backbone": "resnet10"}, "timm has no network 'resnet10'"),
        ({"levels": (7,)}, r"resnet10t has not the feature levels \(7,\)"),
        ({"frozen_stages": 9}, "got frozen=9, expected 0 to 5 stages of resnet10t, or 'all'"),
        ({"options": {"score_tresh": 0.1}}, "FCOS takes no 'score_tresh' here. Did you mean 'score_thresh'?"),
        ({"options": {"transform": 1}}, "FCOS takes no 'transform' here"),
        ({"conditioning": {}}, "got conditioning without an encoder"),
        ({"conditioning": {"phrase": TinyText(dim=8)}}, "got an encoder of 'text' for 'phrase'"),
    ],
)
def test_detectors_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Detector.build(**{"kind": "fcos", "classes": ["a"], **SMALL, **options})


def test_the_picture_of_an_encoder_that_is_the_scene_s_own_key() -> None:
    detector = made(conditioning={"image": TinyImage(dim=8, size=8, grid=2)}).eval()
    assert len(detector.predict(asked()[:1])) == 1
