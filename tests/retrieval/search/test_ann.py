"""Approximate search: it reaches its recall, explains itself, and keeps what exact search promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmattn.errors import InputError
from mmattn.retrieval.index import Index
from mmattn.retrieval.search import ann
from mmattn.retrieval.search.ann import AnnSearch
from mmattn.retrieval.search.exact import METRICS, Metric
from mmattn.retrieval.search.plan import AnnSettings, SearchPlan
from mmattn.retrieval.storage import bundle


def clustered(count: int, seed: int, dim: int = 16) -> np.ndarray:
    """Points around 97 centres, of unit length: what embeddings look like."""
    centres = np.random.default_rng(0).standard_normal((97, dim))
    rng = np.random.default_rng(seed)
    points = centres[rng.integers(97, size=count)] + 0.5 * rng.standard_normal((count, dim))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


VECTORS, QUERIES = clustered(4001, 1), clustered(211, 2)


def recall(index: Index, queries: np.ndarray, k: int = 10) -> float:
    truth, actual = index.search(queries, k, exact=True).ids, index.search(queries, k).ids
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(truth, actual, strict=True)]))


@pytest.mark.parametrize("metric", METRICS)
def test_the_recall_is_reached_and_explained(metric: Metric) -> None:
    index = Index.build(VECTORS, metric=metric, kind="ann", target_recall=0.9)
    assert index.engine.ann is not None
    assert recall(index, QUERIES) >= 0.88
    plan = index.plan()
    assert {trial.name.split()[0].split(",")[-1] for trial in plan.trials} >= {
        "PQ8x4fs",
        "Flat",
        "SQ8",
        "HNSW32",
    }
    assert plan.trials[-1].verdict == "taken"
    assert plan.trials[-1].recall >= 0.88
    assert all(trial.queries_per_second > 0 for trial in plan.trials)
    assert all((trial.memory_mb > 0) == (trial.name != "exact search") for trial in plan.trials)
    assert "the quickest of" in str(plan)
    assert SearchPlan.from_dict(plan.to_dict()) == plan


@pytest.mark.parametrize("kind", ["IVF64,Flat", "IVF64,PQ8x4fs", "IVF64,SQ8", "HNSW32"])
@pytest.mark.parametrize("metric", METRICS)
def test_each_kind_finds_scores_filters_and_forgets(
    kind: str, metric: Metric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"i{number}" for number in range(4001)]
    index = Index.build(VECTORS, names, metric, metadata={"part": np.arange(4001) % 7}, kind="exact")
    index.engine.ann = AnnSearch.build(VECTORS, metric, AnnSettings(kind, 64, 8))
    assert recall(index, QUERIES) > 0.95
    hits = index.search(QUERIES, 5)
    exact = index.search(QUERIES, 5, exact=True)
    same = hits.ids == exact.ids
    assert hits.scores[same] == pytest.approx(exact.scores[same], abs=1e-5)
    part = index.search(QUERIES, 600, where="part == 3")
    assert part.ids.shape == (211, 572)  # all there are, though fewer than asked for
    monkeypatch.setattr("mmattn.retrieval.search.engine.EXACT_BELOW", 0)  # filters are faiss's now
    some = index.search(QUERIES, 9, where="part == 3 or part == 5")
    assert some.ids.shape == (211, 9)
    assert {int(name[1:]) % 7 for name in some.ids.flatten()} == {3, 5}
    index.remove(names[:2000])
    index.add(VECTORS[:50], [f"new{row}" for row in range(50)], metadata={"part": [9] * 50})
    assert index.search(VECTORS[7:8], 1).ids.tolist() == [["new7"]]
    assert not {*names[:2000]} & {*index.search(QUERIES, 20).ids.flatten()}
    index.save(tmp_path)
    opened = Index.open(tmp_path)
    assert opened.search(QUERIES, 9).ids.tolist() == index.search(QUERIES, 9).ids.tolist()
    opened.remove(["new7"])
    opened.add(VECTORS[7:8], ["newer"], metadata={"part": [1]})
    assert opened.search(VECTORS[7:8], 1).ids.tolist() == [["newer"]]


def test_a_filter_that_leaves_nothing_nearby_still_returns_k(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmattn.retrieval.search.engine.EXACT_BELOW", 0)
    index = Index.build(VECTORS, metadata={"far": (VECTORS @ VECTORS[0]) < 0}, kind="exact")
    index.engine.ann = AnnSearch.build(VECTORS, "ip", AnnSettings("IVF64,Flat", 1, 1))
    hits = index.search(VECTORS[:1], 10, where="far")
    assert hits.ids.tolist() == index.search(VECTORS[:1], 10, where="far", exact=True).ids.tolist()


def test_a_budget_and_a_recall_that_nothing_reaches() -> None:
    small = Index.build(VECTORS, kind="ann", target_recall=0.9, budget_mb=0.2)
    assert small.engine.ann is None or small.plan().trials[-1].memory_mb <= 0.2
    assert any(trial.verdict.startswith("above the budget") for trial in small.plan().trials)
    none = Index.build(VECTORS, kind="ann", budget_mb=0.0001)
    assert none.engine.ann is None
    assert none.plan().reason.startswith("exact search: no approximate index")


def test_small_sets_are_searched_exactly() -> None:
    assert Index.build(VECTORS).plan().reason == "exact search: only 4,001 vectors"
    assert Index.build(VECTORS[:3], kind="ann").plan().reason == "exact search: only 3 vectors"
    assert Index.build(VECTORS, target_recall=1).plan().reason == "exact search: as asked"


@pytest.mark.parametrize(
    ("options", "message"),
    [({"target_recall": 1.5}, "target_recall=1.5"), ({"kind": "hnsw"}, "no kind 'hnsw'")],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Index.build(VECTORS, **options)  # type: ignore[arg-type]


def test_faiss_never_sees_a_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index.build(VECTORS, kind="exact")
    index.engine.ann = AnnSearch.build(VECTORS, "ip", AnnSettings("IVF64,SQ8", 4, 2))
    index.save(tmp_path)
    path = next(tmp_path.glob("ann-*"))
    whole = path.read_bytes()
    monkeypatch.setattr(ann, "load_faiss", lambda: pytest.fail("faiss was asked"))
    for position in np.random.default_rng(0).choice(len(whole), 50, replace=False):
        changed = bytearray(whole)
        changed[position] ^= 1
        path.write_bytes(changed)
        assert bundle.find_damage(tmp_path)[0].startswith(f"{path.name}: damaged")
        with pytest.raises(InputError, match=path.name):
            Index.open(tmp_path)


def test_a_faiss_file_of_something_else_is_refused(tmp_path: Path) -> None:
    other = AnnSearch.build(VECTORS[:999], "ip", AnnSettings("HNSW32", 16, 1))
    other.write(tmp_path / "ann.faiss")
    with pytest.raises(InputError, match="999 vectors of width 16, the manifest says 4001"):
        ann.read_faiss(tmp_path / "ann.faiss", 4001, 16, "ip")
    (tmp_path / "ann.faiss").write_bytes(b"IxHN" + bytes(999))
    with pytest.raises(InputError, match="faiss cannot read it|faiss index of 0"):
        ann.read_faiss(tmp_path / "ann.faiss", 4001, 16, "ip")
