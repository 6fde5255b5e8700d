"""Runs against judgements: trec_eval's digits (pytrec_eval, ir-measures), and declared policies."""

from __future__ import annotations

import re

import ir_measures
import numpy as np
import pytest
import pytrec_eval
from ir_measures import AP, RR, P, R, Rprec, Success, nDCG

from mmattn.errors import InputError
from mmattn.evaluation.trec.evaluate import evaluate_run
from mmattn.evaluation.trec.run import Qrels, Run

# Our name -> trec_eval's.
TREC = {
    "ndcg": "ndcg",
    "map": "map",
    "mrr": "recip_rank",
    "rprec": "Rprec",
    "recall": "set_recall",
    "precision": "set_P",
    **{f"ndcg@{k}": f"ndcg_cut_{k}" for k in (1, 5, 10)},
    **{f"map@{k}": f"map_cut_{k}" for k in (1, 5, 10)},
    **{f"recall@{k}": f"recall_{k}" for k in (1, 5, 10)},
    **{f"precision@{k}": f"P_{k}" for k in (1, 5, 10)},
    **{f"hit@{k}": f"success_{k}" for k in (1, 5, 10)},
}
ASKED = {
    "ndcg", "map", "recip_rank", "Rprec", "set_recall", "set_P",
    *(f"{name}.1,5,10" for name in ("ndcg_cut", "map_cut", "recall", "P", "success")),
}  # fmt: skip
Table = dict[str, dict[str, float]]


def adversarial(rng: np.random.Generator) -> tuple[Table, dict[str, dict[str, int]]]:
    """A few queries with everything that goes wrong in practice."""
    alphabet = [
        *map(str, range(1, 120)),
        "d9",
        "d10",
        "D1",
        "é",
        "z",
        "zz",
        "文",
        "a b".replace(" ", "_"),
        "~",
    ]
    run: Table = {}
    qrels: dict[str, dict[str, int]] = {}
    for query in range(int(rng.integers(1, 6))):
        name = f"q{query}"
        count = int(rng.integers(1, 30))
        documents = rng.choice(alphabet, count, replace=False).tolist()
        kind = rng.integers(6)
        scores = {
            0: rng.random(count),
            1: rng.integers(0, 3, count).astype(float),  # ties everywhere
            2: np.full(count, 0.25),
            3: 1 + rng.integers(0, 4, count) * 1e-9,  # apart as doubles, equal as float32
            4: rng.normal(size=count) * 10.0 ** rng.integers(-30, 30, count),
            5: rng.choice([0.0, -0.0, -1.5, 1.5], count),
        }[int(kind)]
        if rng.random() < 0.9:  # otherwise missing from the run
            run[name] = dict(zip(documents, scores.tolist(), strict=True))
        judged = rng.choice(alphabet, int(rng.integers(1, 40)), replace=False).tolist()
        grades = rng.choice([-1, 0, 0, 1, 2, 3], len(judged)) * (rng.random() < 0.9)  # otherwise all zero
        if grades.max() <= 0:  # pytrec_eval may never come back from a query with negative grades only
            grades[:] = 0
        if rng.random() < 0.95:  # otherwise not judged
            qrels[name] = dict(zip(judged, grades.tolist(), strict=True))
    return run, qrels


@pytest.mark.parametrize("batch", range(10))
def test_a_thousand_adversarial_cases_as_trec_eval_has_them(batch: int) -> None:
    compared = 0
    for case in range(100):
        run, qrels = adversarial(np.random.default_rng([batch, case]))
        if not set(run) & set(qrels):
            with pytest.raises(InputError, match="no common query"):
                evaluate_run(Run.from_dict(run), Qrels.from_dict(qrels), ["map"])
            continue
        official = pytrec_eval.RelevanceEvaluator(qrels, ASKED).evaluate(run)
        actual = evaluate_run(Run.from_dict(run), Qrels.from_dict(qrels), [*TREC, "mrr@3"], missing="skip")
        reciprocal = actual.values["mrr"]  # trec_eval has no cutoff for it
        np.testing.assert_array_equal(
            actual.values["mrr@3"], np.where(reciprocal < 1 / 3.5, 0 * reciprocal, reciprocal)
        )
        assert set(official) == set(qrels) - set(actual.missing_queries)
        for row, query in enumerate(actual.queries):
            for ours, theirs in TREC.items():
                value = actual.values[ours][row]
                if query in official:
                    assert value == pytest.approx(official[query][theirs], abs=1e-6), (query, ours)
                    compared += 1
                else:
                    assert np.isnan(value)
    assert compared > 100 * len(TREC)


@pytest.mark.parametrize("seed", range(20))
def test_ir_measures_counts_missing_queries_as_zero_and_so_do_we(seed: int) -> None:
    names = {
        "ndcg@10": nDCG @ 10, "map": AP, "map@5": AP @ 5, "mrr": RR, "recall@5": R @ 5,
        "precision@5": P @ 5, "hit@5": Success @ 5, "rprec": Rprec,
    }  # fmt: skip
    run, qrels = adversarial(np.random.default_rng([99, seed]))
    run.setdefault("q0", {"1": 1.0})
    qrels.setdefault("q0", {"1": 1})
    official = ir_measures.calc_aggregate(list(names.values()), qrels, run)
    actual = evaluate_run(Run.from_dict(run), Qrels.from_dict(qrels), list(names), missing="zero")
    for ours, theirs in names.items():
        assert actual.mean(ours) == pytest.approx(official[theirs], abs=1e-6), ours


