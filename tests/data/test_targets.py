"""Targets of items: golden values by hand, and every cell that cannot be a target with its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmattn.boxes import Boxes
from mmattn.data.cell_parsing import BadCell, parse_words
from mmattn.data.dataset import Dataset
from mmattn.data.reader import read_dataset
from mmattn.data.targets import parse_boxes, parse_labels, parse_tags
from mmattn.errors import InputError

COLUMNS = {
    "words": "words",
    "ner": "tags",
    "mood": "label",
    "topics": "labels",
    "said": "transcript",
    "picture": "image",
    "cells": "boxes",
}


def made(folder: Path, rows: list[dict[str, Any]], kind: str = "parquet", limit: float = 0.9) -> Dataset:
    """A data set of rows (what a row does not name is empty), with one picture 7 wide and 5 high."""
    Image.new("L", (7, 5), 30).save(folder / "a.png")
    table = pd.DataFrame([{**dict.fromkeys(COLUMNS), **row} for row in rows])
    table.insert(0, "id", range(len(rows)))
    if kind == "parquet":
        table.to_parquet(folder / "items.parquet")
    else:
        table.to_csv(folder / "items.csv", index=False)
    card = {"name": "made", "items": {"file": f"items.{kind}", "id": "id", "columns": COLUMNS}}
    (folder / "card.yaml").write_text(yaml.safe_dump(card, sort_keys=False))
    return read_dataset(folder, reject_limit=limit)


def complaints(dataset: Dataset, column: str) -> list[tuple[int, str, str]]:
    results = [each for each in dataset.rejected if each.column == column]
    return [(each.row, each.effect, each.reason) for each in results]


def plain(boxes: Boxes | None) -> Any:
    return None if boxes is None else (boxes.boxes.tolist(), boxes.labels, boxes.size)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_targets_of_every_role(tmp_path: Path, kind: str) -> None:
    as_cell = (lambda value: value) if kind == "parquet" else json.dumps
    first = {
        "words": as_cell(["New", "York", "|", "wins"]),
        "ner": as_cell(["B-place", "I-place", "O", "O"]),
        "mood": "glad",
        "topics": as_cell(["sport", "city", "sport"]),
        "said": " new york wins ",
        "picture": "a.png",
        "cells": as_cell([{"label": "red", "box": [1.0, 0.0, 3.5, 5.0]}]),
    }
    none = {"words": as_cell(["hm"]), "topics": as_cell([]), "picture": "a.png", "cells": as_cell([])}
    dataset = made(tmp_path, [first, none, {"words": as_cell(["silence"])}], kind)
    assert [item.content.get("text") for item in dataset.items] == [
        ["New", "York", "|", "wins"],
        ["hm"],
        ["silence"],
    ]
    assert dataset.modalities == ("text", "image")
    targets = dict(dataset.targets)
    boxes = targets.pop("cells")
    assert [plain(each) for each in boxes] == [
        ([[1.0, 0.0, 3.5, 5.0]], ("red",), (5, 7)),
        ([], (), (5, 7)),
        None,
    ]
    assert targets == {
        "ner": (["B-place", "I-place", "O", "O"], None, None),
        "mood": ("glad", None, None),
        "topics": (["sport", "city"], [], None),
        "said": ("new york wins", None, None),
    }
    assert dataset.labels["mood"].tolist() == ["glad", "", ""]
    assert not len(dataset.rejected)


def test_text_with_separators(tmp_path: Path) -> None:
    rows = [{"words": "so  it is", "ner": "O O B", "topics": "a|b c"}]
    dataset = made(tmp_path, rows, "csv")
    assert dataset.items[0].content["text"] == ["so", "it", "is"]
    assert dataset.targets["ner"] == (["O", "O", "B"],)
    assert dataset.targets["topics"] == (["a", "b c"],)


def test_tags_that_do_not_fit_their_words_are_listed(tmp_path: Path) -> None:
    rows = [
        {"words": ["a", "b"], "ner": ["O"]},
        {"words": ["a", " "], "ner": ["O", "O"]},
        {"words": ["a", "b"], "ner": ["O", ""]},
        {"words": ["a", "b"], "ner": ["O", "B"]},
    ]
    dataset = made(tmp_path, rows)
    assert dataset.targets["ner"] == (None, None, None, ["O", "B"])
    assert complaints(dataset, "words") == [(2, "cell dropped", "word 2 of 2 is ' ', expected text")]
    assert complaints(dataset, "ner") == [
        (1, "cell dropped", "got 1 tags, expected 2, one a word"),
        (2, "cell dropped", "got 2 tags, but there are no words that can be used"),
        (3, "cell dropped", "1 of 2 tags are empty, expected a name a word"),
    ]


GOOD = {"label": "red", "box": [0, 0, 2, 2]}


@pytest.mark.parametrize(
    ("entry", "effect", "reason"),
    [
        ({"label": "red", "box": [1, 2, 3]}, "part dropped", "got [1, 2, 3], expected four numbers"),
        ({"label": "red", "box": [1, 2, "x", 4]}, "part dropped", "expected four finite numbers"),
        ({"label": "red", "box": [1, 2, True, 4]}, "part dropped", "expected four finite numbers"),
        ({"label": "red", "box": [1, 2, float("nan"), 4]}, "part dropped", "expected four finite numbers"),
        ({"label": "red", "box": "1234"}, "part dropped", "got '1234', expected four numbers"),
        ({"label": "", "box": [0, 0, 1, 1]}, "part dropped", "it has no label"),
        ({"box": [0, 0, 1, 1]}, "part dropped", "expected label and box"),
        (["red", 0, 0, 1, 1], "part dropped", "expected label and box"),
        ({"label": "red", "box": [3, 0, 3, 1]}, "part dropped", "[3, 0, 3, 1] has no area"),
        ({"label": "red", "box": [3, 4, 5, 2]}, "part dropped", "[3, 4, 5, 2] has no area"),
        ({"label": "red", "box": [7, 0, 9, 1]}, "part dropped", "lies outside the image, 7 x 5"),
        ({"label": "red", "box": [-1, 1, 9, 9]}, "kept", "[-1, 1, 9, 9] cut at the image's edge, 7 x 5"),
    ],
)
def test_a_bad_box_is_listed_and_the_others_stay(
    tmp_path: Path, entry: Any, effect: str, reason: str
) -> None:
    dataset = made(tmp_path, [{"picture": "a.png", "cells": json.dumps([GOOD, entry])}], "csv")
    (row, actual, answer) = complaints(dataset, "cells")[0]
    assert (row, actual) == (1, effect)
    assert answer.startswith("box 2 of 2: ")
    assert reason in answer
    boxes = dataset.targets["cells"][0].boxes.tolist()
    assert boxes == [[0, 0, 2, 2]] + ([[0, 1, 7, 5]] if effect == "kept" else [])


def test_cells_that_are_no_boxes_and_pictures_without_a_size(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no more")
    rows = [
        {"picture": "a.png", "cells": "[{"},
        {"picture": "a.png", "cells": '{"label": "red"}'},
        {"cells": "[]"},
        {"picture": "broken.png", "cells": "[]"},
        {"picture": "a.png", "cells": "[]"},
    ]
    dataset = made(tmp_path, rows, "csv")
    assert [plain(each) for each in dataset.targets["cells"]] == [None] * 4 + [([], (), (5, 7))]
    assert complaints(dataset, "cells") == [
        (
            1,
            "cell dropped",
            "got '[{', expected a list, or JSON (Expecting property name enclosed in double quotes)",
        ),
        (2, "cell dropped", "got {'label': 'red'}, expected a list"),
        (3, "cell dropped", "got 0 boxes, but there is no image that can be used"),
        (4, "cell dropped", "the size of broken.png cannot be read (UnidentifiedImageError)"),
    ]


def test_bad_boxes_are_refused_where_that_is_asked_for(tmp_path: Path) -> None:
    flat = {"label": "red", "box": [1, 1, 1, 2]}
    rows = [{"picture": "a.png", "cells": json.dumps([GOOD, GOOD, flat])}]
    assert len(made(tmp_path, rows, "csv").targets["cells"][0]) == 2
    with pytest.raises(InputError, match=r"column 'cells': 1 of 3 are bad, .* box 3 of 3: .*no area"):
        made(tmp_path, rows, "csv", limit=0.0)


def test_a_picture_on_its_side_has_its_upright_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.new("RGB", (7, 5)).save(tmp_path / "side.jpg", exif=exif)
    boxes, problems = parse_boxes([{"label": "red", "box": [0, 0, 5, 7]}], tmp_path / "side.jpg")
    assert plain(boxes) == ([[0, 0, 5, 7]], ("red",), (7, 5))
    assert not problems


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=7))
def test_a_list_of_words_is_taken_as_it_is(words: list[str]) -> None:
    assert parse_words(words, " ") == words
    assert parse_words(json.dumps(words), " ") == words
    tags = [f"T{index}" for index in range(len(words))]
    assert parse_tags(tags, " ", words) == tags
    with pytest.raises(BadCell, match="one a word"):
        parse_tags([*tags, "O"], " ", words)


@given(st.lists(st.sampled_from(["a", "b", "c d"]), max_size=7))
def test_labels_are_names_without_repetition(names: list[str]) -> None:
    actual = parse_labels(names, "|")
    assert actual is not None
    assert sorted(actual) == sorted(set(names))
    assert parse_labels("|".join(names), "|") == (actual or None)
