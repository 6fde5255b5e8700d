"""Evaluation against pytrec_eval-terrier: four metrics of 10,000 queries x 100 documents on one thread.

    mmattn bench evaluation [--queries 10000] [--depth 100] [--repeat 7]

Each starts from its own form: we from index arrays (making and checking `Run` and `Qrels` is in our time),
pytrec_eval from finished dictionaries and a finished evaluator (neither is in its time). They run in turn
in one process; medians of processor time count. Both must agree to 1e-6 on every query.
"""

from __future__ import annotations

import itertools
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytrec_eval

from mmattn.evaluation.trec.evaluate import Evaluation, evaluate_run
from mmattn.evaluation.trec.run import Qrels, Run
from mmattn.testing.measuring import Report, chosen, in_turn, options, process_seconds

NAMES = {"ndcg@10": "ndcg_cut_10", "map@100": "map_cut_100", "mrr": "recip_rank", "recall@100": "recall_100"}
ASKED = {"ndcg_cut.10", "map_cut.100", "recip_rank", "recall.100"}
DOCUMENTS, JUDGED = 100_000, 20


def as_dictionaries(offsets: np.ndarray, documents: np.ndarray, numbers: np.ndarray) -> dict:
    names, values = documents.astype(str).tolist(), numbers.tolist()
    return {
        str(query): dict(zip(names[start:end], values[start:end], strict=True))
        for query, (start, end) in enumerate(itertools.pairwise(offsets))
    }


def compare(report: Report, name: str, scores_QK: np.ndarray, repeat: int) -> None:
    """A row of the table."""
    rng = np.random.default_rng(1)
    queries, depth = scores_QK.shape
    documents_QK = np.stack([rng.choice(DOCUMENTS, depth, replace=False) for _ in range(queries)])
    judged = [
        np.union1d(row[rng.random(depth) < JUDGED / 2 / depth], rng.integers(0, DOCUMENTS, JUDGED // 2))
        for row in documents_QK
    ]
    offsets = np.arange(queries + 1) * depth
    judged_offsets = np.concatenate([[0], np.cumsum([len(row) for row in judged])])
    judged_documents = np.concatenate(judged)
    gains = rng.integers(0, 4, len(judged_documents))

    def ours() -> Evaluation:
        run = Run(offsets, documents_QK.ravel(), scores_QK.ravel())
        return evaluate_run(run, Qrels(judged_offsets, judged_documents, gains), list(NAMES), ties="trec")

    run = as_dictionaries(offsets, documents_QK.ravel(), scores_QK.ravel())
    evaluator = pytrec_eval.RelevanceEvaluator(
        as_dictionaries(judged_offsets, judged_documents, gains), ASKED
    )
    baselines = {"ours": ours, "pytrec_eval": lambda: evaluator.evaluate(run)}
    seconds = in_turn(baselines, repeat, process_seconds)
    actual, official = ours(), evaluator.evaluate(run)
    apart = max(
        np.abs(actual.values[name] - [official[query][theirs] for query in actual.queries]).max()
        for name, theirs in NAMES.items()
    )
    if apart > 1e-6:
        raise AssertionError(f"{name}: a query differs by {apart}")
    report.row(
        name,
        f"{actual.tie_rate:.1%}",
        seconds["ours"],
        seconds["pytrec_eval"],
        seconds["pytrec_eval"] / seconds["ours"],
        f"{apart:.1e}",
    )


def main() -> None:
    parser = options(__doc__, repeat=7)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--depth", type=int, default=100)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    scores_QK = rng.random((arguments.queries, arguments.depth), np.float32)
    report = Report(arguments, "numpy", "pytrec-eval-terrier")
    report.table(
        f"{arguments.queries:,} queries x {arguments.depth} documents; {', '.join(NAMES)}; one thread",
        ["scores", "tied", "ours, s", "pytrec_eval, s", "times", "largest gap"],
    )
    kinds = {
        "random": lambda: scores_QK,
        "one decimal": lambda: np.round(scores_QK, 1),
        "best first": lambda: -np.sort(-scores_QK, axis=1),
    }
    for name, scores in kinds.items():
        if chosen(name, arguments.cases):
            compare(report, name, scores(), arguments.repeat)
    report.close()


if __name__ == "__main__":
    main()
