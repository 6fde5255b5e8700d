"""How an index searches and why: what was tried, what it measured, and what was taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["AnnSettings", "SearchPlan", "Trial"]


@dataclass(frozen=True)
class AnnSettings:
    """What an approximate search needs beside its faiss file.

    Args:
        factory: the faiss factory string, for example "IVF1024,PQ32x4fs".
        effort: lists that are probed (IVF), or the length of the queue (HNSW).
        refine_factor: candidates a wanted neighbour whose scores are computed anew.
    """

    factory: str
    effort: int
    refine_factor: int

    def __str__(self) -> str:
        name = "nprobe" if self.factory.startswith("IVF") else "efSearch"
        return f"{self.factory} {name}={self.effort} refine={self.refine_factor}"


@dataclass(frozen=True)
class Trial:
    """One candidate, measured.

    Args:
        name: the index and its parameters.
        num_vectors: vectors it was measured on.
        recall: share of the true k nearest that it found, for queries that had no part in the choice.
        queries_per_second: in one batch, with the threads that faiss has.
        memory_mb: of the index, without the vectors (for all vectors, also where measured on fewer).
        build_seconds: on those vectors.
        verdict: why it was taken, or not.
    """

    name: str
    num_vectors: int
    recall: float
    queries_per_second: float
    memory_mb: float
    build_seconds: float
    verdict: str


@dataclass(frozen=True)
class SearchPlan:
    """Why the index searches as it does; `str(plan)` is a table for people.

    Args:
        reason: what was taken, and why.
        target_recall: share of the true k nearest that was asked for; 1 for exact search.
        k: the number of neighbours that the recall is of.
        trials: every candidate, measured; the last one was taken.
        device: where it searches now, and why ("" in a bundle, which does not know who opens it).

    Example:
        >>> from mmattn.retrieval.index import Index
        >>> print(Index.build([[1.0, 0.0], [0.0, 1.0]], device="cpu").plan())
        exact search: only 2 vectors
        on cpu: as asked
    """

    reason: str
    target_recall: float
    k: int
    trials: tuple[Trial, ...] = field(default=())
    device: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> SearchPlan:
        """What `to_dict` gave.

        Args:
            content: as `to_dict` returned it.
        """
        trials = tuple(Trial(**trial) for trial in content["trials"])
        device = content.get("device", "")
        return cls(content["reason"], content["target_recall"], content["k"], trials, device)

    def __str__(self) -> str:
        lines = [self.reason, *([f"on {self.device}"] if self.device else [])]
        if self.trials:
            lines.append(f"{'index':<44} {'on':>10} {'recall':>7} {'queries/s':>10} {'MB':>8} {'build s':>8}")
        for trial in self.trials:
            lines.append(
                f"{trial.name:<44} {trial.num_vectors:>10,} {trial.recall:>7.4f} "
                f"{trial.queries_per_second:>10,.0f} "
                f"{trial.memory_mb:>8.1f} {trial.build_seconds:>8.1f}  {trial.verdict}"
            )
        return "\n".join(lines)
