"""Ranking and metrics against plain loops, trec_eval (through pytrec_eval) and numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from mmattn.errors import InputError
from mmattn.evaluation.ranking import metrics
from mmattn.evaluation.ranking.metrics import METRICS, evaluate, rank, rank_users

CUTS = (1, 3, 7)
CUTTABLE = [metric for metric in METRICS if metric not in ("rprec", "auc")]
NAMES = [f"{metric}@{cut}" for metric in CUTTABLE for cut in CUTS]


def loop_rank(scores: list[float], items: list[int], k: int, excluded: set[int], ties: str) -> list[int]:
    rows = [(score, item) for score, item in zip(scores, items, strict=True) if item not in excluded]
    if ties == "trec":
        rows.sort(key=lambda row: str(row[1]), reverse=True)
    rows.sort(key=lambda row: -row[0])  # stable: keeps the tie order
    return [item for score, item in rows if score > -math.inf][:k]


def loop_metrics(ranked: list[int], right: set[int], cut: int) -> dict[str, float]:
    hits = [item in right for item in ranked[:cut]]
    gain = sum(1 / math.log2(index + 2) for index, hit in enumerate(hits) if hit)
    ideal = sum(1 / math.log2(index + 2) for index in range(min(cut, len(right))))
    return {
        "recall": sum(hits) / len(right),
        "precision": sum(hits) / cut,
        "hit": float(any(hits)),
        "mrr": 1 / (hits.index(True) + 1) if any(hits) else 0.0,
        "map": sum(sum(hits[: index + 1]) / (index + 1) for index, hit in enumerate(hits) if hit)
        / len(right),
        "ndcg": gain / ideal,
        "ndcg_exp": gain / ideal,  # binary: 2^1 - 1 is 1
    }


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    users=st.integers(1, 5),
    columns=st.integers(1, 13),
    levels=st.integers(1, 6),
    ties=st.sampled_from(["stable", "trec"]),
)
def test_equal_to_a_loop_over_users(seed: int, users: int, columns: int, levels: int, ties: str) -> None:
    rng = np.random.default_rng(seed)
    item_count = 2 * columns + 3
    items = rng.permutation(item_count)[:columns]
    scores = rng.integers(0, levels, (users, columns)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.05] = -np.inf
    seen = rng.random((users, item_count)) < 0.3
    right = rng.random((users, item_count)) < 0.3
    ranking = rank(scores, 7, candidates=items, exclude=sparse.csr_array(seen), ties=ties)
    measured = evaluate(ranking, sparse.csr_array(right), NAMES)
    assert measured.n_skipped == (~right.any(1)).sum()
    for user in range(users):
        excluded = set(np.flatnonzero(seen[user]).tolist())
        expected = loop_rank(scores[user].tolist(), items.tolist(), 7, excluded, ties)
        got = ranking.items[user]
        assert got[got >= 0].tolist() == expected
        assert (got[len(expected) :] == -1).all()
        positives = set(np.flatnonzero(right[user]).tolist())
        for name in NAMES:
            metric, cut = name.split("@")
            value = measured.values[name][user]
            if positives:
                assert value == pytest.approx(loop_metrics(expected, positives, int(cut))[metric], abs=1e-12)
            else:
                assert np.isnan(value)


@pytest.mark.parametrize("levels", [3, 1000])
def test_equal_to_trec_eval(levels: int) -> None:
    rng = np.random.default_rng(levels)
    users, items = 53, 41
    scores = (rng.integers(0, levels, (users, items)) / 8).astype(np.float32)
    right = rng.random((users, items)) < 0.2
    qrels = {str(u): {str(i): int(right[u, i]) for i in range(items)} for u in range(users) if right[u].any()}
    run = {str(u): {str(i): float(scores[u, i]) for i in range(items)} for u in range(users)}
    measures = {"recall.1,3,7", "ndcg_cut.1,3,7", "P.1,3,7", "map_cut.1,3,7", "success.1,5,10", "Rprec"}
    official = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)
    depth = rank(scores, items, ties="trec")
    measured = evaluate(depth, sparse.csr_array(right), [*NAMES, f"mrr@{items}", "rprec"])
    reciprocal = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(run)
    assert len(official) == users - measured.n_skipped
    for user, values in official.items():
        got = {name: measured.values[name][int(user)] for name in measured.values}
        for cut in CUTS:
            assert got[f"recall@{cut}"] == pytest.approx(values[f"recall_{cut}"], abs=1e-6)
            assert got[f"ndcg@{cut}"] == pytest.approx(values[f"ndcg_cut_{cut}"], abs=1e-6)
            assert got[f"map@{cut}"] == pytest.approx(values[f"map_cut_{cut}"], abs=1e-6)
            assert got[f"precision@{cut}"] == pytest.approx(values[f"P_{cut}"], abs=1e-6)
        assert got["hit@1"] == values["success_1"]
        assert got["rprec"] == pytest.approx(values["Rprec"], abs=1e-6)
        assert got[f"mrr@{items}"] == pytest.approx(reciprocal[user]["recip_rank"], abs=1e-6)


def test_by_hand() -> None:
    """Ranking 2, 0, 1 of five items, right are 0, 1 and 4."""
    ranking = rank([[0.8, 0.7, 0.9, 0.1, 0.0]], k=3)
    measured = evaluate(ranking, sparse.csr_array([[1, 1, 0, 0, 1]]), [f"{metric}@3" for metric in CUTTABLE])
    assert ranking.items.tolist() == [[2, 0, 1]]
    assert measured.mean("recall@3") == pytest.approx(2 / 3)
    assert measured.mean("precision@3") == pytest.approx(2 / 3)
    assert measured.mean("mrr@3") == pytest.approx(1 / 2)
    assert measured.mean("hit@3") == 1.0
    # (1/2 + 2/3) / 3
    assert measured.mean("map@3") == pytest.approx(7 / 18)
    # (0.6309 + 0.5) / (1 + 0.6309 + 0.5)
    assert measured.mean("ndcg@3") == pytest.approx(0.5307212739772434)


def test_the_known_tie() -> None:
    """Run {a, b, c: 1.0}, relevant a: reciprocal rank 1/3 under trec_eval's policy, 1 under "stable"."""
    right = sparse.csr_array([[1, 0, 0]])
    values = {
        ties: evaluate(rank([[1.0, 1.0, 1.0]], 3, ties=ties, names=["a", "b", "c"]), right, ["mrr@3"])
        for ties in ("stable", "trec")
    }
    assert values["stable"].mean("mrr@3") == 1.0
    assert values["trec"].mean("mrr@3") == pytest.approx(1 / 3)


