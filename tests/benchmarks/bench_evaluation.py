"""Evaluation against pytrec_eval-terrier: four metrics of 10,000 queries x 100 documents on one thread.

    python tests/benchmarks/bench_evaluation.py [--queries 10000] [--depth 100] [--repeat 7]

Each starts from its own form: we from index arrays (making and checking `Run` and `Qrels` is in our time),
pytrec_eval from finished dictionaries and a finished evaluator (neither is in its time). They run in turn
in one process; medians of processor time count. Both must agree to 1e-6 on every query.
"""

from __future__ import annotations

import argparse
import itertools
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import time
from collections.abc import Callable

import numpy as np
import pytrec_eval

from mmattn.evaluation.judge import Evaluation, evaluate_run
from mmattn.evaluation.runs import Qrels, Run

NAMES = {"ndcg@10": "ndcg_cut_10", "map@100": "map_cut_100", "mrr": "recip_rank", "recall@100": "recall_100"}
ASKED = {"ndcg_cut.10", "map_cut.100", "recip_rank", "recall.100"}
DOCUMENTS, JUDGED = 100_000, 20


def in_turn(rivals: dict[str, Callable[[], object]], repeat: int) -> dict[str, float]:
    """Median processor seconds of each."""
    times: dict[str, list[float]] = {name: [] for name in rivals}
    for turn in range(repeat + 1):
        for name, run in rivals.items():
            start = time.process_time()
            run()
            if turn:  # the first one warms up
                times[name].append(time.process_time() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def as_dictionaries(offsets: np.ndarray, documents: np.ndarray, numbers: np.ndarray) -> dict:
    names, values = documents.astype(str).tolist(), numbers.tolist()
    return {
        str(query): dict(zip(names[start:end], values[start:end], strict=True))
        for query, (start, end) in enumerate(itertools.pairwise(offsets))
    }


def compare(name: str, scores_QK: np.ndarray, repeat: int) -> None:
    """One line of the table."""
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
    seconds = in_turn({"ours": ours, "pytrec_eval": lambda: evaluator.evaluate(run)}, repeat)
    found, official = ours(), evaluator.evaluate(run)
    apart = max(
        np.abs(found.values[own] - [official[query][theirs] for query in found.queries]).max()
        for own, theirs in NAMES.items()
    )
    if apart > 1e-6:
        raise AssertionError(f"{name}: a query differs by {apart}")
    times = "".join(f"{seconds[who]:>14.4f}" for who in ("ours", "pytrec_eval"))
    ratio = seconds["pytrec_eval"] / seconds["ours"]
    print(f"{name:<22}{found.tie_rate:>10.1%}{times}{ratio:>10.1f}{apart:>14.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--repeat", type=int, default=7)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    scores_QK = rng.random((arguments.queries, arguments.depth), np.float32)
    print(f"{arguments.queries:,} queries x {arguments.depth} documents; {', '.join(NAMES)}; one thread")
    print(f"{'scores':<22}{'tied':>10}{'ours, s':>14}{'pytrec_eval, s':>14}{'times':>10}{'largest gap':>14}")
    compare("random", scores_QK, arguments.repeat)
    compare("one decimal", np.round(scores_QK, 1), arguments.repeat)
    compare("best first", -np.sort(-scores_QK, axis=1), arguments.repeat)


if __name__ == "__main__":
    main()
