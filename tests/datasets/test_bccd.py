"""BCCD as a data set: published parts, boxes counted from 0, bad boxes listed."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from PIL import Image

from mmattn.data.reader import read_dataset
from mmattn.errors import InputError
from mmattn_datasets.bccd.prepare import BCCD

REAL = Path(__file__).parents[2].parent / "shared/data/bccd"


def _cell(label: str, *corners: int) -> str:
    sides = "".join(
        f"<{name}>{value}</{name}>"
        for name, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    return f"<object><name>{label}</name><bndbox>{sides}</bndbox></object>"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    root = tmp_path / "BCCD_Dataset" / "BCCD"
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    things = {
        "one": ("train", _cell("RBC", 1, 2, 20, 31) + _cell("RBC", 7, 7, 7, 7)),
        "two": ("train", ""),
        "three": ("val", _cell("WBC", 5, 5, 40, 30)),
        "four": ("test", _cell("Platelets", 5, 5, 9, 9)),
    }
    for part in ("train", "val", "test"):
        names = [name for name, (its, _) in things.items() if its == part]
        (root / f"ImageSets/Main/{part}.txt").write_text("\n".join(names))
    for name, (_, cells) in things.items():
        Image.new("RGB", (40, 31)).save(root / f"JPEGImages/{name}.jpg")
        (root / f"Annotations/{name}.xml").write_text(
            f"<annotation><filename>{name}.jpg</filename><size><width>40</width><height>31</height></size>"
            f"{cells}</annotation>"
        )
    return root.parent


def test_parts_boxes_and_what_was_rejected(raw: Path, tmp_path: Path) -> None:
    data = read_dataset(BCCD().prepare(raw, tmp_path / "out"))
    assert [item.id for item in data.items] == ["one", "two", "three", "four"]
    assert data.item_split.tolist() == ["train", "train", "validation", "test"]
    boxes = data.targets["boxes"]
    assert [each.labels for each in boxes] == [("RBC",), (), ("WBC",), ("Platelets",)]
    assert boxes[0].boxes.tolist() == [[0, 1, 20, 31]]
    assert boxes[1].size == (31, 40)
    with (tmp_path / "out/rejected.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["id"], row["effect"]) == ("one", "part dropped")
    assert "[7, 7, 7, 7] has no area" in row["reason"]


def test_what_is_refused(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one: box 2 of 2: .* has no area"):
        BCCD().prepare(raw, tmp_path / "out", bad_boxes="refuse")
    with pytest.raises(InputError, match="no root given"):
        BCCD().prepare(None, tmp_path / "out")
    with pytest.raises(InputError, match="no folder ImageSets/Main"):
        BCCD().prepare(tmp_path, tmp_path / "out")
    xml = raw / "BCCD/Annotations/four.xml"
    xml.write_text(xml.read_text().replace("Platelets", "Plateles"))
    with pytest.raises(InputError, match=r"no label 'Plateles'\. Did you mean 'Platelets'\?"):
        BCCD().prepare(raw, tmp_path / "out")


@pytest.mark.data
def test_the_real_one(tmp_path: Path) -> None:
    if not REAL.is_dir():
        pytest.skip(f"no data at {REAL}")
    data = read_dataset(BCCD().prepare(REAL, tmp_path))
    counts = {part: int((data.item_split == part).sum()) for part in ("train", "validation", "test")}
    assert counts == {"train": 205, "validation": 87, "test": 72}
    assert sum(len(boxes) for boxes in data.targets["boxes"]) == 4886
    with (tmp_path / "rejected.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["effect"] == "part dropped"]
    assert sorted(row["id"] for row in rows) == ["BloodImage_00338", "BloodImage_00343"]
