"""Search plan of an index: the candidates, their measurements and the choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["AnnSettings", "SearchPlan", "Trial"]


@dataclass(frozen=True)
class AnnSettings:
    """Settings of an approximate search that are not part of the faiss file.

    Args:
        factory: faiss factory string, for example "IVF1024,PQ32x4fs".
        effort: number of probed lists (IVF), or length of the candidate queue (HNSW).
        refine_factor: candidates per requested neighbour whose scores are recomputed.
    """

    factory: str
    effort: int
    refine_factor: int

    def __str__(self) -> str:
        name = "nprobe" if self.factory.startswith("IVF") else "efSearch"
        return f"{self.factory} {name}={self.effort} refine={self.refine_factor}"


@dataclass(frozen=True)
class Trial:
    """Measurement of one candidate.

    Args:
        name: the index and its parameters.
        num_vectors: number of vectors it was measured on.
        recall: fraction of the true k nearest neighbours found, on queries not used for tuning.
        queries_per_second: measured on one batch, with the default number of threads.
        memory_mb: MB of the index without the vectors, extrapolated to all vectors.
        build_seconds: build time on `num_vectors` vectors.
        verdict: why it was chosen or rejected.
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
    """The selected search method with its reason and measurements; `str(plan)` is a table for display.

    Args:
        reason: what was chosen, and why.
        target_recall: requested fraction of the true k nearest neighbours; 1 for exact search.
        k: number of neighbours that the recall refers to.
        trials: the measured candidates, the chosen one last.
        device: device of the current process and why it was chosen; "" in a bundle.

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
        """Convert to JSON-compatible values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> SearchPlan:
        """Restore a plan from the values of `to_dict`.

        Args:
            content: mapping with the keys reason, target_recall, k, trials and optionally device.
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