@pytest.mark.parametrize("seed", range(20))
def test_float_gains_are_trec_evals_after_scaling(seed: int) -> None:
    """trec_eval knows whole grades only; linear nDCG does not change when all gains are divided by 8, and
    exponential nDCG is linear nDCG of whole gains 2^grade - 1."""
    run, qrels = adversarial(np.random.default_rng([7, seed]))
    run.setdefault("q0", {"1": 1.0})
    qrels.setdefault("q0", {"1": 1})
    eighths = {q: {d: grade / 8 for d, grade in row.items()} for q, row in qrels.items()}
    powers = {q: {d: 2 ** max(grade, 0) - 1 for d, grade in row.items()} for q, row in qrels.items()}
    for ours, judged, theirs in (("ndcg@5", eighths, qrels), ("ndcg_exp@5", qrels, powers)):
        official = pytrec_eval.RelevanceEvaluator(theirs, {"ndcg_cut.5"}).evaluate(run)
        actual = evaluate_run(Run.from_dict(run), Qrels.from_dict(judged), [ours], missing="skip")
        for row, query in enumerate(actual.queries):
            if query in official:
                assert actual.values[ours][row] == pytest.approx(official[query]["ndcg_cut_5"], abs=1e-6)


def test_numbers_without_names_are_their_decimal_names() -> None:
    """Index arrays against the same thing as dictionaries of strings, through trec_eval: "9" before "10"."""
    rng = np.random.default_rng(3)
    documents = np.concatenate([rng.choice(211, 31, replace=False) for _ in range(17)])
    scores = rng.integers(0, 4, len(documents)).astype(np.float32)
    judged = np.concatenate([rng.choice(211, 13, replace=False) for _ in range(17)])
    run = Run(np.arange(18) * 31, documents, scores)
    qrels = Qrels(np.arange(18) * 13, judged, rng.integers(0, 3, len(judged)))
    as_names = {
        run.query_name(q): {str(documents[i]): float(scores[i]) for i in range(q * 31, q * 31 + 31)}
        for q in range(17)
    }
    grades = {
        qrels.query_name(q): {str(judged[i]): int(qrels.gains[i]) for i in range(q * 13, q * 13 + 13)}
        for q in range(17)
    }
    official = pytrec_eval.RelevanceEvaluator(grades, ASKED).evaluate(as_names)
    named_run, named_qrels = Run.from_dict(as_names), Qrels.from_dict(grades)
    for left, right in ((run, qrels), (run, named_qrels), (named_run, qrels), (named_run, named_qrels)):
        actual = evaluate_run(left, right, list(TREC))
        for row, query in enumerate(actual.queries):
            for ours, theirs in TREC.items():
                assert actual.values[ours][row] == pytest.approx(official[query][theirs], abs=1e-6)


def test_huge_numbers_are_names() -> None:
    run = Run([0, 3], [2**62, 5, 2**40], [1.0, 1.0, 1.0])
    actual = evaluate_run(run, Qrels([0, 1], [5], [1]), ["mrr"])
    assert actual.mean("mrr") == 1.0  # "5" is above "4611686018427387904" and "1099511627776"
    assert run.document_name(int(run.documents[0])) == str(2**62)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 23, 101)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    documents = np.concatenate([rng.choice(37, length, replace=False) for length in lengths])
    run = Run(offsets, documents, rng.integers(0, 5, offsets[-1]))
    qrels = Qrels(np.arange(102) * 5, np.concatenate([rng.choice(37, 5, replace=False) for _ in range(101)]),
                  rng.random(505))  # fmt: skip
    whole = {ties: evaluate_run(run, qrels, list(TREC), ties=ties) for ties in ("trec", "stable", "expected")}
    monkeypatch.setattr("mmattn.evaluation.trec.run.BLOCK_SIZE", 67)
    for ties, before in whole.items():
        after = evaluate_run(run, qrels, list(TREC), ties=ties)
        assert after.tie_rate == before.tie_rate
        for name in TREC:
            np.testing.assert_allclose(after.values[name], before.values[name], atol=1e-15)


def test_tie_rate_is_the_share_of_documents_that_share_their_score() -> None:
    run = Run([0, 4, 6], [0, 1, 2, 3, 0, 1], [1.0, 1.0, 2.0, 3.0, 1.0, 0.5])
    assert evaluate_run(run, Qrels([0, 1, 2], [0, 0], [1, 1]), ["map"]).tie_rate == pytest.approx(2 / 6)