def test_shuffled_ties_gain_nothing_from_the_numbering() -> None:
    """All scores alike; one user in i + 1 chose item i: numbered by popularity, as catalogues are."""
    users, items = 997, 101
    right = sparse.csr_array(np.random.default_rng(0).random((users, items)) < 1 / (1 + np.arange(items)))
    flat = np.zeros((users, items))
    stable = evaluate(rank(flat, 10), right, ["recall@10"]).mean("recall@10")
    shuffled = evaluate(rank(flat, 10, ties="shuffled"), right, ["recall@10"]).mean("recall@10")
    assert stable > 0.5
    assert shuffled == pytest.approx(10 / items, abs=0.015)


def test_shuffled_ties_keep_scores_first_and_depend_on_the_ids_alone() -> None:
    scores = np.random.default_rng(0).integers(0, 3, (29, 23)).astype(np.float32)
    whole = rank(scores, 23, ties="shuffled")
    assert (np.diff(whole.scores, axis=1) <= 0).all()
    assert (np.sort(whole.items, axis=1) == np.arange(23)).all()
    order = np.random.default_rng(1).permutation(23)
    moved = rank(scores[:, order], 23, candidates=order, ties="shuffled")
    assert moved.items.tolist() == whole.items.tolist()
    assert len({tuple(row) for row in rank(np.zeros((29, 23)), 23, ties="shuffled").items}) == 29


