"""The WNUT-17 files: sentences between empty lines, lines that do not fit, the published parts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from mmattn import InputError
from mmattn.data.reader import read_dataset
from mmattn_datasets.wnut17.prepare import FILES, Wnut17

RAW = Path(__file__).parents[3] / "shared/data/wnut17"


def write(root: Path, **parts: str) -> Path:
    root.mkdir(exist_ok=True)
    for part, name in FILES.items():
        (root / name).write_text(parts.get(part, "Hi\tO\n"), "utf-8")
    return root


def test_sentences_with_their_tags(tmp_path: Path) -> None:
    train = "Redondo\tB-location\nBeach\tI-location\r\n.\tO\n\t\n\nhi\u2028ho\tO\n"
    card = Wnut17().prepare(write(tmp_path / "raw", train=train), tmp_path / "out")
    data = read_dataset(card)
    assert [list(sample.content["text"]) for sample in data.items[:2]] == [
        ["Redondo", "Beach", "."],
        ["hi\u2028ho"],
    ]
    assert data.targets["tags"][:2] == (["B-location", "I-location", "O"], ["O"])
    assert [sample.id for sample in data.items] == ["train-1", "train-6", "validation-1", "test-1"]
    assert data.item_split.tolist() == ["train", "train", "validation", "test"]


def test_a_sentence_with_a_bad_line_is_listed(tmp_path: Path) -> None:
    lines = ["hi\tO\n", "hi\tB-persn\nho\tO\n", "hi ho\n", "\tO\n", "end\tO"]
    root = write(tmp_path / "raw", test="\n".join(lines))
    with pytest.raises(InputError, match=r"emerging.test.annotated: sentences: 3 of 5 are bad, expected at"):
        Wnut17().prepare(root, tmp_path / "out")
    Wnut17().prepare(root, tmp_path / "out", reject_limit=0.9)
    rejected = pd.read_csv(tmp_path / "out/rejected.csv")
    assert rejected["row"].tolist() == [3, 6, 8]
    assert "got 'hi\\tB-persn', expected a word, a tab and one of 13 tags" in rejected["reason"][0]
    items = pd.read_parquet(tmp_path / "out/items.parquet")
    assert items.loc[items["split"] == "test", "item"].tolist() == ["test-1", "test-10"]


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got root None, expected the folder with wnut17train.conll"):
        Wnut17().prepare(None, tmp_path / "out")
    root = write(tmp_path / "raw")
    (root / FILES["test"]).unlink()
    with pytest.raises(InputError, match="missing: emerging.test.annotated$"):
        Wnut17().prepare(root, tmp_path / "out")
    write(root, train="\n\n")
    with pytest.raises(InputError, match="wnut17train.conll: got no sentence"):
        Wnut17().prepare(root, tmp_path / "out")


@pytest.mark.data
@pytest.mark.skipif(not RAW.is_dir(), reason="needs ../shared/data/wnut17")
def test_the_published_files_in_their_published_parts(tmp_path: Path) -> None:
    data = read_dataset(Wnut17().prepare(RAW, tmp_path))
    assert len(data.rejected) == 0
    assert Counter(data.item_split.tolist()) == {"train": 3394, "validation": 1009, "test": 1287}
    spans = {
        part: sum(tag[0] == "B" for tags, group in zip(data.targets["tags"], data.item_split, strict=True)
                  for tag in tags if group == part)
        for part in FILES
    }  # fmt: skip
    assert spans == {"train": 1975, "validation": 836, "test": 1079}
