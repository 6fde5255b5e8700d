"""Spoken digits: names, parts, words; what cannot be used is listed."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mmattn.data.reader import read_dataset
from mmattn.errors import InputError
from mmattn.testing.plugin_checks import check_dataset
from mmattn_datasets.fsdd.prepare import DIGIT_WORDS, Fsdd

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "fsdd"


def record(path: Path, seconds: float = 0.1, loudness: float = 0.1) -> None:
    noise = np.random.default_rng(len(path.name)).normal(size=round(seconds * 8000)) * loudness
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise, 8000)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    for digit in (3, 7):
        for speaker in ("ann", "bob"):
            for index in range(13):
                record(folder / "recordings" / f"{digit}_{speaker}_{index}.flac")
    return folder


def test_parts_are_by_index_and_words_by_digit(root: Path, tmp_path: Path) -> None:
    dataset = read_dataset(Fsdd().prepare(root, tmp_path / "out"))
    assert len(dataset.items) == 52
    assert dataset.item_split is not None
    for sample, digit, speaker, index, split in zip(
        dataset.items,
        dataset.labels["digit"],
        dataset.labels["speaker"],
        dataset.labels["index"],
        dataset.item_split,
        strict=True,
    ):
        assert sample.id == f"{digit}_{speaker}_{index}"
        assert sample.content["audio"] == (root / "recordings" / f"{sample.id}.flac").resolve()
        assert split == ("test" if int(index) < 5 else "validation" if int(index) < 10 else "train")
    assert dict(zip(dataset.labels["digit"], dataset.targets["transcript"], strict=True)) == {
        "3": "three",
        "7": "seven",
    }
    assert not len(dataset.rejected)


def test_recordings_inside_the_folder_move_with_it(root: Path) -> None:
    Fsdd().prepare(root, root)
    moved = root.rename(root.with_name("moved"))
    assert read_dataset(moved).items[0].content["audio"].is_relative_to(moved)


def test_bad_recordings_are_listed(root: Path, tmp_path: Path) -> None:
    folder = root / "recordings"
    record(folder / "3_ann_0.wav")
    record(folder / "ten_ann_0.wav")
    record(folder / "3_ann_20.flac", loudness=0.0)
    whole = (folder / "3_ann_1.flac").read_bytes()
    (folder / "3_ann_1.flac").write_bytes(whole[: len(whole) // 2])
    dataset = read_dataset(Fsdd().prepare(root, tmp_path / "out", reject_limit=0.1))
    assert len(dataset.items) == 51
    with (tmp_path / "out" / "rejected.csv").open() as file:
        reasons = {row["table"]: row["reason"] for row in csv.DictReader(file)}
    assert reasons["3_ann_0.wav"].startswith("the same digit, speaker and index as")
    assert reasons["ten_ann_0.wav"] == "expected {digit}_{speaker}_{index}.flac"
    assert reasons["3_ann_20.flac"] == "the clip is silent"
    assert "cut off" in reasons["3_ann_1.flac"]


def test_refused(root: Path, tmp_path: Path) -> None:
    for nothing in (None, tmp_path / "absent"):
        with pytest.raises(InputError, match=r"expected the folder of the recordings"):
            Fsdd().prepare(nothing, tmp_path / "out")
    with pytest.raises(InputError, match="no recording of index 20 or more"):
        Fsdd().prepare(root, tmp_path / "out", validation=15)
    for index in range(13):
        (root / "recordings" / f"3_ann_{index}.flac").write_bytes(b"no sound")
    with pytest.raises(InputError, match=r"13 of 52 are bad, .*3_ann_0.flac: not an audio file"):
        Fsdd().prepare(root, tmp_path / "out")
    assert not (tmp_path / "out" / "card.yaml").exists()


def test_the_contract(root: Path) -> None:
    check_dataset("fsdd", root)


@pytest.mark.data
@pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not there")
def test_the_real_recordings(tmp_path: Path) -> None:
    dataset = read_dataset(Fsdd().prepare(DATA, tmp_path))
    assert dataset.item_split is not None
    assert {part: int((dataset.item_split == part).sum()) for part in ("train", "validation", "test")} == {
        "train": 2400,
        "validation": 300,
        "test": 300,
    }
    assert set(dataset.targets["transcript"]) == set(DIGIT_WORDS)
    assert len(set(dataset.labels["speaker"])) == 6
    assert not len(dataset.rejected)
