"""Fused modalities, several vectors an item, tables of vectors: each by its definition."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mmattn.errors import InputError
from mmattn.retrieval.fused_index import FusedIndex
from mmattn.retrieval.index import Index
from mmattn.retrieval.maxsim import MaxSimIndex
from mmattn.retrieval.open_index import open_index
from mmattn.retrieval.search.exact import Metric
from mmattn.retrieval.sharded import ShardedIndex
from mmattn.retrieval.storage.arrow import VectorTable, export_parquet, read_vectors, to_arrow, write_parquet

RNG = np.random.default_rng(0)
VECTORS = RNG.standard_normal((307, 11)).astype(np.float32)
NAMES = [f"i{number}" for number in range(307)]
QUERIES = RNG.standard_normal((13, 11)).astype(np.float32)
ORIGIN = {"weights": "aaaa"}


def part(start: int, end: int, metric: Metric = "ip", origin: dict[str, str] | None = None) -> Index:
    years = {"year": np.arange(start, end)}
    return Index.build(VECTORS[start:end], NAMES[start:end], metric, metadata=years, provenance=origin)


def test_scores_are_weighted_over_what_both_have() -> None:
    """Items 0 to 199 have text, 100 to 306 pictures; by the definition, one by one."""
    text, image = part(0, 200), Index.build(VECTORS[100:, ::-1].copy(), NAMES[100:])
    fused = FusedIndex({"text": text, "image": image}, {"text": 3.0}, depth=307)
    hits = fused.search({"text": QUERIES, "image": QUERIES}, 10)
    for query in range(len(QUERIES)):
        expected = {}
        for row, name in enumerate(NAMES):
            answer = [(3.0, VECTORS[row] @ QUERIES[query])] if row < 200 else []
            answer += [(1.0, VECTORS[row, ::-1] @ QUERIES[query])] if row >= 100 else []
            expected[name] = sum(w * s for w, s in answer) / sum(w for w, _ in answer)
        best = sorted(expected, key=lambda name: -expected[name])[:10]
        assert hits.ids[query].tolist() == best
        assert hits.scores[query] == pytest.approx([expected[name] for name in best], rel=1e-4)
    alone = fused.search({"text": QUERIES}, 10)
    assert alone.ids.tolist() == text.search(QUERIES, 10).ids.tolist()


def test_reciprocal_ranks_by_hand() -> None:
    first = Index.build([[3.0], [2.0], [1.0]], ["a", "b", "c"])
    second = Index.build([[1.0], [2.0], [3.0]], ["a", "b", "d"])
    hits = FusedIndex({"x": first, "y": second}, {"y": 2.0}, method="ranks").search(
        {"x": [[1.0]], "y": [[1.0]]}, 4
    )
    # a: 1/61 + 2/63, b: 1/62 + 2/62, d: 2/61, c: 1/63
    assert hits.ids.tolist() == [["b", "a", "d", "c"]]
    assert hits.scores[0] == pytest.approx([3 / 62, 1 / 61 + 2 / 63, 2 / 61, 1 / 63])


def test_fused_indexes_come_back_from_the_disk(tmp_path: Path) -> None:
    text, image = part(0, 200, origin=ORIGIN), Index.build(VECTORS[100:, ::-1].copy(), NAMES[100:])
    fused = FusedIndex({"text": text, "a picture": image}, {"text": 3.0}, method="ranks", depth=50)
    fused.save(tmp_path / "fused")
    opened = FusedIndex.open(tmp_path / "fused")
    queries = {"text": QUERIES, "a picture": QUERIES}
    assert opened.search(queries, 10).to_lists() == fused.search(queries, 10).to_lists()
    with pytest.raises(InputError, match="come from bbbb, expected aaaa"):
        opened.search(queries, provenance={"text": {"weights": "bbbb"}})
    by_kind = open_index(tmp_path / "fused")
    assert isinstance(by_kind, FusedIndex)
    assert by_kind.search(queries, 10).to_lists() == fused.search(queries, 10).to_lists()
    with pytest.raises(InputError, match="holds one index a modality, for FusedIndex.open"):
        Index.open(tmp_path / "fused")
    some = opened.search(queries, 3, allowed_ids=["i3", "i150", "i300"])
    assert {*some.ids[0]} == {"i3", "i150", "i300"}
    with pytest.raises(InputError, match="filter: 1 unknown ids, the first is 'i999'"):
        opened.search(queries, 3, allowed_ids=["i3", "i999"])


def test_what_cannot_be_fused() -> None:
    text = part(0, 9)
    for arguments, message in (
        (({},), "got no index"),
        (({"text": text}, {"txet": 1.0}), "Did you mean 'text'?"),
        (({"text": text}, {"text": -1.0}), "expected more than 0"),
        (({"text": text, "image": part(0, 9, "l2")},), "cannot be added"),
    ):
        with pytest.raises(InputError) as caught:
            FusedIndex(*arguments)  # type: ignore[arg-type]
        assert message in str(caught.value)
    with pytest.raises(InputError, match="no modality 'txt'"):
        FusedIndex({"text": text}).search({"txt": QUERIES})
    with pytest.raises(InputError, match="at least one modality"):
        FusedIndex({"text": text}).search({})


@pytest.mark.parametrize("metric", ["ip", "cosine"])
@pytest.mark.parametrize("kind", ["exact", "ann"])
def test_maxsim_by_its_definition(metric: Any, kind: str) -> None:
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 8, size=300)
    items = [rng.standard_normal((size, 11)) for size in sizes]
    index = MaxSimIndex.build(items, NAMES[:300], metric, metadata={"n": sizes}, kind=kind, target_recall=0.5)
    assert index.vectors.approximate == (kind == "ann")
    queries = [QUERIES[:3], QUERIES[3:4], QUERIES[4:]]

    def unit(rows: np.ndarray) -> np.ndarray:
        return rows / np.linalg.norm(rows, axis=1, keepdims=True) if metric == "cosine" else rows

    for where, keep in ((None, sizes > 0), ("n < 3", sizes < 3)):
        # Deep enough that the approximate search brings every item in.
        hits = index.search(queries, 5, where=where, depth=len(index.vectors))
        for number, query in enumerate(queries):
            scores = np.array([(unit(query) @ unit(item).T).max(1).sum() for item in items])
            best = np.argsort(-np.where(keep, scores, -np.inf))[:5]
            assert hits.ids[number].tolist() == [NAMES[row] for row in best]
            assert hits.scores[number] == pytest.approx(scores[best], rel=1e-4)


@pytest.mark.parametrize("kind", ["exact", "ann"])
def test_maxsim_changes_and_comes_back_from_the_disk(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    items = [rng.standard_normal((size, 11)) for size in rng.integers(1, 8, size=400)]
    names, years = [f"i{number}" for number in range(400)], np.arange(400)

    def made(rows: np.ndarray) -> MaxSimIndex:
        return MaxSimIndex.build(
            [items[row] for row in rows], [names[row] for row in rows], metadata={"year": years[rows]},
            provenance=ORIGIN, kind="exact",
        )  # fmt: skip

    index = MaxSimIndex.build(
        items[:300], names[:300], metadata={"year": years[:300]}, provenance=ORIGIN, kind=kind,
        target_recall=0.5,
    )  # fmt: skip
    assert index.vectors.approximate == (kind == "ann")
    index.remove(names[50:150])
    index.add(items[300:], names[300:], metadata={"year": years[300:]}, provenance=ORIGIN)
    index.save(tmp_path)
    opened = MaxSimIndex.open(tmp_path)
    expected = made(np.r_[:50, 150:400])
    for query in (None, "year > 310"):
        options: dict[str, Any] = {"where": query, "provenance": ORIGIN, "depth": len(index.vectors)}
        truth = expected.search([QUERIES[:3], QUERIES[3:5]], 7, **options)
        for entry in (index, opened):
            actual = entry.search([QUERIES[:3], QUERIES[3:5]], 7, **options)
            assert actual.ids.tolist() == truth.ids.tolist()
            assert actual.scores == pytest.approx(truth.scores, rel=1e-5)
    group = opened.search_ids(["i7", "i399"], 5, depth=len(index.vectors))
    assert group.ids.tolist() == expected.search_ids(["i7", "i399"], 5).ids.tolist()
    assert opened.search([QUERIES], 2, allowed_ids=["i9", "i160"]).ids.shape == (1, 2)
    with pytest.raises(InputError, match="id 'i7' is there already"):
        opened.add(items[:1], ["i7"], metadata={"year": [1]}, provenance=ORIGIN)
    with pytest.raises(InputError, match="expected object and \\['year'\\] as in the index"):
        opened.add(items[:1], ["new"], provenance=ORIGIN)
    with pytest.raises(InputError, match="unknown ids, the first is 'i51'"):
        opened.remove(["i51"])
    with pytest.raises(InputError, match="come from bbbb, expected aaaa"):
        opened.search([QUERIES], provenance={"weights": "bbbb"})
    assert len(opened) == 300


def test_what_maxsim_refuses() -> None:
    for items, message in (
        ([], "expected at least one"),
        ([np.zeros((0, 3)), np.ones((1, 3))], "id 0 has vectors [0, 3]"),
        ([np.ones((1, 3)), np.ones((1, 4))], "id 1 has vectors [1, 4]"),
        ([np.full((2, 3), np.nan)], "vector 0 of id 0"),
    ):
        with pytest.raises(InputError) as caught:
            MaxSimIndex.build(items)
        assert message in str(caught.value)
    with pytest.raises(InputError, match="got k=2"):
        MaxSimIndex.build([np.ones((1, 3))]).search([np.ones((1, 3))], 2)
    with pytest.raises(InputError, match="query 0: got"):
        MaxSimIndex.build([np.ones((1, 3))]).search([np.ones((1, 4))], 1)


def test_vectors_go_through_parquet(tmp_path: Path) -> None:
    index = part(0, 307, origin=ORIGIN)
    write_parquet(VectorTable.from_index(index), tmp_path / "v.parquet")
    back = read_vectors(tmp_path / "v.parquet")
    assert (back.vectors == VECTORS).all()
    assert back.ids.tolist() == NAMES
    assert back.provenance == ORIGIN
    assert back.metadata.year.tolist() == list(range(307))
    assert str(to_arrow(back).schema.field("vector").type) == "fixed_size_list<item: float>[11]"


@pytest.mark.parametrize("shards", [1, 3])
def test_an_index_is_exported_batch_by_batch(shards: int, tmp_path: Path) -> None:
    # In the first batches nothing says of what kind the tags are.
    more = {"year": np.arange(307), "tag": [None] * 200 + ["late"] * 107}
    index = Index.build(VECTORS, NAMES, metadata=more, provenance=ORIGIN)
    export_parquet(
        index if shards == 1 else ShardedIndex.from_index(index, shards),
        tmp_path / "v.parquet",
        batch_rows=41,
    )
    assert pa.parquet.read_metadata(tmp_path / "v.parquet").num_row_groups == 8
    back = read_vectors(tmp_path / "v.parquet")
    assert (back.vectors == VECTORS).all()
    assert (back.ids.tolist(), back.provenance) == (NAMES, ORIGIN)
    assert back.metadata.year.tolist() == list(range(307))
    assert back.metadata.tag.isna().tolist() == [True] * 200 + [False] * 107
    assert set(back.metadata.tag[200:]) == {"late"}


def test_an_export_holds_a_batch_in_memory_and_not_the_index(tmp_path: Path) -> None:
    vectors = np.random.default_rng(3).standard_normal((50_021, 128)).astype(np.float32)
    Index.build(vectors, kind="exact").save(tmp_path / "index")
    opened = open_index(tmp_path / "index")
    usual, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.system_memory_pool())
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        export_parquet(opened, tmp_path / "v.parquet", batch_rows=4096)
        most = tracemalloc.get_traced_memory()[1] + pool.max_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(usual)
    assert most < 0.5 * vectors.nbytes, f"{most / vectors.nbytes:.2f} of the vectors"
    assert (read_vectors(tmp_path / "v.parquet").vectors == vectors).all()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"id": [1]}, "expected id, vector and any others"),
        ({"id": [1], "vector": [3.0]}, "column 'vector' holds double"),
        ({"id": [1, 2], "vector": [[1.0], None]}, "expected lists of one length"),
        ({"id": [1, 2, 3], "vector": [[1.0], [1.0, 2.0, 4.0], [1.0, 3.0]]}, "vectors of 1 to 3 numbers"),
        ({"id": [1, 1], "vector": [[1.0], [2.0]]}, "id 1 comes twice"),
    ],
)
def test_tables_that_hold_no_vectors(table: dict[str, list[object]], message: str, tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table(table), tmp_path / "v.parquet")
    with pytest.raises(InputError) as caught:
        read_vectors(tmp_path / "v.parquet")
    assert message in str(caught.value)
