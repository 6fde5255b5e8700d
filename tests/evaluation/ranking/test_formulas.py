"""The closed forms under the policy "expected": against every order of the ties, and against scikit-learn."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from sklearn.metrics import ndcg_score, roc_auc_score

from mmattn.errors import InputError
from mmattn.evaluation.ranking.formulas import METRICS, parse_metric
from mmattn.evaluation.trec.evaluate import evaluate_run
from mmattn.evaluation.trec.run import Qrels, Run

NAMES = [
    *(f"{metric}@{cut}" for metric in METRICS if metric not in ("rprec", "auc") for cut in (1, 2, 3, 5)),
    *METRICS,
]


def orders(scores: list[float]) -> list[list[int]]:
    """Every order of the documents that the scores allow."""
    groups = [[d for d, score in enumerate(scores) if score == level] for level in sorted(set(scores))[::-1]]
    return [
        list(itertools.chain(*chosen)) for chosen in itertools.product(*map(itertools.permutations, groups))
    ]


@pytest.mark.parametrize("seed", range(40))
def test_expected_is_the_mean_over_all_orders_of_the_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 8))
    scores = rng.integers(0, 3, count).astype(float).tolist()
    gains = {d: float(g) for d, g in enumerate(rng.choice([0, 0, 0.5, 1, 2.5], count + 2)) if g}
    gains[count + 3] = 1.0  # one that is never retrieved
    qrels = Qrels([0, len(gains)], list(gains), list(gains.values()))
    run = Run([0, count], range(count), scores)
    expected = evaluate_run(run, qrels, NAMES, ties="expected", empty="skip", relevant_from=0.7)
    every = []
    for order in orders(scores):
        strict = Run([0, count], order, -np.arange(count))
        every.append(evaluate_run(strict, qrels, NAMES, ties="stable", empty="skip", relevant_from=0.7))
    for name in NAMES:
        mean = np.mean([entry.values[name][0] for entry in every])
        assert expected.values[name][0] == pytest.approx(mean, abs=1e-12, nan_ok=True), name


def test_expected_ndcg_is_scikit_learns_and_auc_too() -> None:
    """scikit-learn averages over ties as well; its nDCG takes float gains."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores = rng.integers(0, 5, 31).astype(float)
        gains = np.where(rng.random(31) < 0.4, rng.random(31), 0.0)
        qrels = Qrels([0, 31], range(31), gains)
        actual = evaluate_run(
            Run([0, 31], range(31), scores), qrels, ["ndcg@7", "ndcg", "auc"], ties="expected"
        )
        assert actual.mean("ndcg@7") == pytest.approx(ndcg_score([gains], [scores], k=7), abs=1e-12)
        assert actual.mean("ndcg") == pytest.approx(ndcg_score([gains], [scores]), abs=1e-12)
        assert actual.mean("auc") == pytest.approx(roc_auc_score(gains > 0, scores), abs=1e-12)


def test_a_large_tie_is_exact() -> None:
    """1,000 documents of one score, 3 of them relevant: the first stands at 1001 / 4 in the mean."""
    qrels = Qrels([0, 3], [5, 500, 999], [1, 1, 1])
    run = Run([0, 1000], range(1000), np.ones(1000))
    actual = evaluate_run(run, qrels, ["hit@10", "recall@10", "mrr", "map", "auc"], ties="expected")
    assert actual.mean("hit@10") == pytest.approx(1 - math.comb(997, 10) / math.comb(1000, 10), abs=1e-12)
    assert actual.mean("recall@10") == pytest.approx(0.01)
    chances = [math.comb(1000 - index, 2) / math.comb(1000, 3) for index in range(1, 999)]
    assert actual.mean("mrr") == pytest.approx(sum(c / (i + 1) for i, c in enumerate(chances)), abs=1e-12)
    assert actual.mean("auc") == 0.5
    assert actual.tie_rate == 1.0


def test_exponential_gain_by_hand() -> None:
    """Grades 1 then 3 retrieved: gains 1 and 7."""
    qrels = Qrels([0, 2], [0, 1], [1, 3])
    actual = evaluate_run(Run([0, 2], [0, 1], [0.9, 0.1]), qrels, ["ndcg_exp@2"])
    discount = 1 / math.log2(3)
    assert actual.mean("ndcg_exp@2") == pytest.approx((1 + 7 * discount) / (7 + discount))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ndgc@10", "'ndgc' is not one. Did you mean 'ndcg'"),
        ("recall@0", "the cutoff '0', expected a whole number from 1"),
        ("recall@", "the cutoff '', expected a whole number"),
        ("recall@²", "the cutoff '²', expected a whole number"),
        ("recall@1.5", "the cutoff '1.5'"),
        ("auc@10", "expected 'auc', which has no cutoff"),
    ],
)
def test_a_name_that_is_no_metric(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        parse_metric(name)


def test_a_grade_beyond_doubles_is_refused() -> None:
    with pytest.raises(InputError, match="a judgement of 2000, expected at most 1000"):
        evaluate_run(Run([0, 1], [0], [1.0]), Qrels([0, 1], [0], [2000]), ["ndcg_exp"])
