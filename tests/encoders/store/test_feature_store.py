from __future__ import annotations

import csv
import errno
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from counting import Counting
from PIL import Image

from mmattn.encoders.base import EncoderCard
from mmattn.encoders.store import shards
from mmattn.encoders.store.feature_store import FeatureStore
from mmattn.encoders.store.rejected_content import RejectedContent
from mmattn.encoders.text.tiny_text import TinyText
from mmattn.errors import InputError, PluginError
from mmattn.types import Tokens

TEXTS = [f"text {'x' * (number % 11)} {number}" for number in range(53)]


def open_store(root: Path, encoder: Counting | None = None, **options: Any) -> FeatureStore:
    settings = {"batch_size": 5, "shard_size": 10, "progress": False, **options}
    return FeatureStore(root, encoder or Counting(), **settings)


def assert_equal(found: Tokens, expected: Tokens) -> None:
    assert found.lengths.tolist() == expected.lengths.tolist()
    assert torch.equal(found.values, expected.values)
    assert torch.equal(found.position, expected.position)
    assert found.time is not None
    assert expected.time is not None
    assert torch.equal(found.time, expected.time)


def stored_files(store: FeatureStore, kind: str) -> list[Path]:
    return sorted((store.folder / kind).iterdir())


class TestWhatComesBack:
    def test_is_what_the_encoder_gives(self, tmp_path: Path) -> None:
        contents = [None, *TEXTS, None, TEXTS[3], ""]
        assert_equal(open_store(tmp_path).tokens(contents), Counting()(contents))

    def test_in_any_order_and_selection(self, tmp_path: Path) -> None:
        store = open_store(tmp_path)
        store.tokens(TEXTS)
        chosen = [TEXTS[17], None, TEXTS[2], TEXTS[51]]
        assert_equal(store.tokens(chosen), Counting()(chosen))
        assert len(store.encoder.encoded) == len(TEXTS)

    def test_of_nothing(self, tmp_path: Path) -> None:
        store = open_store(tmp_path)
        assert len(store.tokens([])) == 0
        assert store.tokens([None, None]).lengths.tolist() == [0, 0]
        assert store.tokens(["12345"]).lengths.tolist() == [0]  # a text of five letters has no tokens here

    def test_in_half_precision(self, tmp_path: Path) -> None:
        tokens = open_store(tmp_path, dtype="float16").tokens(TEXTS)
        assert tokens.dtype == torch.float16
        assert torch.equal(tokens.values, Counting()(TEXTS).values.half())

    def test_is_mapped_from_the_file(self, tmp_path: Path) -> None:
        store = open_store(tmp_path)
        tokens = store.tokens(TEXTS)
        maps = Path("/proc/self/maps")
        if not maps.exists():
            pytest.skip("only Linux tells what is mapped")
        assert str(stored_files(store, "views")[0]) in maps.read_text()
        before = tokens.values[0, 0].item()
        tokens.values[0, 0] = before + 1  # the memory is the process's own: the file does not change
        assert store.tokens(TEXTS).values[0, 0].item() == before


class TestOnce:
    def test_a_second_store_encodes_nothing(self, tmp_path: Path) -> None:
        first = open_store(tmp_path).tokens(TEXTS)
        again = open_store(tmp_path)
        assert_equal(again.tokens(TEXTS), first)
        assert again.encoder.encoded == []

    def test_equal_contents_are_encoded_once(self, tmp_path: Path) -> None:
        store = open_store(tmp_path)
        tokens = store.tokens(["same"] * 17 + ["other"])
        assert sorted(store.encoder.encoded) == ["other", "same"]
        assert tokens.lengths.tolist() == [4] * 17 + [0]

    def test_only_a_changed_picture_is_encoded_again(self, tmp_path: Path) -> None:
        from mmattn.encoders.image.timm_image import TimmImage

        class Few(TimmImage):
            count = 0

            def encode(self, contents: Any) -> Tokens:
                self.count += sum(content is not None for content in contents)
                return super().encode(contents)

        source = TimmImage("test_resnet", weights=None, frozen=False)
        torch.save(source.trained.state_dict(), tmp_path / "weights.pth")
        paths = [tmp_path / f"{number}.png" for number in range(7)]
        for number, path in enumerate(paths):
            Image.new("RGB", (9, 9), (30 * number, 0, 0)).save(path)
        encoder = Few("test_resnet", weights=tmp_path / "weights.pth")
        before = FeatureStore(tmp_path, encoder, progress=False).tokens(paths)
        assert encoder.count == 7
        Image.new("RGB", (9, 9), (0, 200, 0)).save(paths[4])
        after = FeatureStore(tmp_path, encoder, progress=False).tokens(paths)
        assert encoder.count == 8
        same = [torch.equal(entry, other) for entry, other in zip(before, after, strict=True)]
        assert same == [True] * 4 + [False] + [True] * 2

    def test_like_lengths_go_together_longest_first(self, tmp_path: Path) -> None:
        store = open_store(tmp_path)
        store.tokens(TEXTS)
        lengths = [len(text) for text in store.encoder.encoded]
        assert lengths == sorted(lengths, reverse=True)


