"""Scenes of digits: the same for the same seed, boxes on the ink, parts that share neither hand nor voice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.ops import box_iou

from mmattn.data.reader import read_dataset
from mmattn.errors import InputError
from mmattn_datasets.scenes.draw import DIGITS, PARTS, drawings_for_part, make_scenes
from mmattn_datasets.scenes.prepare import Scenes
from mmattn_datasets.scenes.queries import (
    FsddAudio,
    SyntheticAudio,
    boxes_of_digit,
    make_queries,
    query_phrases,
)

SPEAKERS = ("ann", "bob", "cyd")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve takes a digit and speaker; sample 0 says who speaks, so that a mix-up would show."""
    root = tmp_path_factory.mktemp("fsdd")
    (root / "recordings").mkdir()
    for digit in range(10):
        for position, speaker in enumerate(SPEAKERS):
            for index in range(12):
                tone = np.full(101, (position + 1) / 8, np.float32)
                soundfile.write(root / "recordings" / f"{digit}_{speaker}_{index}.flac", tone, 8000)
    return root


def test_a_scene_is_what_its_seed_says() -> None:
    first, again, other = (make_scenes(5, seed=seed) for seed in (3, 3, 4))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, again, strict=True))
    assert [scene.boxes.labels for scene in first] == [scene.boxes.labels for scene in again]
    assert not np.array_equal(first[0].image, other[0].image)
    assert not np.array_equal(first[0].image, make_scenes(1, "test", seed=3)[0].image)


def test_parts_share_no_handwriting_whatever_the_seed() -> None:
    rows = [set(drawings_for_part(part).tolist()) for part in PARTS]
    assert [len(each) for each in rows] == [1258, 180, 359]
    assert len(rows[0] | rows[1] | rows[2]) == 1797
    digits = load_digits(return_X_y=True)[1]
    for part, group in zip(PARTS, rows, strict=True):
        assert set(digits[sorted(group)].tolist()) == set(range(10))
        for scene in make_scenes(23, part, seed=7):
            assert set(scene.drawings) <= group
            assert [DIGITS[digits[row]] for row in scene.drawings] == list(scene.boxes.labels)


def test_boxes_lie_inside_and_hardly_overlap() -> None:
    for scene in make_scenes(53, seed=11):
        boxes = scene.boxes.boxes
        assert 2 <= len(boxes) <= 7
        assert scene.boxes.size == scene.image.shape == (96, 96)
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= 96).all()
        assert scene.boxes.area.min() > 30
        assert (box_iou(boxes, boxes) - torch.eye(len(boxes))).max() < 0.12


def test_a_box_holds_the_ink_and_fits_it() -> None:
    """Without noise and clutter, digits are the only bright pixels, right up to each edge of their box."""
    for scene in make_scenes(17, seed=2, noise=0, clutter=0, digits=(1, 1)):
        left, top, right, bottom = scene.boxes.boxes[0].int().tolist()
        paper = np.median(scene.image)
        bright = scene.image > paper + 26  # more than the sheet's own slope
        outside = bright.copy()
        outside[top:bottom, left:right] = False
        assert not outside.any()
        rows, columns = np.nonzero(bright)
        actual = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert np.abs(actual - [left, top, right, bottom]).max() <= 3


