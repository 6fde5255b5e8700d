"""Common interface of `Index`, `ShardedIndex`, `MaxSimIndex` and `FusedIndex`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

from mmattn.retrieval.hits import Hits
from mmattn.retrieval.storage.bundle import OpenedBundle

__all__ = ["SearchIndex"]


@runtime_checkable
class SearchIndex(Protocol):
    """Items that are searched by vector and saved to a folder that is verified when opened.

    The form of a query depends on the index: [Q, D] vectors for `Index` and `ShardedIndex`, an array [T, D]
    per query for `MaxSimIndex`, modality -> [Q, D] vectors for `FusedIndex`.
    """

    def __len__(self) -> int:
        """Number of items."""

    def __contains__(self, name: object) -> bool:
        """Whether the index has an item with this id."""

    def search(self, queries: Any, k: int = 10) -> Hits:
        """Find the best k items of each query.

        Args:
            queries: Q queries.
            k: items per query, at most.
        """

    def save(self, folder: str | Path) -> None:
        """Write the index to a folder, atomically.

        Args:
            folder: new, empty, or a bundle that is replaced.
        """

    @classmethod
    def open(cls, folder: str | Path, *, device: str = "auto") -> Self:
        """Open a folder written by `save`, after checking the hash of every file.

        Args:
            folder: the bundle.
            device: "auto", "cpu" or a CUDA device.
        """

    @classmethod
    def from_bundle(cls, opened: OpenedBundle, device: str = "auto") -> Self:
        """Restore the index of a verified bundle.

        Args:
            opened: the bundle.
            device: as in `open`.
        """