class TestProvenance:
    def test_the_folder_belongs_to_the_card(self, tmp_path: Path) -> None:
        folders = {
            open_store(tmp_path, encoder, dtype=dtype).folder
            for encoder in (Counting(), Counting(revision="2"))
            for dtype in ("float32", "float16")
        }
        assert len(folders) == 4

    def test_the_card_lies_in_it(self, tmp_path: Path) -> None:
        store = open_store(tmp_path, dtype="float16")
        store.tokens(TEXTS)
        card = EncoderCard(**json.loads((store.folder / "card.json").read_text()))
        assert card == replace(Counting().describe(), dtype="float16")
        assert store.folder.name == f"counting-{card.fingerprint()[:16]}"


class TestRejected:
    CONTENTS = ("good", "bad one", None, "bad two", "fine", "bad one")
    IDS = ("a", "b", "c", "d", "e", "f")
    LISTED = (
        RejectedContent("b", "text", "bad one is no good"),
        RejectedContent("d", "text", "bad two is no good"),
        RejectedContent("f", "text", "bad one is no good"),
    )

    @pytest.mark.parametrize("late", [False, True], ids=["when read", "when encoded"])
    def test_are_listed_and_the_rest_goes_on(self, tmp_path: Path, late: bool) -> None:
        store = open_store(tmp_path, Counting(late=late))
        tokens = store.tokens(self.CONTENTS, ids=self.IDS)
        assert tokens.lengths.tolist() == [4, 0, 0, 0, 4, 0]
        assert store.rejected == list(self.LISTED)

    def test_are_remembered(self, tmp_path: Path) -> None:
        open_store(tmp_path).tokens(self.CONTENTS, ids=self.IDS)
        again = open_store(tmp_path)
        again.encoder.refuse = None  # type: ignore[method-assign, assignment]  # nothing is tried again
        again.tokens(self.CONTENTS, ids=self.IDS)
        assert again.rejected == list(self.LISTED)
        again.tokens(["bad two", "good"], ids=["x", "y"])
        assert again.rejected[-1] == RejectedContent("x", "text", "bad two is no good")

    def test_of_a_content_that_is_mended_no_more(self, tmp_path: Path) -> None:
        store = open_store(tmp_path)
        store.tokens(["bad"], ids=["a"])
        store.tokens(["mended"], ids=["a"])
        assert store.rejected == []

    def test_are_written(self, tmp_path: Path) -> None:
        store = open_store(tmp_path)
        store.tokens(['bad, "very"\nbad'], ids=["a"])
        store.write_rejected(tmp_path / "rejected.csv")
        with (tmp_path / "rejected.csv").open(newline="") as file:
            rows = list(csv.reader(file))
        assert rows == [["id", "modality", "reason"], ["a", "text", 'bad, "very"\nbad is no good']]

    def test_a_missing_file_is_tried_again(self, tmp_path: Path) -> None:
        store = open_store(tmp_path)
        path = tmp_path / "poster.jpg"
        assert store.tokens([path, "good"], ids=["a", "b"]).lengths.tolist() == [0, 4]
        assert "cannot open" in store.rejected[0].reason
        path.write_bytes(b"1")
        store.tokens([path, "good"], ids=["a", "b"])
        assert store.rejected == []

    def test_values_that_are_not_finite(self, tmp_path: Path) -> None:
        store = open_store(tmp_path)
        assert store.tokens(["good", "infinite"]).lengths.tolist() == [4, 0]
        assert store.rejected == [
            RejectedContent("1", "text", "the encoder gave values that are not finite in float32")
        ]