def test_policies_for_missing_and_empty_queries() -> None:
    run = Run.from_dict({"a": {"x": 1.0}, "empty": {"x": 1.0}, "unjudged": {"x": 1.0}})
    qrels = Qrels.from_dict({"a": {"x": 1}, "gone": {"x": 1}, "empty": {"x": 0}})
    both = evaluate_run(run, qrels, ["map"])
    assert both.values["map"].tolist() == [1.0, 0.0, 0.0]
    assert (both.missing_queries, both.empty_queries, both.n_unjudged) == (["gone"], ["empty"], 1)
    assert evaluate_run(run, qrels, ["map"], missing="skip").mean("map") == 0.5
    undefined = evaluate_run(run, qrels, ["auc"], empty="skip").values["auc"]
    assert np.isnan(undefined[[0, 2]]).all()  # nothing irrelevant was ranked; nothing is relevant
    assert undefined[1] == 0.0  # missing, and counted
    assert evaluate_run(run, qrels, ["map"], empty="skip").mean("map") == 0.5
    assert evaluate_run(run, qrels, ["map"], missing="skip", empty="skip").mean("map") == 1.0
    with pytest.raises(InputError, match="1 judged queries are missing from the run, the first 'gone'"):
        evaluate_run(run, qrels, ["map"], missing="error")


def test_relevance_may_begin_higher() -> None:
    """As `trec_eval -l 2`: grade 1 is no hit, but still a gain for nDCG."""
    run, grades = {"q": {"a": 3.0, "b": 2.0, "c": 1.0}}, {"q": {"a": 1, "b": 2, "c": 0}}
    actual = evaluate_run(
        Run.from_dict(run), Qrels.from_dict(grades), ["mrr", "map", "ndcg"], relevant_from=2
    )
    official = pytrec_eval.RelevanceEvaluator(grades, {"recip_rank", "map", "ndcg"}, relevance_level=2)
    values = official.evaluate(run)["q"]
    assert actual.mean("mrr") == values["recip_rank"] == 0.5
    assert actual.mean("map") == values["map"]
    assert actual.mean("ndcg") == pytest.approx(values["ndcg"], abs=1e-6)


def test_nothing_retrieved_is_not_missing() -> None:
    run = Run([0, 0, 1], [3], [1.0])
    actual = evaluate_run(run, Qrels([0, 1, 2], [3, 3], [1, 1]), ["map", "auc", "precision"])
    assert actual.values["map"].tolist() == [0.0, 1.0]
    assert np.isnan(actual.values["auc"]).all()  # nothing irrelevant was ranked
    assert actual.values["precision"].tolist() == [0.0, 1.0]
    assert not actual.missing_queries
    assert actual.to_json()["metrics"]["auc"] == {"mean": None, "low": None, "high": None}
    nowhere = Run([0, 0], [], [])
    assert evaluate_run(nowhere, Qrels([0, 1], [3], [1]), ["map"]).mean("map") == 0.0


ONE = Run([0, 1], [0], [1.0])
RIGHT = Qrels([0, 1], [0], [1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Run([0, 2], [1, 1], [0.5, 0.1]), "query '0' has the document '1' twice"),
        (lambda: Qrels([0, 2], [0, 0], [1, 2], ["q"], ["d"]), "query 'q' has the document 'd' twice"),
        (lambda: Run([0, 1, 2], [1, 1], [0.5, 0.1], ["q", "q"]), "'q' comes twice, expected each name once"),
        (lambda: Run([0, 1], [1], [np.nan]), "1 NaN"),
        (lambda: Run([0, 1], [1], [[1.0]]), r"shape (1, 1)"),
        (lambda: Run([0, 2], [1], [1.0]), "never decrease and end at 1"),
        (lambda: Run([0, 1], [1, 2], [1.0]), "2 documents and 1 scores"),
        (lambda: Run([0, 1], [0.5], [1.0]), "expected a row of integers"),
        (lambda: Run([0, 1], [-1], [1.0]), "Run.documents: got -1 to -1"),
        (lambda: Run([0, 1], [1], [1.0], None, ["a"]), "got 1 to 1, expected 0 to 0"),
        (lambda: Run([0, 1], [1], [1.0], ["a", "b"]), "2 query names for 1 queries"),
        (lambda: Run.from_matrix([[1, 2]], [[1.0]]), "expected [Q, K] of both"),
        (lambda: Qrels([0, 1], [1], [np.inf]), "1 numbers that are not finite"),
        (lambda: evaluate_run(ONE, RIGHT, ["map", "map"]), "each once"),
        (lambda: evaluate_run(ONE, RIGHT, []), "expected at least one"),
        (lambda: evaluate_run(ONE, RIGHT, ["ndgc@5"]), "Did you mean 'ndcg'"),
        (lambda: evaluate_run(ONE, RIGHT, ties="trek"), "got ties 'trek'. Did you mean 'trec'"),
        (lambda: evaluate_run(ONE, RIGHT, relevant_from=0), "expected a gain above 0"),
        (lambda: evaluate_run(ONE, Qrels([0, 1], [0], [1], ["x"])), "(first '0') and 1 of the judgements"),
    ],
)  # fmt: skip
def test_refusals(call, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        call()
