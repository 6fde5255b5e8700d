"""Exact search against sorting everything in float64, and against faiss."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
import torch

from mmattn.retrieval.search import exact
from mmattn.retrieval.search.exact import METRICS, ExactSearch, Metric, select_best


def all_scores(queries: np.ndarray, vectors: np.ndarray, metric: Metric) -> np.ndarray:
    """[Q, N] in float64, by the definitions."""
    left, right = queries.astype(np.float64), vectors.astype(np.float64)
    if metric == "l2":
        return -((left[:, None] - right[None]) ** 2).sum(2)
    return left @ right.T


def drawn(shape: tuple[int, int], seed: int, metric: Metric) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True) if metric == "cosine" else rows


@pytest.fixture(params=[True, False], ids=["bfloat16", "float32"])
def first_pass(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "_bfloat16_is_faster", lambda: request.param)


@pytest.mark.usefixtures("first_pass")
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("queries", [1, 37])
def test_it_finds_what_sorting_everything_finds(metric: Metric, queries: int) -> None:
    vectors, requested = drawn((12_011, 13), 0, metric), drawn((queries, 13), 1, metric)
    expected = all_scores(requested, vectors, metric)
    scores, rows = ExactSearch(vectors, metric)(requested, 7)
    assert rows.tolist() == np.argsort(-expected, axis=1)[:, :7].tolist()
    assert scores == pytest.approx(np.take_along_axis(expected, rows, 1), rel=1e-5, abs=1e-5)
    assert scores.dtype == np.float32


@pytest.mark.usefixtures("first_pass")
@pytest.mark.parametrize("metric", METRICS)
def test_only_the_rows_asked_for(metric: Metric) -> None:
    vectors, queries = drawn((12_011, 13), 2, metric), drawn((19, 13), 3, metric)
    chosen = np.flatnonzero(np.random.default_rng(4).random(12_011) < 0.8)
    best = np.argsort(-all_scores(queries, vectors[chosen], metric), axis=1)[:, :5]
    assert ExactSearch(vectors, metric)(queries, 5, chosen)[1].tolist() == chosen[best].tolist()


@pytest.mark.usefixtures("first_pass")
@pytest.mark.parametrize("order", ["rising", "falling", "one cluster"])
def test_an_order_that_hides_the_best_does_not_matter(order: str) -> None:
    """Scores sorted over the rows: every chunk beats the one before, or all of the best share a chunk."""
    vectors, queries = drawn((30_011, 11), 5, "ip"), drawn((17, 11), 6, "ip")
    queries[1:] = queries[0] + 0.01 * queries[1:]
    key = vectors @ queries[0]
    vectors = vectors[np.argsort(-key if order == "falling" else key)]
    if order == "one cluster":
        vectors = np.concatenate([vectors[-5000:], vectors[:-5000]])
    expected = np.argsort(-all_scores(queries, vectors, "ip"), axis=1)[:, :10]
    assert ExactSearch(vectors)(queries, 10)[1].tolist() == expected.tolist()


@pytest.mark.usefixtures("first_pass")
def test_scores_that_bfloat16_cannot_tell_apart() -> None:
    """All vectors nearly the same: the bound leaves everything in doubt, and nothing gets lost."""
    rng = np.random.default_rng(7)
    vectors = (1 + 1e-3 * rng.standard_normal((80_021, 7))).astype(np.float32)
    queries = drawn((16, 7), 8, "ip")
    expected = np.sort(all_scores(queries, vectors, "ip"), axis=1)[:, ::-1][:, :5]
    assert ExactSearch(vectors)(queries, 5)[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.usefixtures("first_pass")
def test_equal_vectors_come_by_row() -> None:
    vectors = np.repeat(drawn((3, 5), 9, "ip"), 4001, axis=0)
    scores, rows = ExactSearch(vectors)(drawn((2, 5), 10, "ip"), 4)
    assert (np.diff(rows, axis=1) > 0).all()
    assert (np.ptp(scores, axis=1) < 1e-5).all()


@pytest.mark.usefixtures("first_pass")
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0], ids=["all below zero", "half of them", "all above zero"])
def test_scores_below_zero(share: float) -> None:
    """Of some queries even the best vectors have negative scores."""
    rng = np.random.default_rng(18)
    vectors = np.abs(drawn((20_011, 7), 19, "ip")) + np.float32(0.1)
    queries = np.abs(drawn((17, 7), 20, "ip")) * np.where(rng.random((17, 1)) < share, 1, -1).astype(
        np.float32
    )
    expected = np.argsort(-all_scores(queries, vectors, "ip"), axis=1)[:, :9]
    assert ExactSearch(vectors)(queries, 9)[1].tolist() == expected.tolist()


@pytest.mark.usefixtures("first_pass")
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("filtered", [False, True])
def test_several_threads_share_the_queries(
    metric: Metric, filtered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "_MIN_QUERIES_PER_CORE", 17)
    vectors, queries = drawn((12_011, 13), 21, metric), drawn((101, 13), 22, metric)
    rows = np.arange(0, 12_011, 2) if filtered else None
    entry = ExactSearch(vectors, metric)(queries, 3, rows)
    usual = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        several = ExactSearch(vectors, metric)(queries, 3, rows)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(usual)
    assert several[1].tolist() == entry[1].tolist()
    assert several[0] == pytest.approx(entry[0], rel=1e-5)


def test_far_from_the_origin_distances_keep_their_digits() -> None:
    vectors = (1000 + np.random.default_rng(11).standard_normal((9_001, 5))).astype(np.float32)
    queries = vectors[:3] + np.float32(0.25)
    expected = all_scores(queries, vectors, "l2")
    scores, rows = ExactSearch(vectors, "l2")(queries, 3)
    assert rows.tolist() == np.argsort(-expected, axis=1)[:, :3].tolist()
    assert scores == pytest.approx(np.take_along_axis(expected, rows, 1), rel=1e-3)


def test_the_same_as_faiss() -> None:
    vectors, queries = drawn((20_011, 31), 12, "ip"), drawn((29, 31), 13, "ip")
    flat = faiss.IndexFlatIP(31)
    flat.add(vectors)
    scores, rows = flat.search(queries, 10)
    ours = ExactSearch(vectors)(queries, 10)
    assert (ours[1] == rows).all()
    assert ours[0] == pytest.approx(scores, rel=1e-4)


@pytest.mark.parametrize(("count", "k"), [(1, 1), (5, 9), (16, 16), (17, 3)])
def test_few_vectors(count: int, k: int) -> None:
    vectors, queries = drawn((count, 3), 14, "ip"), drawn((23, 3), 15, "ip")
    expected = np.argsort(-all_scores(queries, vectors, "ip"), axis=1)[:, :k]
    assert ExactSearch(vectors)(queries, k)[1].tolist() == expected.tolist()


def test_no_query_and_no_row() -> None:
    search = ExactSearch(drawn((5, 3), 16, "ip"))
    assert search(np.zeros((0, 3), np.float32), 2)[1].shape == (0, 2)
    assert search(drawn((2, 3), 17, "ip"), 2, np.zeros(0, np.int64))[1].shape == (2, 0)


def test_the_best_of_a_line_with_ties() -> None:
    scores, indices = select_best(torch.tensor([[1.0, 3, 3, 2]]), torch.tensor([[4, 9, 7, 5]]), 3)
    assert (scores.tolist(), indices.tolist()) == ([[3, 3, 2]], [[7, 9, 5]])
