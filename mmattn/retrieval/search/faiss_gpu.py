"""A copy of a faiss index on a GPU: used where it can be, never needed."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

__all__ = ["GpuIndexCopy"]

_MAX_K = 2048  # neighbours and lists that faiss's GPU kernels can select among


class GpuIndexCopy:
    """Answers what faiss's GPU indexes can answer: plain searches, without a filter, of not too many.

    The index on the CPU stays the one that is saved, changed and filtered.

    Args:
        resources: faiss resources of the GPU.
        index: the faiss index on the CPU.
    """

    def __init__(self, resources: Any, index: Any):
        self._resources = resources  # faiss does not keep its own scratch memory alive
        self.index = index
        # Two threads must not use the scratch memory of one device at once.
        self._lock = threading.Lock()

    @classmethod
    def create(cls, faiss: Any, index: Any, kind: str, device: str) -> GpuIndexCopy | None:
        """The copy, or None where faiss sees no such GPU or has no such index for one.

        Args:
            faiss: the module.
            index: on the CPU.
            kind: its factory string.
            device: "cuda:0", or "cpu" for no copy.
        """
        number = int(device.removeprefix("cuda:")) if device.startswith("cuda:") else -1
        # There is a faiss without the GPU part; and graphs and "fast scan" codes are for CPUs.
        seen = faiss.get_num_gpus() if hasattr(faiss, "StandardGpuResources") else 0
        if not 0 <= number < seen or not kind.startswith("IVF") or kind.endswith("fs"):
            return None
        resources = faiss.StandardGpuResources()
        try:
            return cls(resources, faiss.index_cpu_to_gpu(resources, number, index))
        except RuntimeError:  # no room left: torch and faiss do not know of each other's memory
            return None

    def supports(self, num_candidates: int, effort: int, filtered: bool) -> bool:
        """Return whether the GPU can do a search.

        Args:
            num_candidates: number of hits.
            effort: lists that are probed.
            filtered: only some vectors may be found.
        """
        return not filtered and max(num_candidates, effort) <= _MAX_K

    def search(self, queries: np.ndarray, num_candidates: int, parameters: Any) -> np.ndarray:
        """Search; returns [Q, num_candidates] faiss numbers, -1 where no more was found.

        Args:
            queries: [Q, D].
            num_candidates: number of hits.
            parameters: faiss search parameters.
        """
        with self._lock:
            result: np.ndarray = self.index.search(queries, num_candidates, params=parameters)[1]
            return result

    def add(self, vectors: np.ndarray) -> None:
        """Follow the index on the CPU.

        Args:
            vectors: [n, D] vectors that were added on the CPU.
        """
        with self._lock:
            self.index.add(vectors)
