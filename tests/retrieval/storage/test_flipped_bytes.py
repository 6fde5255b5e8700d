"""Every flipped byte in every file of every kind of bundle is found, and its file named."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmattn.errors import InputError
from mmattn.retrieval.fused_index import FusedIndex
from mmattn.retrieval.index import Index
from mmattn.retrieval.maxsim import MaxSimIndex
from mmattn.retrieval.sharded import ShardedIndex
from mmattn.retrieval.storage import bundle

VECTORS = np.random.default_rng(0).standard_normal((1009, 3)).astype(np.float32)
NAMES = [f"i{number}" for number in range(1009)]


def part(end: int, kind: str = "auto") -> Index:
    years = {"year": np.arange(end), "tag": ["a"] * end}
    return Index.build(VECTORS[:end], NAMES[:end], metadata=years, provenance={"weights": "aaaa"}, kind=kind)


def plain(folder: Path) -> None:
    part(3).save(folder)


def approximate(folder: Path) -> None:
    part(1009, "ann").save(folder)


def shards(folder: Path) -> None:
    ShardedIndex.from_index(part(5), 2).save(folder)


def maxsim(folder: Path) -> None:
    MaxSimIndex.build([VECTORS[:2], VECTORS[2:5]], NAMES[:2], metadata={"year": [1, 2]}).save(folder)


def fused(folder: Path) -> None:
    FusedIndex({"text": part(3), "image": part(5)}).save(folder)


KINDS: list[tuple[Callable[[Path], None], Callable[[Path], object], set[str]]] = [
    (plain, Index.open, {"vectors", "items", "manifest"}),
    (approximate, Index.open, {"vectors", "items", "manifest", "ann", "places"}),
    (shards, ShardedIndex.open, {"vectors", "items", "manifest"}),
    (maxsim, MaxSimIndex.open, {"vectors", "items", "offsets", "manifest"}),
    (fused, FusedIndex.open, {"vectors", "items", "manifest"}),
]


def flip(folder: Path, open_it: Callable[[Path], object], roles: set[str], most: float) -> int:
    """Flip bytes of each file one by one, all or so many of them; how many that were."""
    rng, tried = random.Random(0), 0
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert {path.stem.split("-")[0] for path in files} == roles
    for path in files:
        whole = path.read_bytes()
        indices = range(len(whole)) if len(whole) <= most else rng.sample(range(len(whole)), int(most))
        for index in indices:
            changed = bytearray(whole)
            changed[index] ^= rng.randrange(1, 256)
            path.write_bytes(changed)
            problems = bundle.find_damage(folder)
            assert len(problems) == 1, (path.name, index)
            assert problems[0].startswith(f"{path.relative_to(folder)}: "), (path.name, index)
        with pytest.raises(InputError, match=path.name):
            open_it(folder)
        path.write_bytes(whole)
        tried += len(indices)
    assert bundle.find_damage(folder) == []
    open_it(folder)
    return tried


@pytest.mark.parametrize(("make", "open_it", "roles"), KINDS)
def test_a_flipped_byte_of_each_file_is_named(
    make: Callable[[Path], None], open_it: Callable[[Path], object], roles: set[str], tmp_path: Path
) -> None:
    make(tmp_path)
    flip(tmp_path, open_it, roles, most=29)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "open_it", "roles"), KINDS)
def test_every_flipped_byte_of_each_file_is_named(
    make: Callable[[Path], None], open_it: Callable[[Path], object], roles: set[str], tmp_path: Path
) -> None:
    make(tmp_path)
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert flip(tmp_path, open_it, roles, most=float("inf")) == size
    print(f"{make.__name__}: {size:,} bytes flipped, each named")
