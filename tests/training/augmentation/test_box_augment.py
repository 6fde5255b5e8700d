"""Where a thing goes, its box goes: checked by looking for the thing in the changed picture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from mmattn.boxes import Boxes
from mmattn.errors import InputError
from mmattn.training.augmentation.box_augment import BoxAugment

SIZE = (37, 53)


def scene() -> tuple[Tensor, Boxes]:
    """Three blocks, each in a channel of its own."""
    picture = torch.zeros(3, *SIZE, dtype=torch.uint8)
    corners = torch.tensor([[3, 5, 17, 13], [29, 2, 40, 19], [12, 21, 31, 36]])
    for channel, (left, top, right, bottom) in enumerate(corners.tolist()):
        picture[channel, top:bottom, left:right] = 255
    return picture, Boxes(corners.float(), ["a", "b", "c"], SIZE, torch.tensor([0.1, 0.2, 0.3]))


def seen(picture: Tensor, label: str) -> Tensor:
    """[4] where the block of a label is."""
    rows, columns = (picture["abc".index(label)] > 127).nonzero(as_tuple=True)
    return torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()


@pytest.mark.parametrize(
    ("options", "slack"),
    [
        ({"flips": ("horizontal", "vertical")}, 0.0),
        ({"flips": (), "quarter_turns": True}, 0.0),
        ({"flips": ("vertical",), "quarter_turns": True, "photometric": 0.0}, 0.0),
        ({"flips": (), "zoom": (0.7, 1.3), "shift": 0.2}, 1.0),
        ({"flips": ("horizontal",), "crop": 1.0}, 1.0),
    ],
)
def test_boxes_go_where_things_go(options: dict[str, Any], slack: float) -> None:
    augment = BoxAugment(**options)
    picture, boxes = scene()
    sizes, kept = set(), 0
    for seed in range(30):
        torch.manual_seed(seed)
        changed, actual = augment(picture, boxes)
        assert actual.size == tuple(changed.shape[1:])
        assert changed.dtype == torch.uint8
        assert type(changed) is Tensor
        assert type(actual.boxes) is Tensor
        for box, label, score in zip(actual.boxes, actual.labels, actual.scores, strict=True):
            assert score.item() == pytest.approx({"a": 0.1, "b": 0.2, "c": 0.3}[label])
            assert (seen(changed, label) - box).abs().max() <= slack + 1e-4, (seed, label)
        sizes.add(actual.size)
        kept += len(actual)
    assert kept > 45  # of 90
    assert sizes == ({SIZE, SIZE[::-1]} if options.get("quarter_turns") else {SIZE})


def test_each_outcome_of_turns_and_flips_occurs() -> None:
    """Eight pictures: the symmetries of a rectangle's content."""
    augment = BoxAugment(flips=("horizontal",), quarter_turns=True)
    picture, boxes = scene()
    torch.manual_seed(0)
    outcomes = {tuple(augment(picture, boxes)[1].boxes.flatten().tolist()) for _ in range(99)}
    assert len(outcomes) == 8


def test_boxes_that_vanish_are_dropped_and_others_are_cut() -> None:
    picture = torch.zeros(3, 20, 20, dtype=torch.uint8)
    # At twice the size about the middle, 5 to 15 is left: nothing, 1/25, 36%, and all of these boxes.
    corners = [[0, 0, 4, 4], [1, 1, 6, 6], [2, 6, 7, 8], [6, 6, 12, 13]]
    boxes = Boxes(torch.tensor(corners).float(), list("abcd"), (20, 20))
    _, actual = BoxAugment(flips=(), zoom=(2.0, 2.0))(picture, boxes)
    assert actual.labels == ("c", "d")
    assert actual.boxes.tolist() == [[0, 2, 4, 6], [2, 2, 14, 16]]
    _, actual = BoxAugment(flips=(), zoom=(2.0, 2.0), min_visibility=0.5)(picture, boxes)
    assert actual.labels == ("d",)
    _, actual = BoxAugment(flips=(), zoom=(2.0, 2.0), min_visibility=0.0)(picture, boxes)
    assert actual.labels == ("b", "c", "d")


