"""Which approximate index, with which parameters: chosen by measuring, and said.

Every candidate is built on a sample of the data and measured against exact search there; the quickest one
that reaches the recall is built on everything, its search parameter measured again, and taken where it
is quicker than exact search on the same device.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mmattn.retrieval.search.ann import AnnSearch, load_faiss
from mmattn.retrieval.search.exact import ExactSearch, Metric
from mmattn.retrieval.search.plan import Plan, Settings, Trial

__all__ = ["EXACT_BELOW", "FEWEST", "choose"]

EXACT_BELOW = 50_000  # vectors: below, exact search answers thousands of queries a second
FEWEST = 1000  # vectors: with fewer there is nothing to train on
_SAMPLE = 65_536  # vectors that candidates are compared on
_ASKED = 800  # queries they are compared with, half to choose and half to report
_EFFORTS = {
    "IVF": (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64, 96, 128, 256),
    "HNSW": (10, 16, 24, 32, 48, 64, 96, 128, 256, 512),
}


def choose(
    vectors: np.ndarray,
    metric: Metric,
    *,
    target_recall: float = 0.95,
    k: int = 10,
    budget_mb: float | None = None,
    build_minutes: float = 4.0,
    device: str = "cpu",
    or_exact: bool = True,
) -> tuple[AnnSearch | None, Plan]:
    """Find the quickest index that reaches the recall, by trying; None where exact search is to be used.

    Args:
        vectors: [N, D] float32.
        metric: as in `Index.build`.
        target_recall: share of the true k nearest that has to be found.
        k: the number of neighbours that it is measured with.
        budget_mb: memory that the index may take beside the vectors.
        build_minutes: candidates that would take longer to build on everything are left out.
        device: where everybody searches.
        or_exact: is exact search taken where it is quicker than the best of the others?
    """
    rng = np.random.default_rng(0)
    sample = vectors[np.sort(rng.choice(len(vectors), min(_SAMPLE, len(vectors)), replace=False))]
    judge = _Judge(sample, metric, target_recall, k, device)
    scale = len(vectors) / len(sample)
    trials, able = [], []
    for kind in _kinds(len(sample), vectors.shape[1]):
        for found in _tried(judge, kind, scale):
            verdict = "able"
            if not found.reached:
                verdict = "misses the recall"
            elif budget_mb is not None and found.trial.memory_mb > budget_mb:
                verdict = f"above the budget of {budget_mb:g} MB"
            elif found.adding * scale * 1.3 > 60 * build_minutes:  # a little more than linear
                verdict = "takes too long to build on everything"
            else:
                able.append((found.trial.queries_per_second, found.settings))
            trials.append(replace(found.trial, verdict=verdict))
    full = _Judge(vectors, metric, target_recall, k, device) if scale > 1 else judge
    trials.append(full.exact)
    for _, settings in sorted(able, key=lambda pair: -pair[0]):
        search, result = _grown(full, settings)
        slower = or_exact and result.trial.queries_per_second <= full.exact.queries_per_second
        if result.reached and not slower:
            reason = (
                f"{result.settings}: the quickest of {len(able)} candidates that reach recall@{k} "
                f"{target_recall:g} on a sample"
            )
            taken = replace(result.trial, verdict="taken")
            return search, Plan(reason, target_recall, k, (*trials, taken))
        verdict = "slower than exact search" if result.reached else "misses the recall on everything"
        trials.append(replace(result.trial, verdict=verdict))
        if result.reached:
            reason = f"exact search: quicker than {result.settings}, the quickest approximate one"
            return None, Plan(reason, 1.0, k, tuple(trials))
    reason = f"exact search: no approximate index reaches recall@{k} {target_recall:g} within the limits"
    return None, Plan(reason, target_recall, k, tuple(trials))


@dataclass(frozen=True)
class _Found:
    settings: Settings
    trial: Trial
    reached: bool
    adding: float  # seconds of the build that grow with the number of vectors


class _Judge:
    """Measures searches over some vectors against the truth: their own nearest, themselves left out."""

    def __init__(self, vectors: np.ndarray, metric: Metric, target: float, k: int, device: str):
        self.vectors, self.metric, self.target, self.k = vectors, metric, target, k
        self.device = device
        self.asked = np.random.default_rng(1).choice(len(vectors), min(_ASKED, len(vectors)), replace=False)
        self.queries = np.ascontiguousarray(vectors[self.asked])
        search = ExactSearch(vectors, metric, device)
        search(self.queries[:64], k + 1)  # what is done once, whoever asks, is no part of the speed
        start = time.perf_counter()
        self.truth = self._without_self(search(self.queries, k + 1)[1])
        speed = len(self.asked) / (time.perf_counter() - start)
        self.exact = Trial("exact search", len(vectors), 1.0, speed, 0.0, 0.0, "for comparison")

    def _without_self(self, rows: np.ndarray) -> np.ndarray:
        keep = rows != self.asked[:, None]
        keep[keep.all(1), -1] = False
        return rows[keep].reshape(len(rows), -1)

    def tune(self, search: AnnSearch, seconds: float, scale: float) -> _Found:
        """Raise the effort until the recall is reached; half of the queries choose, the other half report."""
        family = "IVF" if search.settings.kind.startswith("IVF") else "HNSW"
        half = len(self.asked) // 2
        for effort in _EFFORTS[family]:
            search.settings = Settings(search.settings.kind, effort, search.settings.refine)
            start = time.perf_counter()
            rows = self._without_self(search.search(self.vectors, self.queries, self.k + 1)[1])
            speed = len(self.asked) / (time.perf_counter() - start)
            hits_Q = (rows[:, :, None] == self.truth[:, None, :]).any(2).mean(1)
            chosen = hits_Q[:half]
            # Two standard errors above the target, so that other queries reach it too.
            reached = bool(chosen.mean() - 2 * chosen.std() / np.sqrt(half) >= self.target)
            if reached or effort == _EFFORTS[family][-1]:
                break
        trial = Trial(
            str(search.settings), len(self.vectors), float(hits_Q[half:].mean()), speed,
            _megabytes(search.index) * scale, seconds, "",
        )  # fmt: skip
        return _Found(search.settings, trial, reached, search.adding)


def _grown(full: _Judge, settings: Settings) -> tuple[AnnSearch, _Found]:
    """What was good on a sample, built on everything, with as many lists as that needs."""
    head, *rest = settings.kind.split(",")
    kind = ",".join([f"IVF{_lists(len(full.vectors))}", *rest]) if head.startswith("IVF") else settings.kind
    start = time.perf_counter()
    search = AnnSearch.build(full.vectors, full.metric, Settings(kind, settings.effort, settings.refine))
    seconds = time.perf_counter() - start
    search.to(full.device)
    return search, full.tune(search, seconds, 1.0)


def _tried(judge: _Judge, kind: str, scale: float) -> Iterator[_Found]:
    """A kind of index, with each refinement that makes sense for it."""
    start = time.perf_counter()
    search = AnnSearch.build(judge.vectors, judge.metric, Settings(kind, 1, 1))
    seconds = time.perf_counter() - start
    search.to(judge.device)
    for refine in (4, 12) if "PQ" in kind else (2,) if "SQ" in kind else (1,):
        search.settings = Settings(kind, 1, refine)
        yield judge.tune(search, seconds, scale)


def _kinds(count: int, dim: int) -> list[str]:
    lists = _lists(count)
    kinds = [f"IVF{lists},Flat", f"IVF{lists},SQ8", "HNSW32"]
    if dim % 2 == 0:
        kinds.insert(0, f"IVF{lists},PQ{dim // 2}x4fs")
    return kinds


def _lists(count: int) -> int:
    """Inverted lists: about twice the square root, a power of two."""
    return int(2 ** np.clip(np.round(np.log2(2 * np.sqrt(count))), 3, 12))


def _megabytes(index: Any) -> float:
    return len(load_faiss().serialize_index(index)) / 1e6
