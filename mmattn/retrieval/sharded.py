"""Index in several shards that are searched in parallel and merged exactly."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmattn.errors import InputError
from mmattn.retrieval.checks import check_k, check_provenance
from mmattn.retrieval.hits import Hits, drop_self_hits, merge_hits
from mmattn.retrieval.index import Index
from mmattn.retrieval.items import find_rows
from mmattn.retrieval.search.exact import Metric
from mmattn.retrieval.search.plan import SearchPlan
from mmattn.retrieval.storage.bundle import OpenedBundle, open_bundle, save_bundle

__all__ = ["ShardedIndex"]


class ShardedIndex:
    """Several indexes over disjoint items, searched, changed and saved as one.

    Merging is exact: the k best of all items are among the k best of each shard. Shards may lie on different
    disks. The shards are searched in parallel threads; torch and faiss release the GIL.

    Args:
        shards: at least one; of the same width, metric, provenance and metadata columns, with disjoint ids.

    Raises:
        InputError: no shards, or shards that are incompatible.

    Example:
        >>> halves = [Index.build(np.eye(4)[:2], ["a", "b"]), Index.build(np.eye(4)[2:], ["c", "d"])]
        >>> ShardedIndex(halves).search([[0.1, 0.4, 0.3, 0.2]], k=3).ids.tolist()
        [['b', 'c', 'd']]
    """

    def __init__(self, shards: Sequence[Index]):
        if not shards:
            raise InputError("sharded index: got no shards, expected at least one")
        self.shards = list(shards)
        first = self.shards[0]
        for number, shard in enumerate(self.shards):
            if (shard.dim, shard.metric) != (first.dim, first.metric):
                raise InputError(
                    f"sharded index: shard {number} has width {shard.dim} and metric {shard.metric}, "
                    f"expected {first.dim} and {first.metric} as shard 0"
                )
            if list(shard.metadata.columns) != list(first.metadata.columns):
                raise InputError(
                    f"sharded index: shard {number} has metadata columns {list(shard.metadata.columns)}, "
                    f"expected {list(first.metadata.columns)} as shard 0"
                )
            check_provenance(first.provenance, shard.provenance, f"sharded index: shard {number}")
        if len({shard.ids.dtype for shard in self.shards if len(shard)}) > 1:
            raise InputError("sharded index: got text and whole numbers as ids, expected one kind")
        if not self._id_to_row.is_unique:
            twice = self.ids[self._id_to_row.duplicated()][0]
            raise InputError(f"sharded index: id {twice!r} is in two shards, expected it in one")

    @classmethod
    def from_index(cls, index: Index, shards: int) -> ShardedIndex:
        """Split an index into shards of about equal size.

        Args:
            index: left unchanged.
            shards: number of shards, at most the number of items.

        Raises:
            InputError: `shards` is out of range.

        Example:
            >>> ShardedIndex.from_index(Index.build(np.eye(4), ["a", "b", "c", "d"]), 2)
            ShardedIndex(4 vectors of width 4, ip, in 2 shards)
        """
        return cls(index.split(shards))

    # --- content ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Number of items in all shards."""
        return sum(map(len, self.shards))

    def __contains__(self, name: object) -> bool:
        return name in self._id_to_row

    @property
    def dim(self) -> int:
        """Width D of a vector."""
        return self.shards[0].dim

    @property
    def metric(self) -> Metric:
        """As in `Index.build`."""
        return self.shards[0].metric

    @property
    def provenance(self) -> dict[str, str] | None:
        """What made the vectors, part -> fingerprint; None if unknown."""
        return self.shards[0].provenance

    @property
    def ids(self) -> np.ndarray:
        """[N] ids, shard by shard."""
        return np.concatenate([shard.ids for shard in self._non_empty_shards or self.shards[:1]])

    @property
    def metadata(self) -> pd.DataFrame:
        """One row per item, in the order of `ids`."""
        return pd.concat(
            [shard.metadata for shard in self._non_empty_shards or self.shards[:1]], ignore_index=True
        )

    @property
    def approximate(self) -> bool:
        """Whether searches are approximate in any shard."""
        return any(shard.approximate for shard in self.shards)

    @property
    def _non_empty_shards(self) -> list[Index]:
        return [shard for shard in self.shards if len(shard)]

    @cached_property
    def _id_to_row(self) -> pd.Index:
        """pandas index that maps an id to its row in the concatenated shards."""
        result: pd.Index = pd.Index(self.ids)
        return result

    def _shard_of_ids(self, ids: Sequence[Any] | np.ndarray, what: str) -> np.ndarray:
        """[n] shard number of each id."""
        rows = find_rows(self._id_to_row, ids, what)
        return np.searchsorted(np.cumsum([len(shard) for shard in self.shards]), rows, side="right")

    def vectors(self, ids: Sequence[Any] | np.ndarray) -> np.ndarray:
        """Look up the vectors of items.

        Args:
            ids: n ids.

        Returns:
            [n, D] float32 vectors (of unit length for "cosine").

        Raises:
            InputError: an unknown id.
        """
        names, owners = np.asarray(ids, dtype=self.ids.dtype), self._shard_of_ids(ids, "index")
        matrix = np.empty((len(names), self.dim), np.float32)
        for number in np.unique(owners):
            matrix[owners == number] = self.shards[number].vectors(names[owners == number])
        return matrix

    def plan(self) -> SearchPlan:
        """Combined search plan of the shards, with the candidates measured for each."""
        plans = [shard.plan() for shard in self.shards]
        reasons = "; ".join(dict.fromkeys(plan.reason for plan in plans))
        return SearchPlan(
            f"{len(plans)} shards side by side: {reasons}",
            min(plan.target_recall for plan in plans),
            plans[0].k,
            tuple(trial for plan in plans for trial in plan.trials),
            "; ".join(dict.fromkeys(plan.device for plan in plans)),
        )

    def __repr__(self) -> str:
        return (
            f"ShardedIndex({len(self):,} vectors of width {self.dim}, {self.metric}, "
            f"in {len(self.shards)} shards)"
        )

    # --- search ----------------------------------------------------------------------------------

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        where: str | None = None,
        allowed_ids: Collection[Any] | None = None,
        provenance: Mapping[str, str] | None = None,
        exact: bool = False,
    ) -> Hits:
        """Find the k best items of each query in all shards.

        Args:
            queries: [Q, D] numbers.
            k: items per query, at most the number of items in all shards.
            where: filter expression over the metadata (see `mmattn.retrieval.filters`); None means no filter.
            allowed_ids: restrict the search to these ids; None means all items.
            provenance: what made the queries; checked against the provenance of the index. None means no
                check.
            exact: compare with every vector, even if the plan is approximate.

        Returns:
            Hits with `ids` and `scores` of shape [Q, k].

        Raises:
            InputError: as `Index.search`.
        """
        check_k(k, len(self))
        names = None if allowed_ids is None else np.array(list(allowed_ids), dtype=self.ids.dtype)
        owners = None if names is None else self._shard_of_ids(names, "filter")

        def ask(number: int) -> Hits:
            shard = self.shards[number]
            some = None if names is None else names[owners == number].tolist()
            most = min(k, len(shard))
            return shard.search(
                queries, most, where=where, allowed_ids=some, provenance=provenance, exact=exact
            )

        return merge_hits(self._map_shards(ask), k)

    def search_ids(
        self,
        ids: Sequence[Any],
        k: int = 10,
        *,
        where: str | None = None,
        allowed_ids: Collection[Any] | None = None,
    ) -> Hits:
        """Find the k nearest neighbours, in any shard, of items of the index, excluding each item itself.

        Args:
            ids: Q ids.
            k: neighbours per item, at most N - 1.
            where: filter expression over the metadata; None means no filter.
            allowed_ids: restrict the neighbours to these ids; None means all items.

        Returns:
            Hits with `ids` and `scores` of shape [Q, k].

        Raises:
            InputError: as `search`, or an unknown id.
        """
        queries = self.vectors(ids)
        check_k(k, len(self), len(self) - 1)
        hits = self.search(queries, k + 1, where=where, allowed_ids=allowed_ids)
        return drop_self_hits(hits, np.asarray(ids, dtype=self.ids.dtype), k)

    def _map_shards(self, search_shard: Callable[[int], Hits]) -> list[Hits]:
        """Results of each non-empty shard, in shard order."""
        numbers = [number for number, shard in enumerate(self.shards) if len(shard)]
        with ThreadPoolExecutor(len(numbers)) as pool:
            return list(pool.map(search_shard, numbers))

    # --- change ----------------------------------------------------------------------------------

    def add(
        self,
        vectors: Any,
        ids: Sequence[Any] | np.ndarray,
        *,
        metadata: pd.DataFrame | Mapping[str, Any] | None = None,
        provenance: Mapping[str, str] | None = None,
    ) -> None:
        """Add items to the smallest shard; if any of them is invalid, none is added.

        Args:
            vectors: [n, D] numbers.
            ids: n new ids, of the same kind (text or whole numbers) as those of the index.
            metadata: the columns of the index, n values each; None if it has none.
            provenance: what made the vectors; must equal the provenance of the index.

        Raises:
            InputError: as `Index.add`.
        """
        existing = [name for name in np.asarray(ids, dtype=object).tolist() if name in self]
        if existing:
            raise InputError(f"index: id {existing[0]!r} is there already, expected a new one (or `update`)")
        like = next(iter(self._non_empty_shards), self.shards[0])  # an empty shard takes ids of any kind
        smallest = min(self.shards, key=len)
        if smallest is not like:
            like.check(vectors, ids, metadata, provenance)
        smallest.add(vectors, ids, metadata=metadata, provenance=provenance)
        self.__dict__.pop("_id_to_row", None)

    def update(
        self,
        vectors: Any,
        ids: Sequence[Any] | np.ndarray,
        *,
        metadata: pd.DataFrame | Mapping[str, Any] | None = None,
        provenance: Mapping[str, str] | None = None,
    ) -> None:
        """Replace the vectors and metadata of existing items, in their shards.

        Args:
            vectors: [n, D] numbers.
            ids: n ids of the index.
            metadata: the columns of the index, n values each; None if it has none.
            provenance: what made the vectors; must equal the provenance of the index.

        Raises:
            InputError: as `Index.update`.
        """
        new = next(iter(self._non_empty_shards), self.shards[0]).check(vectors, ids, metadata, provenance)
        owners = self._shard_of_ids(new.ids, "index")
        for number in np.unique(owners):
            part = new.take(owners == number)
            self.shards[number].update(part.vectors, part.ids, metadata=part.metadata, provenance=provenance)
        self.__dict__.pop("_id_to_row", None)

    def remove(self, ids: Sequence[Any] | np.ndarray) -> None:
        """Remove items.

        Args:
            ids: ids of the index.

        Raises:
            InputError: an unknown id; nothing is removed then.
        """
        names, owners = np.asarray(ids, dtype=self.ids.dtype), self._shard_of_ids(ids, "index")
        for number in np.unique(owners):
            self.shards[number].remove(names[owners == number])
        self.__dict__.pop("_id_to_row", None)

    # --- storage ---------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write all shards to one folder, atomically: an interrupted save leaves the old or the new state.

        Args:
            folder: new, empty, or a bundle that is replaced.

        Raises:
            InputError: as `Index.save`.
        """
        parts = {f"{number:05d}": shard.save for number, shard in enumerate(self.shards)}
        save_bundle(folder, {"kind": "shards", "count": len(self)}, {}, parts)

    @classmethod
    def open(cls, folder: str | Path, *, device: str = "auto") -> ShardedIndex:
        """Open a folder written by `save`, after checking the hash of every file of every shard.

        Args:
            folder: the bundle.
            device: as in `Index.build`.

        Raises:
            InputError: there is no sharded index, or it is damaged; the message names the file and the
                damage.
        """
        return open_bundle(folder, lambda opened: cls.from_bundle(opened, device))

    @classmethod
    def from_bundle(cls, opened: OpenedBundle, device: str = "auto") -> ShardedIndex:
        """Restore the shards of a verified bundle.

        Args:
            opened: the bundle.
            device: as in `Index.build`.

        Raises:
            InputError: another kind of bundle, or files that are inconsistent with each other or the
                manifest.
        """
        opened.check_kind("shards")
        index = cls([Index.from_bundle(opened.parts[name], device) for name in sorted(opened.parts)])
        if len(index) != opened.attributes.get("count"):
            raise InputError(
                f"{opened.folder}: the shards hold {len(index)} items, "
                f"the manifest says {opened.attributes.get('count')}"
            )
        return index
