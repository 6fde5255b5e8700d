"""Photographs with written and spoken captions: the table, the split, and every bad row listed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from mmattn.data.reader import read_dataset
from mmattn.errors import InputError
from mmattn_datasets.flickr_trimodal.prepare import FlickrTrimodal, transcript_of

REAL = Path(__file__).parents[3] / "shared" / "data" / "flickr-trimodal"


def make(root: Path, photographs: int = 10, extra: str = "") -> Path:
    for folder in ("images", "audio"):
        (root / folder).mkdir(parents=True)
    lines = ["image,caption"]
    for number in range(photographs):
        (root / "images" / f"p{number}.jpg").write_bytes(b"picture")
        (root / "audio" / f"p{number}.ogg").write_bytes(b"clip")
        lines += [f'p{number}.jpg,"A dog , number {number}-{caption} ."' for caption in range(5)]
    (root / "captions.csv").write_text("\n".join(lines) + "\n" + extra, encoding="utf-8")
    return root


def test_the_spoken_caption_is_apart_from_the_text(tmp_path: Path) -> None:
    dataset = read_dataset(FlickrTrimodal().prepare(make(tmp_path / "raw"), tmp_path / "out"))
    assert dataset.modalities == ("image", "text", "audio")
    item = dataset.items[3]
    assert item.id == "p3"
    assert item.content["text"] == [f"A dog , number 3-{caption} ." for caption in range(1, 5)]
    assert item.content["audio"] == (tmp_path / "raw" / "audio" / "p3.ogg").resolve()
    assert dataset.targets["caption_0"][3] == "A dog , number 3-0 ."
    assert dataset.targets["transcript"][3] == "a dog number 3 0"
    assert len(dataset.rejected) == 0


def test_the_split_goes_by_photograph_and_seed_not_by_the_order_of_the_file(tmp_path: Path) -> None:
    raw = make(tmp_path / "raw", photographs=30)
    parts = {}
    for seed in (0, 1):
        dataset = read_dataset(FlickrTrimodal().prepare(raw, tmp_path / f"out{seed}", seed=seed))
        parts[seed] = dict(zip(dataset.item_ids, dataset.item_split, strict=True))
        assert Counter(parts[seed].values()) == {"train": 21, "test": 6, "validation": 3}
    assert parts[0] != parts[1]
    header, *rows = (raw / "captions.csv").read_text().splitlines()
    (raw / "captions.csv").write_text("\n".join([header, *reversed(rows)]) + "\n")
    turned = read_dataset(FlickrTrimodal().prepare(raw, tmp_path / "turned"))
    assert dict(zip(turned.item_ids, turned.item_split, strict=True)) == parts[0]


def test_what_cannot_be_used_is_listed_and_the_rest_goes_on(tmp_path: Path) -> None:
    extra = "p1.jpg,a sixth\nq.jpg,only one\n,no picture\nq.jpg,' .'\nq.jpg,a,comma\n"
    raw = make(tmp_path / "raw", extra=extra)
    (raw / "audio" / "p2.ogg").unlink()
    card = FlickrTrimodal().prepare(raw, tmp_path / "out")
    dataset = read_dataset(card)
    assert set(dataset.items[2].content) == {"image", "text"}
    assert set(dataset.items[10].content) == set()  # a picture and a clip that are not there, one caption
    listed = (tmp_path / "out" / "rejected.csv").read_text()
    for row, reason in (
        (51, "caption 6 of the photograph, expected at most 5"),
        (53, "no image"),
        (54, "expected words"),
        (55, "got 3 columns, expected 2"),
        (0, "got 1 captions, expected 5"),
        (0, f"no file {raw / 'images' / 'q.jpg'}"),
        (0, f"no file {raw / 'audio' / 'p2.ogg'}"),
    ):
        assert any(f",{row}," in line and reason in line for line in listed.splitlines()), reason


def test_files_inside_the_folder_are_named_relative_to_it(tmp_path: Path) -> None:
    raw = make(tmp_path / "out" / "raw")
    FlickrTrimodal().prepare(raw, tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "moved")
    assert read_dataset(tmp_path / "moved").items[0].content["image"].is_file()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"no captions.csv here, expected captions.csv, images, audio"),
        ("", r"got the columns , expected image, caption"),
        ("picture,words\n", r"got the columns picture, words, expected image, caption"),
        ("image,caption\n", r"no captions, expected rows of image,caption"),
        ("image,caption\na.jpg,.\na.jpg,!\na.jpg,a dog\n", r"2 of 3 are bad, expected at most 50%"),
        (b"image,caption\n\xff\xfe", r"cannot be read .*expected CSV in UTF-8"),
    ],
)  # fmt: skip
def test_broken_files_are_one_clear_line(tmp_path: Path, content: str | bytes | None, message: str) -> None:
    raw = make(tmp_path / "raw")
    (raw / "captions.csv").unlink()
    if content is not None:
        (raw / "captions.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError, match=message) as error:
        FlickrTrimodal().prepare(raw, tmp_path / "out")
    assert "\n" not in str(error.value)


def test_a_root_is_needed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no root given, expected a folder with captions.csv, images, audio"):
        FlickrTrimodal().prepare(None, tmp_path)


def test_spoken_words() -> None:
    assert transcript_of('The man \'s "No. 5" T-shirt ; dog !') == "the man's no 5 t shirt dog"
    assert transcript_of("'Two dogs' tails'") == "two dogs tails"
    assert transcript_of(" . ") == ""


@pytest.mark.data
@pytest.mark.skipif(not REAL.is_dir(), reason="the real data is not at ../shared/data/flickr-trimodal")
def test_the_real_set_is_whole(tmp_path: Path) -> None:
    dataset = read_dataset(FlickrTrimodal().prepare(REAL, tmp_path))
    assert dataset.presence.sum(0).tolist() == [400, 400, 400]
    assert all(len(item.content["text"]) == 4 for item in dataset.items)
    assert Counter(dataset.item_split) == {"train": 280, "test": 80, "validation": 40}
    assert len(dataset.rejected) == 0