def test_a_stored_zero_and_booleans_exclude_alike() -> None:
    stored = sparse.csr_array((np.array([0.0, 1.0]), ([0, 0], [2, 1])), shape=(1, 3))
    mask = np.array([[False, True, True]])
    for exclude in (stored, mask):
        assert rank([[1.0, 2.0, 3.0]], 3, exclude=exclude).items.tolist() == [[0, -1, -1]]


@pytest.mark.parametrize("ties", ["stable", "trec", "shuffled"])
def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, ties: metrics.TiePolicy) -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 5, (31, 17)).astype(np.float32)
    seen = sparse.csr_array(rng.random((31, 17)) < 0.3)
    whole = rank(scores, 5, exclude=seen, ties=ties)
    monkeypatch.setattr(metrics, "_MAX_SCORES", 17 * 3)
    assert rank(scores, 5, exclude=seen, ties=ties).items.tolist() == whole.items.tolist()
    chosen = np.array([30, 2, 11])

    def score(users: np.ndarray, items: np.ndarray) -> np.ndarray:
        return scores[np.ix_(users, items)]

    some = rank_users(score, chosen, 5, candidates=range(17), exclude=seen, ties=ties, block_size=2)
    assert some.items.tolist() == whole.items[chosen].tolist()


def test_nobody_with_a_positive_is_not_zero() -> None:
    measured = evaluate(rank(np.ones((2, 3)), 2), sparse.csr_array((2, 3)), ["recall@2"])
    assert np.isnan(measured.mean("recall@2"))
    assert measured.n_skipped == 2


def test_auc_by_hand_and_only_of_the_whole_ranking() -> None:
    """Ranking 1, 0, 3, 2 with 0 and 2 right: of the four pairs only (0, 3) stands the right way round."""
    right = sparse.csr_array([[1, 0, 1, 0]])
    scores = [[0.8, 0.9, 0.1, 0.2]]
    assert evaluate(rank(scores, 5), right, ["auc"]).mean("auc") == 0.25
    with pytest.raises(InputError, match="expected the complete ranking, got one cut at depth 3"):
        evaluate(rank(scores, 3), right, ["auc"])


def test_no_candidates_rank_nothing() -> None:
    ranking = rank(np.zeros((2, 0)), 3, candidates=[])
    assert ranking.items.tolist() == [[-1] * 3] * 2
    assert evaluate(ranking, sparse.csr_array([[1], [1]]), ["recall@3"]).mean("recall@3") == 0.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rank([1.0], 1), r"got scores of shape \(1,\)"),
        (lambda: rank([[1.0]], 0), "k 0, expected"),
        (lambda: rank([[1.0, np.nan]], 1), "NaN among the scores of users 0 to 0"),
        (lambda: rank([[1.0]], 1, candidates=[1, 2]), "expected 1, one a column"),
        (lambda: rank([[1.0]], 1, exclude=np.zeros((2, 1), bool)), "expected 1 users by at least 1 items"),
        (lambda: rank([[1.0]], 1, ties="trek"), "Did you mean 'trec'"),
        (lambda: evaluate(rank([[1.0]], 1), sparse.csr_array([[1]]), ["recal@1"]), "Did you mean 'recall'"),
        (lambda: evaluate(rank([[1.0]], 1), sparse.csr_array([[1]]), ["recall@2"]), "ranking's depth, 1"),
        (lambda: evaluate(rank([[1.0]], 1), sparse.csr_array([[1]]), ["recall"]), "expected a cutoff"),
        (lambda: evaluate(rank([[1.0]], 1), sparse.csr_array([[1], [0]])), "2 users, expected 1"),
        (lambda: evaluate(rank([[1.0, 2.0]], 1), sparse.csr_array([[1, 1]]), ["rprec"]), "depth 2, got 1"),
        (lambda: evaluate(rank([[1.0]], 1), sparse.csr_array([[1]]), ["auc@1"]), "'auc', which has no cut"),
    ],
)
def test_refusals(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
