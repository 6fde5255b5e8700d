"""A kill at any moment leaves the old state or the new one; who opens meanwhile gets one of them whole."""

from __future__ import annotations

import multiprocessing
import random
import re
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmattn.errors import InputError
from mmattn.retrieval.index import Index
from mmattn.retrieval.open_index import open_index
from mmattn.retrieval.sharded import ShardedIndex
from mmattn.retrieval.storage import bundle
from mmattn.retrieval.storage.manifest import FILE_NAME, MANIFEST, PART_NAME, manifest_bytes

ORIGIN = {"encoder text": "aaaa", "weights": "bbbb"}
WIDTH = 31


def made(count: int, kind: str = "auto") -> Index:
    """Item n has vector n and the year n."""
    return Index.build(
        vectors(range(count)), ids(range(count)), metadata=years(range(count)), provenance=ORIGIN, kind=kind
    )


def vectors(numbers: range) -> np.ndarray:
    """Vector n is drawn with the seed n."""
    return np.stack([np.random.default_rng(number).standard_normal(WIDTH) for number in numbers]).astype("f4")


def ids(numbers: range) -> list[str]:
    return [f"item-{number}" for number in numbers]


def years(numbers: range) -> dict[str, Any]:
    return {"year": list(numbers), "tags": [["a", "b"][: number % 3] for number in numbers]}


def is_whole(folder: Path) -> int:
    """Is everything there, and nothing that was never saved? How many items."""
    index: Index | ShardedIndex = open_index(folder)
    numbers = range(len(index))
    assert sorted(index.metadata["year"]) == list(numbers)
    assert set(index.ids) == set(ids(numbers))
    assert (index.vectors(ids(numbers)) == vectors(numbers)).all()
    actual = index.search(index.vectors(ids(numbers[-2:])), 1, where=f"year >= {len(index) - 2}")
    assert actual.ids.shape == (2, 1)
    assert bundle.find_damage(folder) == []
    return len(index)


def keep_adding(folder: Path, pipe: Connection) -> None:
    """Add one item after the other, saying so when it is saved, until killed."""
    index: Index | ShardedIndex = open_index(folder)
    while True:
        new = range(len(index), len(index) + 1)
        index.add(vectors(new), ids(new), metadata=years(new), provenance=ORIGIN)
        index.save(folder)
        pipe.send(len(index))


def keep_starting(folder: Path, pipe: Connection) -> None:
    """Save to one new folder after the other, saying so, until killed."""
    index, number = made(307), 0
    while True:
        pipe.send(number)  # the one before is saved, this one is begun
        index.save(folder / str(number))
        number += 1