class TestDamage:
    def damage(self, path: Path, how: str) -> None:
        data = bytearray(path.read_bytes())
        if how == "torn":
            data = data[: len(data) // 2]
        elif how == "flipped":
            data[-1] ^= 1
        elif how == "garbage":
            data = bytearray(os.urandom(len(data)))
        elif how == "empty":
            data = bytearray()
        path.write_bytes(data)

    @pytest.mark.parametrize("how", ["torn", "flipped", "garbage", "empty"])
    def test_of_anything_is_found_and_mended(self, tmp_path: Path, how: str) -> None:
        expected = Counting()(TEXTS)
        store = open_store(tmp_path)
        store.tokens(TEXTS)
        self.damage(stored_files(store, "views")[0], how)
        self.damage(max(stored_files(store, "shards"), key=lambda path: path.stat().st_size), how)
        again = open_store(tmp_path)
        assert_equal(again.tokens(TEXTS), expected)
        assert len(again.encoder.encoded) == 10  # one shard
        third = open_store(tmp_path)
        assert_equal(third.tokens(TEXTS), expected)
        assert third.encoder.encoded == []

    def test_views_are_made_again_without_encoding(self, tmp_path: Path) -> None:
        store = open_store(tmp_path)
        store.tokens(TEXTS)
        for path in stored_files(store, "views"):
            path.unlink()
        assert_equal(store.tokens(TEXTS), Counting()(TEXTS))
        assert len(store.encoder.encoded) == len(TEXTS)

    def test_a_full_disk_leaves_what_was_whole(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        written: list[int] = []
        original = shards._bytes

        def full_after_a_while(tensor: torch.Tensor) -> memoryview:
            written.append(tensor.nbytes)
            if sum(written) > 4000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(tensor)

        store = open_store(tmp_path)
        monkeypatch.setattr(shards, "_bytes", full_after_a_while)
        with pytest.raises(InputError, match=r"cannot write to .*No space left on device.*is kept"):
            store.tokens(TEXTS)
        monkeypatch.undo()
        left = stored_files(store, "shards")
        assert left
        assert all(path.suffix == ".safetensors" for path in left)  # nothing half written lies about
        again = open_store(tmp_path)
        assert_equal(again.tokens(TEXTS), Counting()(TEXTS))
        assert len(again.encoder.encoded) == len(TEXTS) - 10 * len(left)

    def test_a_bug_in_the_encoder_is_not_hidden(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = open_store(tmp_path)
        monkeypatch.setattr(store.encoder, "row", lambda content: torch.zeros(2, 5))
        with pytest.raises(PluginError, match="encoder 'counting'.* width 5, expected 7"):
            store.tokens(TEXTS)


def test_old_views_go_and_recent_ones_stay(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    kept = store.tokens(TEXTS[:3])
    for count in range(4, 10):
        for path in stored_files(store, "views"):
            os.utime(path, (0, time.time() - 1000))
        store.tokens(TEXTS[:count])
    assert len(stored_files(store, "views")) <= 5
    assert_equal(kept, Counting()(TEXTS[:3]))  # mapped: its file may be gone


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float64"}, "got dtype='float64', expected one of float32, float16"),
        ({"shard_size": 0}, "got shard_size=0"),
        ({"batch_size": 0}, "got batch_size=0"),
    ],
)
def test_options_out_of_range(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_store(tmp_path, **options)


def test_trainable_encoders_have_nothing_to_store(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="encoder 'tiny-text' is trainable, expected a frozen one"):
        FeatureStore(tmp_path, TinyText())


def test_ids_and_contents_go_together(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got 1 ids for 2 contents"):
        open_store(tmp_path).tokens(["a", "b"], ids=["1"])


def test_the_bar_shows_a_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_store(tmp_path, progress=True).tokens(TEXTS)
    shown = capsys.readouterr().err
    assert "encode counting" in shown
    assert "53/53" in shown
    assert "item/s" in shown
    open_store(tmp_path, progress=True).tokens(TEXTS)
    assert capsys.readouterr().err == ""  # nothing to wait for


@pytest.mark.data
def test_the_second_run_starts_at_once(tmp_path: Path) -> None:
    posters = Path(__file__).parents[4] / "shared" / "data" / "ml1m" / "posters"
    if not posters.is_dir():
        pytest.skip(f"needs the posters in {posters}")
    paths = sorted(posters.iterdir())

    class Bytes(Counting):
        def row(self, content: str) -> torch.Tensor:
            return torch.from_numpy(np.random.default_rng(0).normal(size=(9, self.dim))).float()

    Bytes.dim = 1280
    FeatureStore(tmp_path, Bytes(), progress=False).tokens(paths)
    start = time.perf_counter()
    store = FeatureStore(tmp_path, Bytes(), progress=False)
    tokens = store.tokens(paths)
    taken = time.perf_counter() - start
    assert len(tokens.values) == 9 * len(paths)
    assert taken < 2
