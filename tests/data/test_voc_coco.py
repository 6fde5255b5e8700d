"""VOC folders and COCO files: the same boxes from both; what is bad is listed, dropped or refused."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmattn.boxes import Boxes
from mmattn.data.coco import read_coco
from mmattn.data.rejected import RejectionLog
from mmattn.data.voc import read_voc
from mmattn.encoders.image.image_io import read_image
from mmattn.errors import InputError

WIDTH, HEIGHT = 31, 23
Entry = tuple[str, Sequence[float]]
Read = Callable[..., list[tuple[Path, Boxes]]]


def _picture(path: Path, **kwargs: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(path, **kwargs)


def _voc(root: Path, things: dict[str, list[Entry]], size: tuple[int, int] = (WIDTH, HEIGHT)) -> Read:
    """A VOC folder with these boxes, given as (left, top, right, bottom) from 0."""
    (root / "Annotations").mkdir(parents=True)
    (root / "ImageSets/Main").mkdir(parents=True)
    for name, entries in things.items():
        if not (root / f"JPEGImages/{name}.png").exists():
            _picture(root / f"JPEGImages/{name}.png")
        objects = "".join(
            f"<object><name>{label}</name><bndbox><xmin>{a + 1}</xmin><ymin>{b + 1}</ymin>"
            f"<xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
            for label, (a, b, c, d) in entries
        )
        (root / f"Annotations/{name}.xml").write_text(
            f"<annotation><filename>{name}.png</filename><size><width>{size[0]}</width>"
            f"<height>{size[1]}</height></size>{objects}</annotation>"
        )
    (root / "ImageSets/Main/train.txt").write_text("\n".join(things) + "\n")
    return lambda **options: read_voc(root, "train", **options)


def _coco(root: Path, things: dict[str, list[Entry]], size: tuple[int, int] = (WIDTH, HEIGHT)) -> Read:
    """The same as a COCO file."""
    labels = sorted({label for entries in things.values() for label, _ in entries})
    images, annotations = [], []
    for number, (name, entries) in enumerate(things.items()):
        if not (root / f"JPEGImages/{name}.png").exists():
            _picture(root / f"JPEGImages/{name}.png")
        images.append({"id": number, "file_name": f"{name}.png", "width": size[0], "height": size[1]})
        annotations += [
            {"image_id": number, "category_id": labels.index(label), "bbox": [a, b, c - a, d - b]}
            for label, (a, b, c, d) in entries
        ]
    categories = [{"id": number, "name": label} for number, label in enumerate(labels)]
    _write(root / "all.json", {"images": images, "annotations": annotations, "categories": categories})
    return lambda **options: read_coco(root / "all.json", root / "JPEGImages", **options)


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture(params=[_voc, _coco], ids=["voc", "coco"])
def layout(request: pytest.FixtureRequest) -> Callable[..., Read]:
    return request.param


def test_boxes_with_their_pictures_in_order(layout: Callable[..., Read], tmp_path: Path) -> None:
    read = layout(
        tmp_path,
        {"b": [("dog", (0, 0, 31, 23)), ("cat", (2, 3, 7, 11))], "a": [], "c": [("cat", (5, 1, 7, 3))]},
    )
    rejected = RejectionLog()
    actual = read(rejected=rejected)
    assert [path.name for path, _ in actual] == ["b.png", "a.png", "c.png"]
    assert [boxes.labels for _, boxes in actual] == [("dog", "cat"), (), ("cat",)]
    assert actual[0][1].boxes.tolist() == [[0, 0, 31, 23], [2, 3, 7, 11]]
    assert {boxes.size for _, boxes in actual} == {(HEIGHT, WIDTH)}
    assert len(rejected) == 0


def test_bad_boxes_are_dropped_and_listed(layout: Callable[..., Read], tmp_path: Path) -> None:
    bad = [(9, 4, 4, 9), (31, 0, 40, 9), (-9, -9, -1, -1), (float("nan"), 0, 3, 3)]
    read = layout(tmp_path, {"a": [("cat", box) for box in [*bad, (-2, 20, 5, 30)]], "b": []})
    rejected = RejectionLog()
    (_, first), (_, second) = read(rejected=rejected)
    assert first.boxes.tolist() == [[0, 20, 5, 23]]
    assert len(second) == 0
    assert rejected.counts() == {"part dropped": 4, "kept": 1}
    reasons = [row.reason for row in rejected]
    assert "has no area" in reasons[0]
    assert "box 2 of 5: [31, 0, 40, 9] lies outside the image, 31 x 23" in reasons[1]
    assert "lies outside the image" in reasons[2]
    assert "expected four finite numbers" in reasons[3]
    assert reasons[4] == "box 5 of 5: [-2, 20, 5, 30] cut at the image's edge, 31 x 23"


corners = st.builds(
    lambda left, top, wide, high: (left, top, min(left + wide, WIDTH), min(top + high, HEIGHT)),
    *(st.integers(0, 28), st.integers(0, 20), st.integers(2, 31), st.integers(2, 23)),
)
entries = st.lists(st.tuples(st.sampled_from(["cat", "dog"]), corners), max_size=5)


@settings(max_examples=23, deadline=None)
@given(st.lists(entries, min_size=1, max_size=3))
def test_both_layouts_say_the_same(pictures: list[list[Entry]]) -> None:
    things = {f"p{number}": entries for number, entries in enumerate(pictures)}
    with tempfile.TemporaryDirectory() as folder:
        results = [layout(Path(folder), things)() for layout in (_voc, _coco)]
    for (path, voc), (other, coco), answer in zip(*results, pictures, strict=True):
        assert path == other
        assert voc.labels == coco.labels == tuple(label for label, _ in answer)
        assert voc.boxes.tolist() == coco.boxes.tolist() == [list(box) for _, box in answer]


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((9, 4, 4, 9), "box 1 of 1: .* has no area"),
        ((31, 0, 40, 9), "lies outside the image"),
        ((30, 0, 32, 9), "cut at the image's edge"),
        ((float("inf"), 0, 3, 3), "finite"),
    ],
)
def test_bad_boxes_are_refused_by_flag(
    layout: Callable[..., Read], tmp_path: Path, box: Sequence[float], reason: str
) -> None:
    read = layout(tmp_path, {"a": [("cat", box)]})
    with pytest.raises(InputError, match=reason):
        read(bad_boxes="refuse")


def test_a_picture_whose_boxes_are_all_bad_stays_without_boxes(
    layout: Callable[..., Read], tmp_path: Path
) -> None:
    ((path, boxes),) = layout(tmp_path, {"a": [("cat", (5, 5, 5, 5))]})()
    assert (path.name, len(boxes), boxes.size) == ("a.png", 0, (HEIGHT, WIDTH))


def test_unknown_labels_are_refused(layout: Callable[..., Read], tmp_path: Path) -> None:
    read = layout(tmp_path, {"a": [("cta", (1, 1, 5, 5))]})
    with pytest.raises(InputError, match=r"a(\.png)?: box 1 of 1: no label 'cta'\. Did you mean 'cat'\?"):
        read(labels=["cat", "dog"])
    assert read(labels=["cta"])[0][1].labels == ("cta",)


def test_a_flag_that_is_none(layout: Callable[..., Read], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="bad_boxes: got 'ignore', expected drop, refuse"):
        layout(tmp_path, {"a": []})(bad_boxes="ignore")


@pytest.mark.parametrize(("cats", "warned"), [(21, True), (20, False)])
def test_class_imbalance_is_warned_of(
    layout: Callable[..., Read], tmp_path: Path, caplog: pytest.LogCaptureFixture, cats: int, warned: bool
) -> None:
    """More than ten times as many of one as of another."""
    read = layout(tmp_path, {"a": [("cat", (1, 1, 5, 5))] * cats + [("dog", (2, 2, 9, 9))] * 2})
    rejected = RejectionLog()
    with caplog.at_level(logging.WARNING):
        read(rejected=rejected)
    expected = f"unbalanced: class 'cat' is there {cats} times, 'dog' 2 times"
    assert (expected in caplog.text) is warned
    assert [row.reason for row in rejected] == [expected] * warned


def test_missing_and_damaged_pictures_are_listed(layout: Callable[..., Read], tmp_path: Path) -> None:
    read = layout(tmp_path, {name: [("cat", (1, 1, 5, 5))] for name in "abc"})
    (tmp_path / "JPEGImages/a.png").unlink()
    (tmp_path / "JPEGImages/b.png").write_bytes(b"no picture")
    rejected = RejectionLog()
    assert [path.name for path, _ in read(rejected=rejected, reject_limit=0.9)] == ["c.png"]
    assert [row.effect for row in rejected] == ["row dropped", "row dropped"]
    assert "no file" in next(iter(rejected)).reason
    with pytest.raises(InputError, match="2 of 3 are bad, expected at most 5%"):
        read()


def _photograph(kind: str, path: Path) -> None:
    """A bright square on black, seen at left 4, top 9, right 16, bottom 17 of 31 x 23."""
    grey = np.zeros((HEIGHT, WIDTH), np.uint8)
    grey[9:17, 4:16] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "16-bit":
        Image.fromarray(grey.astype(np.uint16) * 257).save(path)
    elif kind == "cmyk":
        Image.fromarray(np.stack([grey * 0, grey * 0, grey * 0, 255 - grey], 2), "CMYK").save(path, "TIFF")
    elif kind == "palette":
        picture = Image.fromarray((grey > 0).astype(np.uint8), "P")
        picture.putpalette([0, 0, 0, 1, 2, 3])
        picture.save(path, transparency=1)  # the square is a hole, which lies on white
    elif kind.startswith("exif"):
        exif = Image.Exif()
        exif[0x0112] = int(kind[-1])
        turned = {"3": 2, "6": 1, "8": 3}[kind[-1]]  # stored so that what EXIF says turns it back
        Image.fromarray(np.rot90(grey, turned)).save(path, "PNG", exif=exif)
    else:
        Image.fromarray(grey).save(path)


@pytest.mark.parametrize("kind", ["grey", "16-bit", "cmyk", "palette", "exif 3", "exif 6", "exif 8"])
def test_boxes_lie_on_the_picture_as_it_is_seen(
    layout: Callable[..., Read], tmp_path: Path, kind: str
) -> None:
    _photograph(kind, tmp_path / "JPEGImages/a.png")
    ((path, boxes),) = layout(tmp_path, {"a": [("square", (4, 9, 16, 17))]})()
    pixels = np.asarray(read_image(path))
    assert pixels.shape == (*boxes.size, 3)
    left, top, right, bottom = boxes.boxes[0].int().tolist()
    inside = np.zeros(boxes.size, bool)
    inside[top:bottom, left:right] = True
    assert (pixels[inside] > 250).all()
    assert (pixels[~inside] < 5).all()


def test_boxes_drawn_on_the_picture_before_it_was_turned(layout: Callable[..., Read], tmp_path: Path) -> None:
    _photograph("exif 6", tmp_path / "JPEGImages/a.png")
    read = layout(tmp_path, {"a": [("square", (1, 1, 5, 5))], "b": []}, size=(HEIGHT, WIDTH))
    _picture(tmp_path / "JPEGImages/b.png")
    rejected = RejectionLog()
    with pytest.raises(InputError, match="2 of 2 are bad"):
        read(rejected=rejected)
    assert [row.reason for row in rejected] == [
        "its boxes were drawn on 23 x 31 pixels, but a.png is seen with 31 x 23, turned as its EXIF says",
        "its boxes were drawn on 23 x 31 pixels, but b.png is seen with 31 x 23",
    ]


class TestVoc:
    def test_a_box_whose_corners_are_one_point_has_no_area(self, tmp_path: Path) -> None:
        read = _voc(tmp_path, {"a": [("cat", (4, 6, 5, 7))]})  # written as 5, 7, 5, 7
        rejected = RejectionLog()
        assert len(read(rejected=rejected)[0][1]) == 0
        assert "[5, 7, 5, 7] has no area" in next(iter(rejected)).reason

    def test_all_without_a_split_and_lists_with_a_second_column(self, tmp_path: Path) -> None:
        _voc(tmp_path, {"a": [], "b": []})
        (tmp_path / "ImageSets/Main/cat_val.txt").write_text("b  1\n\na -1\n")
        assert [path.stem for path, _ in read_voc(tmp_path)] == ["a", "b"]
        assert [path.stem for path, _ in read_voc(tmp_path, "cat_val")] == ["b", "a"]

    def test_the_picture_is_found_when_the_file_name_is_wrong(self, tmp_path: Path) -> None:
        read = _voc(tmp_path, {"a": []})
        xml = tmp_path / "Annotations/a.xml"
        xml.write_text(xml.read_text().replace("a.png", "../../secret.png"))
        assert [path for path, _ in read()] == [tmp_path / "JPEGImages/a.png"]

    def test_sizes_that_are_not_stated(self, tmp_path: Path) -> None:
        assert _voc(tmp_path, {"a": []}, size=(0, 0))()[0][1].size == (HEIGHT, WIDTH)

    def test_what_is_missing(self, tmp_path: Path) -> None:
        read = _voc(tmp_path, {"a": [], "b": [("", (1, 1, 5, 5))], "c": []})
        with pytest.raises(InputError, match="no split 'dev', expected one of: train"):
            read_voc(tmp_path, "dev")
        with pytest.raises(InputError, match="no folder ImageSets/Main, expected the layout of Pascal VOC"):
            read_voc(tmp_path / "JPEGImages", "train")
        (tmp_path / "Annotations/a.xml").unlink()
        (tmp_path / "Annotations/c.xml").write_text("<annotation><object>")
        rejected = RejectionLog()
        read(rejected=rejected, reject_limit=0.9)
        assert [(row.id, row.effect) for row in rejected] == [
            ("a", "row dropped"),
            ("b", "part dropped"),
            ("c", "row dropped"),
        ]
        reasons = [row.reason for row in rejected]
        assert reasons[:2] == ["no file Annotations/a.xml", "box 1 of 1: it has no label"]
        assert reasons[2].startswith("Annotations/c.xml is damaged")


class TestCoco:
    def edited(self, tmp_path: Path, **changes: Any) -> Read:
        read = _coco(tmp_path, {"a": [("cat", (1, 1, 5, 5)), ("cat", (2, 2, 9, 9))]})
        content = json.loads((tmp_path / "all.json").read_text())
        for name, value in changes.items():
            content["annotations"][0][name] = value
        _write(tmp_path / "all.json", content)
        return read

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"iscrowd": 1}, "a crowd, not one object"),
            ({"image_id": 77}, "a box of no image"),
            ({"bbox": [1, 2, 3]}, "got [1, 2, 3], expected four numbers"),
            ({"bbox": None}, "got None, expected four numbers"),
            ({"bbox": ["a", "b", "c", "d"]}, "expected four finite numbers"),
            ({"bbox": [1, 1, 0, 5]}, "has no area"),
        ],
    )
    def test_bad_annotations_are_dropped(self, tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
        rejected = RejectionLog()
        ((_, boxes),) = self.edited(tmp_path, **changes)(rejected=rejected)
        assert boxes.boxes.tolist() == [[2, 2, 9, 9]]
        (row,) = rejected
        assert row.effect == "part dropped"
        assert reason in row.reason

    def test_a_category_that_is_not_known(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"annotation 1: no category 5\. Known: 0\."):
            self.edited(tmp_path, category_id=5)()

    def test_files_that_are_none(self, tmp_path: Path) -> None:
        file = tmp_path / "all.json"
        with pytest.raises(InputError, match="cannot be opened"):
            read_coco(file, tmp_path)
        file.write_text("{")
        with pytest.raises(InputError, match="not JSON"):
            read_coco(file, tmp_path)
        _write(file, {"images": [], "annotations": 3})
        with pytest.raises(InputError, match="no list 'annotations' of mappings"):
            read_coco(file, tmp_path)
        _write(file, {"images": [{"id": 3}, {"id": 3}], "annotations": [], "categories": []})
        with pytest.raises(InputError, match="id 3 stands for several images"):
            read_coco(file, tmp_path)
