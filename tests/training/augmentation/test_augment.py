"""Augmentation by configuration: what it changes, what it leaves, what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmattn.boxes import Boxes
from mmattn.encoders.audio.log_mel import LogMel
from mmattn.encoders.image.tiny_image import TinyImage
from mmattn.encoders.text.tiny_text import TinyText
from mmattn.errors import InputError
from mmattn.training.augmentation.augment import build_augment, image_augment


def encoders() -> dict[str, Any]:
    return {"image": TinyImage(dim=8, size=13), "audio": LogMel(dim=8, heads=2), "text": TinyText(dim=8)}


def test_nothing_asked_for_is_nothing_done() -> None:
    assert build_augment(encoders(), {}) is None


def test_a_picture_moves_by_whole_pixels_and_repeats_its_edge() -> None:
    picture = torch.arange(13 * 13, dtype=torch.uint8).reshape(1, 13, 13).expand(3, 13, 13)
    augment = image_augment("image", shift=2, contrast=0.0)
    indices = set()
    for _ in range(60):
        moved, target = augment({"image": picture, "text": "seven"}, "seven")
        assert (target, moved["text"]) == ("seven", "seven")
        corner = int(moved["image"][0, 6, 6])  # its row and column say how far it moved
        down, across = divmod(corner, 13)
        indices.add((down - 6, across - 6))
        rows = (torch.arange(13) + down - 6).clamp(0, 12)
        columns = (torch.arange(13) + across - 6).clamp(0, 12)
        assert torch.equal(moved["image"], picture[:, rows][:, :, columns])
    assert len(indices) > 12
    assert max(max(map(abs, index)) for index in indices) == 2


def test_contrast_turns_about_the_middle_grey() -> None:
    picture = torch.full((3, 5, 5), 200, dtype=torch.uint8)
    augment = image_augment("image", shift=0, contrast=0.5)
    results = {int(augment({"image": picture}, None)[0]["image"][0, 0, 0]) for _ in range(40)}
    assert len(results) > 10
    assert min(results) >= 163
    assert max(results) <= 237


def test_several_encoders_and_what_is_absent() -> None:
    augment = build_augment(encoders(), {"image": {}, "audio": {"probability": 1.0}})
    assert augment is not None
    frames = torch.randn(40, 64)
    contents, _ = augment({"image": None, "audio": frames}, "seven")
    assert contents["image"] is None
    assert contents["audio"].shape[1] == 64
    assert not torch.equal(contents["audio"], frames)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"imag": {}}, "augment: no encoder 'imag'. Did you mean 'image'?"),
        ({"text": {}}, "augment.text: nothing is known for the encoder 'tiny-text'"),
        ({"image": {"shfit": 1}}, "augment.image: .*unexpected keyword argument 'shfit'"),
        ({"image": {"shift": -1}}, "got shift -1"),
        ({"audio": {"strength": -1.0}}, "got strength -1.0"),
    ],
)
def test_mistakes(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_augment(encoders(), spec)


def test_a_frozen_encoder_s_tokens_cannot_be_changed() -> None:
    frozen = encoders()
    frozen["image"].frozen = True
    with pytest.raises(InputError, match=r"augment\.image: the encoder is frozen"):
        build_augment(frozen, {"image": {}})


def test_boxes_would_have_to_move_along() -> None:
    augment = image_augment("image", shift=1)
    with pytest.raises(InputError, match="got a shift for a task with boxes"):
        augment({"image": torch.zeros(3, 5, 5, dtype=torch.uint8)}, Boxes.empty((5, 5)))


def test_boxes_move_along_where_that_is_asked_for() -> None:
    encoder = TinyImage(dim=8, size=16)
    augment = build_augment({"image": encoder}, {"image": {"zoom": [2.0, 2.0], "flips": []}})
    assert augment is not None
    picture = torch.zeros(3, 16, 16, dtype=torch.uint8)
    boxes = Boxes(torch.tensor([[8.0, 8.0, 24.0, 24.0]]), ["a"], (32, 32))  # the middle, at twice the size
    assert augment({"image": picture}, boxes)[1].boxes.tolist() == [[0, 0, 16, 16]]
    with pytest.raises(InputError, match=r"augment.image: .*unexpected keyword argument 'flisp'"):
        build_augment({"image": encoder}, {"image": {"flisp": []}})
