"""The embedded data set: the same for the same seed, what the card says, and learnable by plain means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from sklearn.datasets import load_digits

from mmattn.data.card import Card
from mmattn.data.dataset import Dataset
from mmattn.data.reader import read_dataset
from mmattn.errors import InputError
from mmattn_datasets.digits.prepare import Digits
from mmattn_datasets.digits.sounds import DIGIT_PATTERNS, SAMPLE_RATE, synthesize, voices
from mmattn_datasets.digits.words import DIGIT_WORDS, phrase_digit


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return read_dataset(
        Digits().prepare(None, tmp_path_factory.mktemp("digits"), items=701, users=101, seed=5)
    )


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".parquet"
    }


def of(dataset: Dataset, modality: str) -> np.ndarray:
    return np.flatnonzero(dataset.presence[:, dataset.modalities.index(modality)])


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    first, second, other = (
        read_dataset(Digits().prepare(None, tmp_path / name, items=103, users=7, seed=seed))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert files(tmp_path / "a") == files(tmp_path / "b") != files(tmp_path / "c")
    assert [item.content.get("text") for item in first.items] == [
        item.content.get("text") for item in second.items
    ]
    assert first.interactions.items.tolist() == second.interactions.items.tolist()
    assert first.interactions.items.tolist() != other.interactions.items.tolist()


def test_modalities_are_absent_at_the_rate_asked_for_and_never_all(made: Dataset) -> None:
    assert made.modalities == ("image", "text", "audio")
    assert np.abs(made.presence.mean(0) - 0.85).max() < 0.04
    assert made.presence.any(1).all()
    assert len(made.rejected) == 0


def test_every_picture_is_real_and_used_once(made: Dataset) -> None:
    drawings, digits = load_digits(return_X_y=True)
    used = made.labels["drawing"].astype(int)
    assert len(set(used)) == len(made.items) == 701
    assert (digits[used] == made.labels["digit"].astype(int)).all()
    for item in of(made, "image")[:11]:
        with Image.open(made.items[item].content["image"]) as picture:
            assert (picture.size, picture.mode) == ((32, 32), "L")
            small = np.asarray(picture.resize((8, 8), Image.Resampling.BOX), dtype=float)
        assert np.corrcoef(small.ravel(), drawings[used[item]])[0, 1] > 0.95


def test_texts_say_the_digit_in_the_language_of_the_label(made: Dataset) -> None:
    for item in of(made, "text"):
        (text,) = made.items[item].content["text"]
        word = DIGIT_WORDS[made.labels["language"][item]][int(made.labels["digit"][item])]
        assert word.casefold() in text.casefold() or word.upper() in text
    assert set(made.labels["language"]) == {*DIGIT_WORDS, ""}


def test_words_are_of_ten_digits_in_twelve_languages() -> None:
    assert len(DIGIT_WORDS) == 12
    assert all(len(set(words)) == 10 for words in DIGIT_WORDS.values())
    generator = np.random.default_rng(0)
    answer = [phrase_digit(7, "German", generator) for _ in range(500)]
    assert set(answer) >= {"sieben", "Sieben", "SIEBEN", "die Zahl sieben", "Da steht sieben"}
    assert 0.4 < np.mean([len(text.split()) == 1 for text in answer]) < 0.6


def test_sounds_are_short_clips_that_vary(made: Dataset) -> None:
    for item in of(made, "audio")[:11]:
        clip, rate = soundfile.read(made.items[item].content["audio"], dtype="float32")
        assert rate == SAMPLE_RATE == 8000
        assert 0.4 <= len(clip) / rate <= 0.8
        assert 0.2 < np.abs(clip).max() <= 1
    generator = np.random.default_rng(3)
    first, second = (synthesize(8, voices()[1], generator) for _ in range(2))
    assert first.tobytes() != second.tobytes()
    assert len(DIGIT_PATTERNS) == 10
    assert len({voice.name for voice in voices()}) == 8


def test_parts_are_even_and_test_items_are_cold(made: Dataset) -> None:
    split = made.item_split
    assert split is not None
    for digit in map(str, range(10)):
        group = split[made.labels["digit"] == digit]
        shares = [np.mean(group == part) for part in ("train", "validation", "test")]
        assert np.abs(np.array(shares) - [0.7, 0.1, 0.2]).max() < 0.05
    pairs = made.interactions
    assert pairs.split is not None
    assert (pairs.split == split[pairs.items]).all()
    assert pairs.time is not None
    assert (np.diff(pairs.time) >= 0).all()
    assert len(set(zip(pairs.users, pairs.items, strict=True))) == len(pairs)


def test_modalities_can_be_told_apart_by_nearest_neighbours(made: Dataset) -> None:
    """One neighbour in raw features: the digits of unseen items are right nearly always."""
    assert nearest_is_right(made, "image", _pixels) > 0.9
    assert nearest_is_right(made, "audio", _spectrogram) > 0.95


def nearest_is_right(dataset: Dataset, modality: str, features: object) -> float:
    split = dataset.item_split
    assert split is not None
    assert callable(features)
    items = of(dataset, modality)
    x = np.stack([features(dataset.items[item].content[modality]) for item in items])
    x = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    train, test = split[items] == "train", split[items] == "test"
    digits = dataset.labels["digit"][items]
    actual = digits[train][(x[test] @ x[train].T).argmax(1)]
    return float((actual == digits[test]).mean())


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture, dtype=float).ravel()


def _spectrogram(path: Path) -> np.ndarray:
    """[29 moments * 65 frequencies], log magnitudes, the whole clip stretched to 29 moments."""
    clip, _ = soundfile.read(path)
    starts = np.linspace(0, len(clip) - 256, 29).astype(int)
    frames = np.stack([clip[start : start + 256] * np.hanning(256) for start in starts])
    return np.log(np.abs(np.fft.rfft(frames))[:, :65] + 0.1).ravel()


def test_collectors_have_tastes_that_cold_items_show(made: Dataset) -> None:
    """Users' rates for a digit in training predict what they pick among unseen items, far above chance."""
    pairs, split = made.interactions, made.item_split
    assert split is not None
    digits = made.labels["digit"].astype(int)
    seen = np.zeros((len(made.users), len(made.items)))
    seen[pairs.users, pairs.items] = 1
    train, test = np.flatnonzero(split == "train"), np.flatnonzero(split == "test")
    taste = np.stack([seen[:, train][:, digits[train] == digit].mean(1) for digit in range(10)], axis=1)
    ranked = np.argsort(-taste[:, digits[test]], axis=1, kind="stable")[:, :20]
    truth = seen[:, test]
    hits = np.take_along_axis(truth, ranked, axis=1).sum(1)
    wanted = truth.sum(1)
    recall = (hits[wanted > 0] / wanted[wanted > 0]).mean()
    assert recall > 2 * 20 / len(test)


def test_the_card_says_what_is_simulated(made: Dataset) -> None:
    assert made.card.path is not None
    card = Card.load(made.card.path)
    assert "simulated" in card.description
    assert "digit" not in [name for item in made.items for name in item.content]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"items": 1798}, "got items 1798, expected 100 to 1797"),
        ({"users": 0}, "got users 0, expected 1 to 100000"),
        ({"missing_rate": 1.0}, "got missing_rate 1.0, expected 0 to 0.9"),
        ({"root": "raw"}, "got root 'raw', expected none: there are no original files"),
    ],
)
def test_arguments_out_of_range(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Digits().prepare(out=tmp_path, **options)  # type: ignore[arg-type]
