"""Choice of an approximate index and its parameters by measurement.

Every candidate is built on a sample of the data and compared with exact search there. The fastest one that
reaches the target recall is built on all vectors, its search parameter is tuned again, and it is used if it
is faster than exact search on the same device.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mmattn.retrieval.search.ann import AnnSearch, load_faiss
from mmattn.retrieval.search.exact import ExactSearch, Metric
from mmattn.retrieval.search.plan import AnnSettings, SearchPlan, Trial

__all__ = ["EXACT_BELOW", "MIN_ANN_VECTORS", "select_index"]

EXACT_BELOW = 50_000  # vectors: below, exact search answers thousands of queries per second
MIN_ANN_VECTORS = 1000  # vectors: fewer are too few for training
_SAMPLE_SIZE = 65_536  # vectors in the sample on which candidates are compared
_NUM_QUERIES = 800  # queries: half tune the effort, half measure the reported recall
_EFFORTS = {
    "IVF": (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64, 96, 128, 256),
    "HNSW": (10, 16, 24, 32, 48, 64, 96, 128, 256, 512),
}


def select_index(
    vectors: np.ndarray,
    metric: Metric,
    *,
    target_recall: float = 0.95,
    k: int = 10,
    budget_mb: float | None = None,
    build_minutes: float = 4.0,
    device: str = "cpu",
    allow_exact: bool = True,
) -> tuple[AnnSearch | None, SearchPlan]:
    """Find the fastest index that reaches the target recall, by measuring candidates.

    Args:
        vectors: [N, D] float32.
        metric: as in `Index.build`.
        target_recall: fraction of the true k nearest neighbours that has to be found.
        k: number of neighbours that the recall is measured with.
        budget_mb: MB that the index may take in addition to the vectors; None means no limit.
        build_minutes: candidates with a longer estimated build time on all vectors are left out.
        device: device of all measured searches.
        allow_exact: whether exact search is used if it is faster than the best candidate.

    Returns:
        The approximate search, None if exact search is to be used, and the plan with all measurements.
    """
    rng = np.random.default_rng(0)
    sample = vectors[np.sort(rng.choice(len(vectors), min(_SAMPLE_SIZE, len(vectors)), replace=False))]
    judge = _RecallBenchmark(sample, metric, target_recall, k, device)
    scale = len(vectors) / len(sample)
    trials, able = [], []
    for kind in _candidate_factories(len(sample), vectors.shape[1]):
        for measured in _measure_candidates(judge, kind, scale):
            verdict = "able"
            if not measured.recall_reached:
                verdict = "misses the recall"
            elif budget_mb is not None and measured.trial.memory_mb > budget_mb:
                verdict = f"above the budget of {budget_mb:g} MB"
            elif measured.add_seconds * scale * 1.3 > 60 * build_minutes:  # a little more than linear
                verdict = "takes too long to build on everything"
            else:
                able.append((measured.trial.queries_per_second, measured.settings))
            trials.append(replace(measured.trial, verdict=verdict))
    full = _RecallBenchmark(vectors, metric, target_recall, k, device) if scale > 1 else judge
    trials.append(full.exact_trial)
    for _, settings in sorted(able, key=lambda pair: -pair[0]):
        search, result = _build_on_all(full, settings)
        slower = allow_exact and result.trial.queries_per_second <= full.exact_trial.queries_per_second
        if result.recall_reached and not slower:
            reason = (
                f"{result.settings}: the quickest of {len(able)} candidates that reach recall@{k} "
                f"{target_recall:g} on a sample"
            )
            taken = replace(result.trial, verdict="taken")
            return search, SearchPlan(reason, target_recall, k, (*trials, taken))
        verdict = "slower than exact search" if result.recall_reached else "misses the recall on everything"
        trials.append(replace(result.trial, verdict=verdict))
        if result.recall_reached:
            reason = f"exact search: quicker than {result.settings}, the quickest approximate one"
            return None, SearchPlan(reason, 1.0, k, tuple(trials))
    reason = f"exact search: no approximate index reaches recall@{k} {target_recall:g} within the limits"
    return None, SearchPlan(reason, target_recall, k, tuple(trials))


@dataclass(frozen=True)
class _Measurement:
    settings: AnnSettings
    trial: Trial
    recall_reached: bool
    add_seconds: float  # the part of the build time that grows with the number of vectors


class _RecallBenchmark:
    """Measures recall and speed against exact search, with queries drawn from the vectors (self excluded)."""

    def __init__(self, vectors: np.ndarray, metric: Metric, target: float, k: int, device: str):
        self.vectors, self.metric, self.target, self.k = vectors, metric, target, k
        self.device = device
        self.query_rows = np.random.default_rng(1).choice(
            len(vectors), min(_NUM_QUERIES, len(vectors)), replace=False
        )
        self.queries = np.ascontiguousarray(vectors[self.query_rows])
        search = ExactSearch(vectors, metric, device)
        search(self.queries[:64], k + 1)  # warm-up: one-time setup is not part of the speed
        start = time.perf_counter()
        self.ground_truth = self._without_self(search(self.queries, k + 1)[1])
        speed = len(self.query_rows) / (time.perf_counter() - start)
        self.exact_trial = Trial("exact search", len(vectors), 1.0, speed, 0.0, 0.0, "for comparison")

    def _without_self(self, rows: np.ndarray) -> np.ndarray:
        keep = rows != self.query_rows[:, None]
        keep[keep.all(1), -1] = False
        result: np.ndarray = rows[keep].reshape(len(rows), -1)
        return result

    def tune(self, search: AnnSearch, seconds: float, scale: float) -> _Measurement:
        """Raise the effort until the recall is reached; half of the queries tune, the other half report."""
        family = "IVF" if search.settings.factory.startswith("IVF") else "HNSW"
        half = len(self.query_rows) // 2
        for effort in _EFFORTS[family]:
            search.settings = AnnSettings(search.settings.factory, effort, search.settings.refine_factor)
            start = time.perf_counter()
            rows = self._without_self(search.search(self.vectors, self.queries, self.k + 1)[1])
            speed = len(self.query_rows) / (time.perf_counter() - start)
            hits_Q = (rows[:, :, None] == self.ground_truth[:, None, :]).any(2).mean(1)
            chosen = hits_Q[:half]
            # Two standard errors above the target, so that other queries reach it too.
            reached = bool(chosen.mean() - 2 * chosen.std() / np.sqrt(half) >= self.target)
            if reached or effort == _EFFORTS[family][-1]:
                break
        trial = Trial(
            str(search.settings), len(self.vectors), float(hits_Q[half:].mean()), speed,
            _size_in_mb(search.index) * scale, seconds, "",
        )  # fmt: skip
        return _Measurement(search.settings, trial, reached, search.add_seconds)


def _build_on_all(full: _RecallBenchmark, settings: AnnSettings) -> tuple[AnnSearch, _Measurement]:
    """Build on all vectors the index chosen on the sample, with the number of lists adapted."""
    head, *rest = settings.factory.split(",")
    kind = (
        ",".join([f"IVF{_num_lists(len(full.vectors))}", *rest])
        if head.startswith("IVF")
        else settings.factory
    )
    start = time.perf_counter()
    search = AnnSearch.build(
        full.vectors, full.metric, AnnSettings(kind, settings.effort, settings.refine_factor)
    )
    seconds = time.perf_counter() - start
    search.to(full.device)
    return search, full.tune(search, seconds, 1.0)


def _measure_candidates(benchmark: _RecallBenchmark, kind: str, scale: float) -> Iterator[_Measurement]:
    """Measure one type of index with each suitable refinement factor."""
    start = time.perf_counter()
    search = AnnSearch.build(benchmark.vectors, benchmark.metric, AnnSettings(kind, 1, 1))
    seconds = time.perf_counter() - start
    search.to(benchmark.device)
    for refine in (4, 12) if "PQ" in kind else (2,) if "SQ" in kind else (1,):
        search.settings = AnnSettings(kind, 1, refine)
        yield benchmark.tune(search, seconds, scale)


def _candidate_factories(count: int, dim: int) -> list[str]:
    lists = _num_lists(count)
    kinds = [f"IVF{lists},Flat", f"IVF{lists},SQ8", "HNSW32"]
    if dim % 2 == 0:
        kinds.insert(0, f"IVF{lists},PQ{dim // 2}x4fs")
    return kinds


def _num_lists(count: int) -> int:
    """Number of inverted lists: about twice the square root of `count`, rounded to a power of two."""
    return int(2 ** np.clip(np.round(np.log2(2 * np.sqrt(count))), 3, 12))


def _size_in_mb(index: Any) -> float:
    return len(load_faiss().serialize_index(index)) / 1e6