def test_pixels_are_what_networks_take() -> None:
    scene = make_scenes(1, size=101)[0]
    assert scene.pixels.dtype == torch.uint8
    assert scene.pixels.shape == (3, 101, 101)
    assert torch.equal(scene.pixels[2], torch.from_numpy(scene.image))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_scenes(1, "dev"), "got part 'dev', expected train, validation, test"),
        (lambda: make_scenes(1, size=40), "got size 40, expected at least 64 pixels"),
        (lambda: make_scenes(1, size=64, digits=(2, 9)), r"got digits \(2, 9\), expected 1 to 3 at 64"),
        (lambda: make_queries([], queries_per_scene=11), "got queries_per_scene=11, expected 1 to 10"),
        (lambda: make_queries([], absent_rate=1.5), "got absent_rate=1.5, expected 0 to 1"),
        (lambda: Scenes().prepare(None, "x", items=3), "got items 3, expected at least 10"),
        (lambda: Scenes().prepare(None, "x", heldout_speakers=("theo",)), "heldout_speakers and no root"),
    ],
)
def test_arguments_out_of_range(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_crowded_scenes_do_not_hang() -> None:
    assert all(len(scene.boxes) == 3 for scene in make_scenes(29, size=64, digits=(3, 3)))


def test_queries_ask_for_what_is_there_and_what_is_not() -> None:
    scenes = make_scenes(301, seed=5)
    queries = make_queries(scenes, seed=1, absent_rate=0.2)
    assert 0.15 < np.mean([len(query.boxes) == 0 for query in queries]) < 0.25
    for query in queries:
        word = DIGITS[query.digit]
        assert len(query.boxes) == query.scene.boxes.labels.count(word)
        assert query.phrase in query_phrases(query.digit)
        assert word[:3] in query.phrase
        assert query.clip == (query.recording.samples, 8000)
    several = next(query for query in queries if len(query.boxes) > 1)
    wanted = [
        box
        for box, label in zip(several.scene.boxes.boxes.tolist(), several.scene.boxes.labels, strict=True)
        if label == DIGITS[several.digit]
    ]
    assert several.boxes.boxes.tolist() == wanted


def test_a_scene_is_never_asked_the_same_twice() -> None:
    scenes = make_scenes(31)
    queries = make_queries(scenes, queries_per_scene=10, absent_rate=0.5)
    assert len(queries) == 310
    for scene in scenes:
        assert sorted(query.digit for query in queries if query.scene is scene) == list(range(10))


def test_absent_digits_have_no_boxes_but_a_size() -> None:
    scene = make_scenes(1)[0]
    lacking = next(digit for digit in range(10) if DIGITS[digit] not in scene.boxes.labels)
    assert (len(boxes_of_digit(scene, lacking)), boxes_of_digit(scene, lacking).size) == (0, (96, 96))


def test_recordings_keep_to_their_part(recordings: Path) -> None:
    train, validation, test = (FsddAudio(recordings, part) for part in PARTS)
    assert [len(sounds.files) for sounds in (train, validation, test)] == [60, 150, 150]
    assert {int(path.stem.split("_")[2]) for path in test.files} == {0, 1, 2, 3, 4}
    assert not {*train.files} & {*validation.files}
    take = train.sample(7, np.random.default_rng(0))
    assert take.path is not None
    assert take.path.name.startswith("7_")
    assert take.samples[0] == (SPEAKERS.index(take.speaker) + 1) / 8


def test_speakers_held_out_ask_in_the_test_only(recordings: Path) -> None:
    train, validation, test = (FsddAudio(recordings, part, heldout_speakers=("bob",)) for part in PARTS)
    assert len(test.files) == 120  # all of his, not only the official test part
    assert {path.stem.split("_")[1] for path in test.files} == {"bob"}
    assert {path.stem.split("_")[1] for path in [*train.files, *validation.files]} == {"ann", "cyd"}


def test_wrong_recordings(recordings: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no speaker 'bop'\. Did you mean 'bob'\?"):
        FsddAudio(recordings, "test", heldout_speakers=("bop",))
    with pytest.raises(InputError, match="no recordings called"):
        FsddAudio(tmp_path, "test")
    with pytest.raises(InputError, match="no recording of zero for the part 'train'"):
        FsddAudio(recordings, "train", heldout_speakers=SPEAKERS)


def test_prepared_folder(tmp_path: Path) -> None:
    data = read_dataset(Scenes().prepare(None, tmp_path, items=30, queries_per_scene=2, seed=1))
    assert data.modalities == ("image", "text", "audio")
    assert data.presence.all()
    assert len(data.rejected) == 0
    table = pq.read_table(tmp_path / "items.parquet").to_pylist()
    assert [sum(row["split"] == part for row in table) for part in PARTS] == [42, 6, 12]
    row = table[-1]
    picture = Image.open(tmp_path / row["image"])
    assert picture.size == (96, 96)
    assert np.array_equal(np.asarray(picture), make_scenes(6, "test", seed=1)[-1].image)
    assert {actual["label"] for actual in row["boxes"]} <= {row["digit"]}
    answers = [actual for actual in row["scene_boxes"] if actual["label"] == row["digit"]]
    assert row["boxes"] == answers
    assert data.targets["boxes"][-1].boxes.tolist() == [answer["box"] for answer in answers]
    assert data.targets["scene_boxes"][-1].labels == make_scenes(6, "test", seed=1)[-1].boxes.labels
    assert soundfile.info(tmp_path / row["audio"]).samplerate == 8000


def test_prepared_with_recordings(tmp_path: Path, recordings: Path) -> None:
    read_dataset(Scenes().prepare(recordings, tmp_path, items=20, heldout_speakers=("cyd",)))
    table = pq.read_table(tmp_path / "items.parquet").to_pylist()
    assert {row["speaker"] for row in table if row["split"] == "test"} == {"cyd"}
    assert {row["speaker"] for row in table if row["split"] != "test"} == {"ann", "bob"}
    assert all(Path(row["audio"]).is_file() for row in table)


def test_sound_patterns_differ_from_take_to_take() -> None:
    generator = np.random.default_rng(0)
    takes = [SyntheticAudio().sample(3, generator) for _ in range(20)]
    assert len({take.speaker for take in takes}) > 3
    assert not np.array_equal(takes[0].samples[:3000], takes[1].samples[:3000])
