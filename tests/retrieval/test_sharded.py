"""Shards: what one index finds, changed and saved as one, and every damage named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmattn.errors import InputError
from mmattn.retrieval.index import Index
from mmattn.retrieval.open_index import open_index
from mmattn.retrieval.search import engine
from mmattn.retrieval.search.exact import METRICS, Metric
from mmattn.retrieval.sharded import ShardedIndex
from mmattn.retrieval.storage import bundle
from mmattn.retrieval.storage.manifest import manifest_text

RNG = np.random.default_rng(0)
VECTORS = RNG.standard_normal((307, 11)).astype(np.float32)
NAMES = [f"i{number}" for number in range(307)]
QUERIES = RNG.standard_normal((13, 11)).astype(np.float32)
ORIGIN = {"weights": "aaaa"}


def part(start: int, end: int, metric: Metric = "ip", **options: Any) -> Index:
    given: dict[str, Any] = {"metadata": {"year": np.arange(start, end)}, **options}
    return Index.build(VECTORS[start:end], NAMES[start:end], metric, **given)


def same(ours: Index | ShardedIndex, whole: Index | ShardedIndex) -> None:
    """Do both find the same, by vector, by id, with filters of either kind?"""
    assert len(ours) == len(whole)
    some = whole.ids[::3].tolist()
    for k, filters in (
        (7, {}),
        (len(whole), {}),
        (9, {"where": "year > 190 and year < 230"}),
        (9, {"allowed_ids": some}),
        (200, {"where": "year > 100", "allowed_ids": some}),
    ):
        actual, expected = ours.search(QUERIES, k, **filters), whole.search(QUERIES, k, **filters)  # type: ignore[arg-type]
        assert actual.ids.tolist() == expected.ids.tolist()
        assert actual.scores == pytest.approx(expected.scores, rel=1e-5, abs=1e-5)
    queries = [some[1], some[5], some[-1]]
    assert ours.search_ids(queries, 8).ids.tolist() == whole.search_ids(queries, 8).ids.tolist()
    assert (ours.vectors(queries) == whole.vectors(queries)).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shards", [1, 2, 5])
def test_shards_find_what_one_index_finds(metric: Metric, shards: int, tmp_path: Path) -> None:
    whole = part(0, 307, metric, provenance=ORIGIN)
    split = ShardedIndex.from_index(whole, shards)
    assert [len(shard) for shard in split.shards] == np.diff(
        np.linspace(0, 307, shards + 1).astype(int)
    ).tolist()
    same(split, whole)
    split.save(tmp_path / "films")
    opened = open_index(tmp_path / "films")
    assert isinstance(opened, ShardedIndex)
    assert (opened.provenance, opened.metric, opened.dim) == (ORIGIN, metric, 11)
    assert opened.ids.tolist() == NAMES
    assert opened.metadata.year.tolist() == list(range(307))
    same(opened, whole)


def test_approximate_indexes_split_into_approximate_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "EXACT_BELOW", 1000)
    centres = RNG.standard_normal((31, 16))
    points = (centres[RNG.integers(31, size=8009)] + 0.4 * RNG.standard_normal((8009, 16))).astype(np.float32)
    whole = Index.build(points, kind="ann", target_recall=0.9)
    split = ShardedIndex.from_index(whole, 3)
    assert "3 shards side by side" in split.plan().reason
    assert split.plan().target_recall >= 0.9
    truth, actual = whole.search(points[:200], 10, exact=True), split.search(points[:200], 10)
    assert (actual.ids[:, :, None] == truth.ids[:, None, :]).any(2).mean() >= 0.88
    assert split.search(points[:200], 10, exact=True).ids.tolist() == truth.ids.tolist()


def test_shards_change_as_one_index_does(tmp_path: Path) -> None:
    whole, split = part(0, 250), ShardedIndex.from_index(part(0, 250), 3)
    for index in (whole, split):
        index.remove(NAMES[40:130])
        index.add(VECTORS[250:], NAMES[250:], metadata={"year": np.arange(250, 307)})
        index.update(VECTORS[:3] * 2, [NAMES[200], NAMES[2], NAMES[300]], metadata={"year": [9, 8, 7]})
    assert NAMES[300] in split
    assert NAMES[50] not in split
    same(split, whole)
    split.save(tmp_path)
    same(open_index(tmp_path), whole)
    split.remove(split.ids.tolist())
    with pytest.raises(InputError, match="the index is empty"):
        split.search(QUERIES)
    split.save(tmp_path)
    empty = open_index(tmp_path)
    empty.add(VECTORS[:5], [1, 2, 3, 4, 5], metadata={"year": [1] * 5})
    assert empty.search(VECTORS[:1], 1).ids.dtype == np.int64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.add(VECTORS[:1], ["i7"], metadata={"year": [1]}), "id 'i7' is there already"),
        (lambda s: s.add(VECTORS[:1], [7], metadata={"year": [1]}), "expected text as in the index"),
        (lambda s: s.add(VECTORS[:1], ["new"]), "expected ['year'] as in the index"),
        (lambda s: s.add(VECTORS[:1], ["new"], provenance=ORIGIN), "vectors of another origin"),
        (lambda s: s.update(VECTORS[:2], ["i7", "i9999"], metadata={"year": [1, 2]}), "first is 'i9999'"),
        (lambda s: s.remove(["i7", "i9999"]), "first is 'i9999'"),
        (lambda s: s.search(QUERIES, 308), "got k=308, expected 1 to 307"),
        (
            lambda s: s.search(QUERIES, allowed_ids=["i7", "i9999"]),
            "filter: 1 unknown ids, the first is 'i9999'",
        ),
        (lambda s: s.search(QUERIES, where="yaer > 3"), "no column 'yaer'"),
        (lambda s: s.search(QUERIES[:, :3]), "got width 3, expected 11"),
        (lambda s: s.search(np.full((1, 11), np.nan)), "the first is query 0"),
        (lambda s: s.search_ids(["i9999"]), "first is 'i9999'"),
        (lambda s: s.search_ids(["i9"], 307), "got k=307, expected 1 to 306"),
    ],
)
def test_what_shards_refuse_changes_nothing(change: Callable[[ShardedIndex], object], message: str) -> None:
    split = ShardedIndex.from_index(part(0, 307), 3)
    with pytest.raises(InputError) as caught:
        change(split)
    assert message in str(caught.value)
    same(split, part(0, 307))


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ([], "got no shards"),
        ([part(0, 5), part(4, 9)], "id 'i4' is in two shards"),
        ([part(0, 5), part(5, 9, "l2")], "shard 1 has width 11 and metric l2"),
        ([part(0, 5), part(5, 9, metadata={"x": [1] * 4})], "shard 1 has metadata columns ['x']"),
        ([part(0, 5), Index.build(VECTORS[:2], [1, 2], metadata={"year": [1, 2]})], "text and whole numbers"),
        (
            [part(0, 5, provenance=ORIGIN), part(5, 9, provenance={"weights": "b"})],
            "come from b, expected aaaa",
        ),
    ],
)
def test_shards_that_do_not_fit(shards: list[Index], message: str) -> None:
    with pytest.raises(InputError) as caught:
        ShardedIndex(shards)
    assert message in str(caught.value)


@pytest.mark.parametrize("shards", [0, 308, True, 2.5])
def test_a_number_of_shards_that_cannot_be(shards: Any) -> None:
    with pytest.raises(InputError, match=f"split: got {shards!r} shards, expected 1 to 307"):
        ShardedIndex.from_index(part(0, 307), shards)


def test_a_new_state_replaces_the_old_one_whatever_the_kind(tmp_path: Path) -> None:
    whole = part(0, 307)
    whole.save(tmp_path)
    ShardedIndex.from_index(whole, 3).save(tmp_path)
    assert sorted(path.name[:5] for path in tmp_path.iterdir()) == ["manif", "part-", "part-", "part-"]
    reader = open_index(tmp_path)
    split = open_index(tmp_path)
    split.remove(NAMES[:9])  # two of the three shards stay as they are, and are not written twice
    kept = {path.name for path in tmp_path.glob("part-*")}
    split.save(tmp_path)
    assert len(kept & {path.name for path in tmp_path.glob("part-*")}) == 2
    assert len(list(tmp_path.iterdir())) == 4
    same(reader, whole)  # who has it open keeps reading
    whole.save(tmp_path)
    assert not list(tmp_path.glob("part-*"))
    same(open_index(tmp_path), whole)


def test_a_shard_that_is_missing_or_another_one_is_named(tmp_path: Path) -> None:
    ShardedIndex.from_index(part(0, 307), 2).save(tmp_path / "a")
    ShardedIndex.from_index(part(0, 300), 2).save(tmp_path / "b")
    ours, theirs = sorted((tmp_path / "a").glob("part-*"))[0], sorted((tmp_path / "b").glob("part-*"))[0]
    ours.rename(tmp_path / "aside")
    assert bundle.find_damage(tmp_path / "a") == [f"{ours.name}: it is missing"]
    theirs.rename(ours)  # whole in itself, but not the one that the manifest means
    (problem,) = bundle.find_damage(tmp_path / "a")
    assert problem.startswith(f"{ours.name}/manifest.json: ")
    with pytest.raises(InputError, match=ours.name):
        open_index(tmp_path / "a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["index"].update(count=306), "the shards hold 307 items, the manifest says 306"),
        (
            lambda m: m["index"].update(kind="maxsim"),
            "manifest.json does not describe an index of this version",
        ),
        (lambda m: m["index"].update(kind="x"), "holds 'x', expected one of index, shards, maxsim, fused"),
        (lambda m: m["parts"]["00000"].update(name="../../etc"), "names its files wrongly"),
        (lambda m: m["parts"].clear(), "got no shards"),
    ],
)
def test_a_manifest_of_shards_that_lies(
    change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path
) -> None:
    ShardedIndex.from_index(part(0, 307), 2).save(tmp_path)
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["sha256"]
    change(manifest)
    path.write_text(manifest_text(manifest))
    with pytest.raises(InputError) as caught:
        open_index(tmp_path)
    assert message in str(caught.value)
