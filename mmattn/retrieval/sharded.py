"""An index in several parts, searched side by side and merged exactly."""

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
    """Indexes with different items that are searched as one, and changed and saved as one.

    The merge is exact: the k best of all are among the k best of each. Each shard may lie on another
    disk, and the threads really run at once, since torch and faiss do their work outside Python.

    Args:
        shards: of one width, metric and origin, with the same metadata columns and no id in two of them.

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
            index: remains as it is.
            shards: number of shards.

        Raises:
            InputError: fewer than 1 shard, or more than items.

        Example:
            >>> ShardedIndex.from_index(Index.build(np.eye(4), ["a", "b", "c", "d"]), 2)
            ShardedIndex(4 vectors of width 4, ip, in 2 shards)
        """
        return cls(index.split(shards))

    # --- what it holds ---------------------------------------------------------------------------

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
        """What made the vectors."""
        return self.shards[0].provenance

    @property
    def ids(self) -> np.ndarray:
        """[N] ids, shard by shard."""
        return np.concatenate([shard.ids for shard in self._non_empty_shards or self.shards[:1]])

    @property
    def metadata(self) -> pd.DataFrame:
        """One row an item, in the order of `ids`."""
        return pd.concat(
            [shard.metadata for shard in self._non_empty_shards or self.shards[:1]], ignore_index=True
        )

    @property
    def approximate(self) -> bool:
        """Does a search look at a part of the vectors only, in any shard?"""
        return any(shard.approximate for shard in self.shards)

    @property
    def _non_empty_shards(self) -> list[Index]:
        return [shard for shard in self.shards if len(shard)]

    @cached_property
    def _id_to_row(self) -> pd.Index:
        """Id -> row in all shards together."""
        result: pd.Index = pd.Index(self.ids)
        return result

    def _shard_of_ids(self, ids: Sequence[Any] | np.ndarray, what: str) -> np.ndarray:
        """[n] the shard of each named item."""
        rows = find_rows(self._id_to_row, ids, what)
        return np.searchsorted(np.cumsum([len(shard) for shard in self.shards]), rows, side="right")

    def vectors(self, ids: Sequence[Any] | np.ndarray) -> np.ndarray:
        """Return the vectors of some items, [n, D].

        Args:
            ids: [n] ids.

        Raises:
            InputError: an id that is not there.
        """
        names, owners = np.asarray(ids, dtype=self.ids.dtype), self._shard_of_ids(ids, "index")
        found = np.empty((len(names), self.dim), np.float32)
        for number in np.unique(owners):
            found[owners == number] = self.shards[number].vectors(names[owners == number])
        return found

    def plan(self) -> SearchPlan:
        """How each shard searches, and everything that was tried for any of them."""
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
        """Search all shards; the arguments are those of `Index.search`.

        Args:
            queries: [Q, D].
            k: number of hits.
            where: filter on the metadata.
            allowed_ids: items that may be found; None for all.
            provenance: part -> fingerprint of what made the queries.
            exact: search exactly.

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
        """Search for the k items most similar to each given item, in all shards, without itself.

        Args:
            ids: [Q] ids.
            k: number of hits.
            where: filter on the metadata.
            allowed_ids: items that may be found; None for all.

        Raises:
            InputError: as `search`, or an id that is not there.
        """
        queries = self.vectors(ids)
        check_k(k, len(self), len(self) - 1)
        found = self.search(queries, k + 1, where=where, allowed_ids=allowed_ids)
        return drop_self_hits(found, np.asarray(ids, dtype=self.ids.dtype), k)

    def _map_shards(self, search_shard: Callable[[int], Hits]) -> list[Hits]:
        """What each shard that holds anything answers, in their order."""
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
        """Add items to the smallest shard: all of them, or none if something is wrong.

        Args:
            vectors: [n, D].
            ids: [n] new ids.
            metadata: columns with one value an item.
            provenance: part -> fingerprint of what made the vectors.

        Raises:
            InputError: as `Index.add`.
        """
        there = [name for name in np.asarray(ids, dtype=object).tolist() if name in self]
        if there:
            raise InputError(f"index: id {there[0]!r} is there already, expected a new one (or `update`)")
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
        """Replace vectors and metadata of items.

        Args:
            vectors: [n, D].
            ids: [n] known ids.
            metadata: columns with one value an item.
            provenance: part -> fingerprint of what made the vectors.

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
            ids: of the items.

        Raises:
            InputError: an id that is not there; nothing is removed then.
        """
        names, owners = np.asarray(ids, dtype=self.ids.dtype), self._shard_of_ids(ids, "index")
        for number in np.unique(owners):
            self.shards[number].remove(names[owners == number])
        self.__dict__.pop("_id_to_row", None)

    # --- on the disk -----------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write all shards to one folder; a kill at any moment leaves what was there, or the whole of this.

        Args:
            folder: of the bundle.

        Raises:
            InputError: as `Index.save`.
        """
        parts = {f"{number:05d}": shard.save for number, shard in enumerate(self.shards)}
        save_bundle(folder, {"kind": "shards", "count": len(self)}, {}, parts)

    @classmethod
    def open(cls, folder: str | Path, *, device: str = "auto") -> ShardedIndex:
        """Open what `save` wrote, after checking the hash of every file of every shard.

        Args:
            folder: of the bundle.
            device: "auto", "cpu" or a CUDA device.

        Raises:
            InputError: there is no sharded index, or it is damaged: which file, and how, is said.
        """
        return open_bundle(folder, lambda opened: cls.from_bundle(opened, device))

    @classmethod
    def from_bundle(cls, opened: OpenedBundle, device: str = "auto") -> ShardedIndex:
        """The shards of a bundle whose files were checked.

        Args:
            opened: bundle whose files were checked.
            device: "auto", "cpu" or a CUDA device.

        Raises:
            InputError: files that are what they were, but do not fit each other.
        """
        opened.check_kind("shards")
        found = cls([Index.from_bundle(opened.parts[name], device) for name in sorted(opened.parts)])
        if len(found) != opened.attributes.get("count"):
            raise InputError(
                f"{opened.folder}: the shards hold {len(found)} items, "
                f"the manifest says {opened.attributes.get('count')}"
            )
        return found