def test_a_picture_without_boxes() -> None:
    augment = BoxAugment(
        flips=("vertical",), quarter_turns=True, zoom=(0.5, 2.0), shift=0.1, crop=1.0, photometric=1.0
    )
    for seed in range(20):
        torch.manual_seed(seed)
        changed, actual = augment(scene()[0], Boxes.empty(SIZE))
        assert (len(actual), actual.size) == (0, tuple(changed.shape[1:]))


def test_colours_change_the_picture_and_no_box() -> None:
    picture, boxes = scene()
    torch.manual_seed(0)
    changed, actual = BoxAugment(flips=(), photometric=1.0)(picture, boxes)
    assert not torch.equal(changed, picture)
    assert torch.equal(actual.boxes, boxes.boxes)


def test_crops_are_drawn_anew_and_keep_the_size() -> None:
    picture, boxes = scene()
    torch.manual_seed(1)
    results = [BoxAugment(flips=(), crop=1.0)(picture, boxes)[1] for _ in range(20)]
    assert {each.size for each in results} == {SIZE}
    areas = {round(float(each.area.sum()), 2) for each in results}
    assert len(areas) > 5
    assert all(len(each) for each in results)  # a crop keeps some box


def test_the_generator_is_torchs() -> None:
    augment = BoxAugment(quarter_turns=True, zoom=(0.8, 1.2), shift=0.1, crop=0.5, photometric=0.5)
    results = []
    for _ in range(2):
        torch.manual_seed(7)
        results.append([augment(*scene()) for _ in range(5)])
    for (a, entry), (b, two) in zip(*results, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(entry.boxes, two.boxes)


def test_flips_that_cancel_leave_everything_as_it_was() -> None:
    picture, boxes = scene()
    augment = BoxAugment(flips=())
    changed, actual = augment(picture, boxes)
    assert torch.equal(changed, picture)
    assert box_iou(actual.boxes, boxes.boxes).diag().tolist() == [1, 1, 1]


def test_for_a_supervised_task() -> None:
    augment = BoxAugment(flips=(), quarter_turns=True).for_modality("photo")
    picture, boxes = scene()
    torch.manual_seed(3)
    contents, actual = augment({"photo": picture, "text": "a"}, boxes)
    assert contents["text"] == "a"
    assert actual.size == tuple(contents["photo"].shape[1:])
    assert augment({"photo": None}, boxes) == ({"photo": None}, boxes)


def test_other_targets_stay_and_boxes_come_to_the_size_that_is_read() -> None:
    augment = BoxAugment(flips=(), quarter_turns=True).for_modality("photo")
    picture, boxes = scene()
    torch.manual_seed(3)
    for target in (None, "seven", ["a", "b"]):
        assert augment({"photo": picture}, target)[1] is target
    squeezed = torch.zeros(3, 20, 20, dtype=torch.uint8)
    as_read = BoxAugment(flips=()).for_modality("photo")({"photo": squeezed}, boxes)[1]
    assert as_read.size == (20, 20)
    assert torch.allclose(as_read.boxes, boxes.scaled((20, 20)).boxes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flips": ("diagonal",)}, r"got flips \['diagonal'\], expected any of horizontal, vertical"),
        ({"zoom": (1.2, 0.8)}, "expected 0 < least <= most"),
        ({"zoom": (0.0, 1.0)}, "expected 0 < least"),
        ({"crop": 2.0}, "got crop 2.0, expected 0 to 1"),
        ({"min_visibility": -0.1}, "got min_visibility -0.1"),
    ],
)
def test_arguments_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BoxAugment(**options)


def test_boxes_of_another_picture() -> None:
    with pytest.raises(InputError, match=r"a picture \(3, 37, 53\) and boxes on \(53, 37\)"):
        BoxAugment()(scene()[0], Boxes.empty((53, 37)))
