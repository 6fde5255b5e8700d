"""Search engine of an index: exact or approximate, on a device, with row filters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mmattn.errors import InputError, did_you_mean
from mmattn.retrieval.search.ann import AnnSearch
from mmattn.retrieval.search.devices import Placement, choose_placement
from mmattn.retrieval.search.exact import ExactSearch, Metric
from mmattn.retrieval.search.index_selection import EXACT_BELOW, MIN_ANN_VECTORS, select_index
from mmattn.retrieval.search.plan import SearchPlan

__all__ = ["SearchEngine"]

_KINDS = ("auto", "exact", "ann")


class SearchEngine:
    """Exact and approximate search over the vectors of one index.

    Args:
        vectors: [N, D] float32.
        metric: "ip", "l2" or "cosine".
        plan: the chosen method and the measurements behind it.
        ann: approximate search; None if the plan is exact.
        device: as in `Index.build`.

    Example:
        >>> engine = SearchEngine(np.eye(3, dtype=np.float32), "ip", SearchPlan("exact search", 1.0, 10),
        ...     device="cpu")
        >>> engine.search(np.array([[0.1, 0.2, 0.9]], np.float32), 2)[1].tolist()
        [[2, 1]]
    """

    def __init__(
        self, vectors: np.ndarray, metric: Metric, plan: SearchPlan, ann: AnnSearch | None = None,
        device: str = "auto",
    ):  # fmt: skip
        self.metric = metric
        self.selected_plan = plan
        self.ann = ann
        self._requested_device = device
        self._set_vectors(vectors)
        if ann is not None:
            ann.to(self.placement.device)

    @classmethod
    def build(
        cls, vectors: np.ndarray, metric: Metric, *, target_recall: float = 0.95,
        budget_mb: float | None = None, kind: str = "auto", device: str = "auto",
    ) -> SearchEngine:  # fmt: skip
        """Choose the search method for vectors.

        Args:
            vectors: [N, D] float32.
            metric: "ip", "l2" or "cosine".
            target_recall: fraction of the true 10 nearest neighbours that a search has to find; 1 means
                exact.
            budget_mb: MB that an approximate index may take in addition to the vectors; None means no limit.
            kind: "auto", "exact" or "ann", as in `Index.build`.
            device: as in `Index.build`.

        Raises:
            InputError: a recall outside (0, 1], or an unknown kind or device.
        """
        if not 0 < target_recall <= 1:
            raise InputError(f"index: got target_recall={target_recall}, expected more than 0 and at most 1")
        if kind not in _KINDS:
            raise InputError(f"index: no kind {kind!r}.{did_you_mean(str(kind), _KINDS)}")
        where = choose_placement(device, *vectors.shape)
        wants_exact = kind == "exact" or target_recall == 1
        if wants_exact or len(vectors) < (EXACT_BELOW if kind == "auto" else MIN_ANN_VECTORS):
            why = "as asked" if wants_exact else f"only {len(vectors):,} vectors"
            return cls(vectors, metric, SearchPlan(f"exact search: {why}", 1.0, 10), None, device)
        ann, plan = select_index(
            vectors, metric, target_recall=target_recall, budget_mb=budget_mb, device=where.device,
            allow_exact=kind == "auto",
        )  # fmt: skip
        return cls(vectors, metric, plan, ann, device)

    def _set_vectors(self, vectors: np.ndarray) -> None:
        self._vectors = vectors
        self.placement: Placement = choose_placement(self._requested_device, *vectors.shape)
        self._exact = ExactSearch(vectors, self.metric, self.placement.device)

    def plan(self) -> SearchPlan:
        """The selected plan, with the device that searches run on in this process."""
        copied = "" if self.ann is None or self.ann.gpu_copy is None else ", with a copy of the faiss index"
        return replace(self.selected_plan, device=f"{self.placement}{copied}")

    def search(
        self, queries: np.ndarray, k: int, rows: np.ndarray | None = None, *, exact: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the k best rows of each query.

        Args:
            queries: [Q, D] float32.
            k: rows per query.
            rows: [R] int64, ascending, restrict the search to these rows; None means all.
            exact: compare with every vector, even if the plan is approximate.

        Returns:
            Scores [Q, k] float32, best first, and rows [Q, k] int64; fewer columns if fewer rows pass the
            filter.
        """
        few = rows is not None and len(rows) <= max(EXACT_BELOW // 4, 4 * k)
        if self.ann is None or few or exact:
            return self._exact(queries, k, rows)
        scores, hit_rows = self.ann.search(self._vectors, queries, k, rows)
        # A filter may exclude every vector in the probed lists: such queries are searched exactly.
        short = np.flatnonzero((hit_rows < 0).any(1)) if hit_rows.shape[1] == k else np.arange(len(queries))
        if len(short) == len(queries):
            return self._exact(queries, k, rows)
        if len(short):
            scores[short], hit_rows[short] = self._exact(queries[short], k, rows)
        return scores, hit_rows

    def add(self, vectors: np.ndarray, new: np.ndarray) -> None:
        """Take over appended vectors.

        Args:
            vectors: [N, D] float32, all vectors: the old ones, then the new ones.
            new: [n, D] float32, the new ones alone.
        """
        if self.ann is not None:
            self.ann.add(new, len(vectors) - len(new))
        self._set_vectors(vectors)

    def remove(self, vectors: np.ndarray, keep: np.ndarray) -> None:
        """Take over the removal of vectors.

        Args:
            vectors: [N, D] float32, the vectors that remain.
            keep: boolean mask over the old vectors, true for those that remain.
        """
        if self.ann is not None:
            self.ann.remove(keep)
        self._set_vectors(vectors)
