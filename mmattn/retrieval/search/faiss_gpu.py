"""Optional copy of a faiss index on a GPU."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

__all__ = ["GpuIndexCopy"]

_MAX_K = 2048  # neighbours and lists that faiss's GPU kernels can select among


class GpuIndexCopy:
    """GPU copy of a faiss index for unfiltered searches with a limited number of candidates.

    The index on the CPU stays the one that is saved, changed and used with filters.

    Args:
        resources: faiss `StandardGpuResources`, kept alive here.
        index: the faiss index on the GPU.
    """

    def __init__(self, resources: Any, index: Any):
        self._resources = resources  # the faiss index holds no reference to its scratch memory
        self.index = index
        # Two threads must not use the scratch memory of one device at once.
        self._lock = threading.Lock()

    @classmethod
    def create(cls, faiss: Any, index: Any, kind: str, device: str) -> GpuIndexCopy | None:
        """Copy an index to a GPU; None if faiss sees no such GPU, cannot copy this type, or lacks memory.

        Args:
            faiss: the faiss module.
            index: index on the CPU.
            kind: factory string of the index.
            device: for example "cuda:0"; "cpu" for no copy.
        """
        number = int(device.removeprefix("cuda:")) if device.startswith("cuda:") else -1
        # faiss may be built without GPU support; graph and "fast scan" indexes are for CPUs only.
        seen = faiss.get_num_gpus() if hasattr(faiss, "StandardGpuResources") else 0
        if not 0 <= number < seen or not kind.startswith("IVF") or kind.endswith("fs"):
            return None
        resources = faiss.StandardGpuResources()
        try:
            return cls(resources, faiss.index_cpu_to_gpu(resources, number, index))
        except RuntimeError:  # out of memory: torch and faiss allocate independently
            return None

    def supports(self, num_candidates: int, effort: int, filtered: bool) -> bool:
        """Whether this search can run on the GPU.

        Args:
            num_candidates: candidates per query.
            effort: number of probed lists.
            filtered: whether the search is restricted to some vectors.
        """
        return not filtered and max(num_candidates, effort) <= _MAX_K

    def search(self, queries: np.ndarray, num_candidates: int, parameters: Any) -> np.ndarray:
        """Candidates of each query.

        Args:
            queries: [Q, D] float32.
            num_candidates: candidates per query.
            parameters: faiss search parameters.

        Returns:
            [Q, num_candidates] faiss numbers, -1 where fewer were found.
        """
        with self._lock:
            result: np.ndarray = self.index.search(queries, num_candidates, params=parameters)[1]
            return result

    def add(self, vectors: np.ndarray) -> None:
        """Add the vectors that were added to the index on the CPU.

        Args:
            vectors: [n, D] float32.
        """
        with self._lock:
            self.index.add(vectors)