def killed(work: Callable[[Path, Connection], None], folder: Path, rng: random.Random) -> int:
    """Let another process work until it is killed at some moment; the last number that it said."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["mmattn.retrieval.index", "mmattn.retrieval.sharded", "test_bundle_kills"]
    )
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=work, args=(folder, theirs))
    child.start()
    theirs.close()
    answer = ours.recv()  # it is at work
    time.sleep(rng.random() * 0.1)
    child.kill()
    child.join()
    try:
        while True:
            answer = ours.recv()
    except EOFError:
        return answer


def half_written(folder: Path) -> bool:
    """Is there anything that has not got its final name?"""
    final = (FILE_NAME, PART_NAME, re.compile(re.escape(MANIFEST)))
    return not all(any(name.fullmatch(path.name) for name in final) for path in folder.iterdir())


def kill_while_adding(folder: Path, times: int) -> None:
    rng, torn = random.Random(0), 0
    for _ in range(times):
        answer = killed(keep_adding, folder, rng)
        torn += half_written(folder)
        assert answer <= is_whole(folder) <= answer + 1
    assert torn  # kills did hit the middle of a save
    print(f"{times} kills, {torn} of them in the middle of a save, nothing lost")


def test_kills_while_adding_lose_nothing(tmp_path: Path) -> None:
    made(2003).save(tmp_path / "films")
    kill_while_adding(tmp_path / "films", 7)


@pytest.mark.slow
def test_two_hundred_kills_lose_nothing(tmp_path: Path) -> None:
    made(2003).save(tmp_path / "films")
    kill_while_adding(tmp_path / "films", 200)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["approximate", "shards"])
def test_kills_lose_nothing_of_other_kinds(kind: str, tmp_path: Path) -> None:
    index = made(2003, "ann") if kind == "approximate" else ShardedIndex.from_index(made(2003), 3)
    assert index.approximate == (kind == "approximate")
    index.save(tmp_path / "films")
    kill_while_adding(tmp_path / "films", 30)


def kill_first_saves(folder: Path, times: int) -> None:
    """What was saved is whole; of what was not there is nothing to open, and it can be saved again."""
    rng, unborn = random.Random(0), 0
    for time_ in range(times):
        tries = folder / f"try-{time_}"
        number = killed(keep_starting, tries, rng)
        for saved in range(number):
            assert is_whole(tries / str(saved)) == 307
        last = tries / str(number)
        if (last / "manifest.json").exists():
            assert is_whole(last) == 307
        else:
            unborn += 1
            with pytest.raises(InputError, match=r"manifest\.json: there is none"):
                open_index(last)
        made(307).save(last)
        assert is_whole(last) == 307
        assert sorted(path.name.split("-")[0] for path in last.iterdir()) == [
            "items", "manifest.json", "vectors",
        ]  # fmt: skip
    assert unborn
    print(f"{times} kills, {unborn} of them before the first save was whole")


@pytest.mark.slow
def test_kills_during_the_first_save(tmp_path: Path) -> None:
    kill_first_saves(tmp_path, 30)


def keep_replacing(folder: Path, pipe: Connection) -> None:
    """Save the same index as one and in three shards, in turn and without a break."""
    entry = made(307)
    three = ShardedIndex.from_index(entry, 3)
    entry.save(folder)
    pipe.send(307)
    while True:
        three.save(folder)
        entry.save(folder)


def test_who_opens_while_another_process_saves_gets_a_whole_state(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=keep_replacing, args=(tmp_path, theirs))
    child.start()
    try:
        ours.recv()
        kinds: set[type] = set()
        opened, last = 0, time.monotonic() + 60
        # Both states, however the scheduler lets the two processes take turns.
        while opened < 25 or (len(kinds) < 2 and time.monotonic() < last):
            opened += 1
            index = open_index(tmp_path)
            kinds.add(type(index))
            assert len(index) == 307
            assert (index.vectors(["item-5"]) == vectors(range(5, 6))).all()
            assert bundle.find_damage(tmp_path) == []
        assert kinds == {Index, ShardedIndex}
    finally:
        child.kill()
        child.join()


def test_a_state_that_went_and_came_back_while_it_was_read_is_no_damage(tmp_path: Path) -> None:
    """The manifest is then as it was, though its files were gone for a moment."""
    made(5).save(tmp_path)
    tries = []

    def build(opened: bundle.OpenedBundle) -> int:
        tries.append(opened.attributes["count"])
        if len(tries) == 1:
            made(6).save(tmp_path)
            made(5).save(tmp_path)
            raise InputError("vectors-….npy: cannot be read as vectors")
        return tries[-1]

    assert bundle.open_bundle(tmp_path, build) == 5
    assert tries == [5, 5]


def test_damage_is_said_though_others_may_write(tmp_path: Path) -> None:
    """Only a manifest that has changed is a reason to read again."""
    made(5).save(tmp_path)
    before = manifest_bytes(tmp_path)
    tries = []

    def build(opened: bundle.OpenedBundle) -> int:
        tries.append(opened.attributes["count"])
        if len(tries) < 3:
            made(5 + len(tries)).save(tmp_path)  # another process, between the check and the reading
        if len(tries) == 2:
            raise FileNotFoundError("vectors-….npy")
        if len(tries) == 1:
            raise InputError("vectors-….npy: cannot be read as vectors")
        return tries[-1]

    assert bundle.open_bundle(tmp_path, build) == 7
    assert tries == [5, 6, 7]
    assert manifest_bytes(tmp_path) != before
    next(tmp_path.glob("vectors-*")).write_bytes(b"x")
    with pytest.raises(InputError, match="got 1 bytes"):
        open_index(tmp_path)
