"""An index in several bundles, searched in parallel and merged exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from mmattn.errors import InputError
from mmattn.retrieval.checks import check_provenance
from mmattn.retrieval.index import Hits, Index

__all__ = ["ShardedIndex", "merge_hits"]


class ShardedIndex:
    """Indexes with different items that are searched as one.

    The merge is exact: the k best of all are among the k best of each. Each shard may lie on another
    disk, and the threads really run at once, since torch and faiss do their work outside Python.

    Args:
        shards: of one width, metric and origin, no id in two of them.

    Raises:
        InputError: shards that do not fit each other, or none.

    Example:
        >>> halves = [Index.build(np.eye(4)[:2], ["a", "b"]), Index.build(np.eye(4)[2:], ["c", "d"])]
        >>> ShardedIndex(halves).search([[0.1, 0.4, 0.3, 0.2]], k=3).ids.tolist()
        [['b', 'c', 'd']]
    """

    def __init__(self, shards: Sequence[Index]):
        if not shards:
            raise InputError("sharded index: got no shards, expected at least one")
        first = shards[0]
        for number, shard in enumerate(shards):
            if (shard.dim, shard.metric) != (first.dim, first.metric):
                raise InputError(
                    f"sharded index: shard {number} has width {shard.dim} and metric {shard.metric}, "
                    f"expected {first.dim} and {first.metric} as shard 0"
                )
            check_provenance(first.provenance, shard.provenance, f"sharded index: shard {number}")
        names = [name for shard in shards for name in shard.ids.tolist()]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"sharded index: id {twice!r} is in two shards, expected it in one")
        self.shards = list(shards)

    @classmethod
    def open(cls, folder: str | Path) -> ShardedIndex:
        """Open every bundle of a folder, in the order of their names.

        Raises:
            InputError: there is none, or one is damaged; it is named.
        """
        found = sorted(path.parent for path in Path(folder).glob("*/manifest.json"))
        if not found:
            raise InputError(f"{folder}: holds no index, expected one folder a shard")
        return cls([Index.open(path) for path in found])

    def __len__(self) -> int:
        """Number of items in all shards."""
        return sum(map(len, self.shards))

    def search(
        self, queries: Any, k: int = 10, *, where: str | None = None,
        provenance: Mapping[str, str] | None = None, exact: bool = False,
    ) -> Hits:  # fmt: skip
        """The k best of all shards; the arguments are those of `Index.search`.

        Raises:
            InputError: as `Index.search`.
        """
        filled = [shard for shard in self.shards if len(shard)]
        if not filled or not 1 <= k <= len(self):
            raise InputError(f"search: got k={k!r}, expected 1 to {len(self)}, the number of items there are")

        def ask(shard: Index) -> Hits:
            most = min(k, len(shard))
            return shard.search(queries, most, where=where, provenance=provenance, exact=exact)

        with ThreadPoolExecutor(len(filled)) as pool:
            return merge_hits(list(pool.map(ask, filled)), k)


def merge_hits(hits: Sequence[Hits], k: int) -> Hits:
    """The k best of several lists for the same queries; of equal scores the earlier list's come first."""
    ids = np.concatenate([each.ids for each in hits], axis=1)
    scores = np.concatenate([each.scores for each in hits], axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return Hits(np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1))
