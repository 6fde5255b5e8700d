"""The best items that a user has not seen, against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from mmattn.retrieval.index import Index
from mmattn.serving import unseen_search
from mmattn.serving.unseen_search import topk_unseen, tune_for_users


def by_hand(
    vectors: np.ndarray, query: np.ndarray, seen: np.ndarray, k: int, allowed: np.ndarray | None
) -> list[int]:
    scores = vectors @ query
    order = [int(row) for row in np.argsort(-scores) if not seen[row] and (allowed is None or allowed[row])]
    return (order + [-1] * k)[:k]


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((1999, 8)).astype(np.float32)
    seen = rng.random((37, 1999)) < rng.choice([0.0, 0.01, 0.6], size=(37, 1))
    return vectors, rng.standard_normal((37, 8)).astype(np.float32), seen


@pytest.mark.parametrize("small", [1998, 1999])
@pytest.mark.parametrize("share", [None, 0.5, 0.004])
def test_exact(
    data: tuple[np.ndarray, ...], share: float | None, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, queries, seen = data
    monkeypatch.setattr(unseen_search, "_MAX_EXHAUSTIVE_ITEMS", small)
    monkeypatch.setattr(
        unseen_search, "_MAX_SCORES", 5 * len(vectors)
    )  # several blocks, the last one smaller
    allowed = None if share is None else np.random.default_rng(1).random(len(vectors)) < share
    index = Index.build(vectors, kind="exact")
    scores, rows = topk_unseen(index, queries, sparse.csr_array(seen), 7, allowed)
    for user in range(len(queries)):
        assert rows[user].tolist() == by_hand(vectors, queries[user], seen[user], 7, allowed)
    assert (np.isneginf(scores) == (rows < 0)).all()
    present = rows >= 0
    np.testing.assert_allclose(
        scores[present], (queries @ vectors.T)[np.nonzero(present)[0], rows[present]], atol=1e-5
    )


@pytest.mark.parametrize("share", [None, 0.7])
def test_through_an_approximate_index(data: tuple[np.ndarray, ...], share: float | None) -> None:
    vectors, queries, seen = data
    allowed = None if share is None else np.random.default_rng(1).random(len(vectors)) < share
    index = Index.build(vectors, kind="ann", target_recall=0.9)
    assert index.approximate
    scores, rows = topk_unseen(index, queries, sparse.csr_array(seen), 7, allowed)
    hits = 0
    for user in range(len(queries)):
        expected = by_hand(vectors, queries[user], seen[user], 7, allowed)
        assert (rows[user] >= 0).all()
        assert not seen[user][rows[user]].any()
        assert allowed is None or allowed[rows[user]].all()
        assert len(set(rows[user].tolist())) == 7
        hits += len(set(expected) & set(rows[user].tolist()))
    assert hits > 0.85 * 7 * len(queries)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_more_asked_for_than_there_is() -> None:
    index = Index.build(np.eye(3), ["a", "b", "c"])
    seen = sparse.csr_array(np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]))
    scores, rows = topk_unseen(index, np.array([[1.0, 2.0, 3.0]] * 2, np.float32), seen, 5)
    assert rows.tolist() == [[2, 1, -1, -1, -1], [-1] * 5]
    assert np.isneginf(scores[1]).all()


def test_users_who_lie_elsewhere_are_searched_deeper(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((97, 16))
    vectors = (centres[rng.integers(97, size=9973)] + 0.3 * rng.standard_normal((9973, 16))).astype(
        np.float32
    )
    users = vectors[rng.integers(9973, size=(53, 5))].sum(1)
    index = Index.build(vectors, kind="ann", target_recall=0.5)

    def share(index: Index) -> float:
        truth = index.search(users, 20, exact=True).ids
        return float((truth[:, :, None] == index.search(users, 20).ids[:, None]).any(2).mean())

    before = share(index)
    slow = iter(range(10**6, 0, -1))  # exact search never is the quicker one here
    timed = unseen_search._timed
    monkeypatch.setattr(unseen_search, "_timed", lambda *a, **b: (timed(*a, **b)[0], float(next(slow))))
    assert before < 0.95 <= share(tune_for_users(index, users))
    monkeypatch.setattr(
        unseen_search, "_timed", lambda *a, **b: (timed(*a, **b)[0], 1.0)
    )  # as quick as the other
    assert not tune_for_users(index, users).approximate
    assert tune_for_users(Index.build(vectors, kind="exact"), users).plan().reason == "exact search: as asked"
