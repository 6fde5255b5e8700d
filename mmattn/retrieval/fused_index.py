"""One index a modality, searched together; items and queries may lack any of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmattn.errors import InputError, did_you_mean
from mmattn.retrieval.hits import Hits
from mmattn.retrieval.index import Index
from mmattn.retrieval.storage.bundle import OpenedBundle, open_bundle, save_bundle

__all__ = ["FusedIndex"]

_RRF_K = 60  # of reciprocal rank fusion, as its authors have it


class FusedIndex:
    """Per-modality indexes whose results are fused.

    By "scores": the weighted mean of an item's scores in the modalities that query and item both have,
    computed for the best `depth` of each index. An item is not punished for what it does not have.
    By "ranks": the sum of weight / (60 + rank) over the lists that hold it.

    Paper: Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and Individual Rank
    Learning Methods", SIGIR 2009.

    Args:
        indexes: modality -> index; for "scores" all of one metric.
        weights: modality -> weight; 1 where it is not named.
        method: "scores" or "ranks".
        depth: items of each index that take part.

    Raises:
        InputError: no index, an unknown modality or method, a weight that is not positive, mixed metrics.

    Example:
        >>> text = Index.build([[1.0, 0.0], [0.0, 1.0]], ["a", "b"])
        >>> image = Index.build([[0.2], [0.9]], ["a", "c"])
        >>> both = FusedIndex({"text": text, "image": image})
        >>> both.search({"text": [[1.0, 0.0]], "image": [[1.0]]}, k=3).ids.tolist()
        [['c', 'a', 'b']]
    """

    def __init__(
        self,
        indexes: Mapping[str, Index],
        weights: Mapping[str, float] | None = None,
        *,
        method: Literal["scores", "ranks"] = "scores",
        depth: int = 200,
    ):
        if not indexes:
            raise InputError("fused index: got no index, expected at least one")
        if method not in ("scores", "ranks"):
            raise InputError(
                f"fused index: no method {method!r}.{did_you_mean(str(method), ('scores', 'ranks'))}"
            )
        for name, weight in (weights or {}).items():
            if name not in indexes:
                raise InputError(
                    f"fused index: weight for no modality {name!r}.{did_you_mean(name, indexes)}"
                )
            if not weight > 0:
                raise InputError(f"fused index: got weight {weight} for {name!r}, expected more than 0")
        metrics = {index.metric for index in indexes.values()}
        if method == "scores" and len(metrics) > 1:
            raise InputError(f"fused index: got metrics {sorted(metrics)}, whose scores cannot be added")
        self.indexes = dict(indexes)
        self.weights = {name: float((weights or {}).get(name, 1.0)) for name in indexes}
        self.method = method
        self.depth = depth

    def search(
        self,
        queries: Mapping[str, Any],
        k: int = 10,
        *,
        where: str | None = None,
        allowed_ids: Collection[Any] | None = None,
        provenance: Mapping[str, Mapping[str, str]] | None = None,
    ) -> Hits:
        """The k best items of each query.

        Args:
            queries: modality -> [Q, D] vectors; leave out what the queries do not have.
            k: how many; fewer come back where fewer items were found.
            where: a condition over the metadata of each index.
            allowed_ids: ids of the only items to look at; an index looks at those that it has.
            provenance: modality -> what made the queries, compared with what made its index.

        Raises:
            InputError: no modality, an unknown one, different numbers of queries, or as `Index.search`.
        """
        for name in queries:
            if name not in self.indexes:
                raise InputError(f"search: no modality {name!r}.{did_you_mean(name, self.indexes)}")
        asked = {name: np.asarray(rows, np.float32) for name, rows in queries.items()}
        counts = {name: len(rows) for name, rows in asked.items()}
        if len(set(counts.values())) != 1:
            raise InputError(f"search: got {counts} queries, expected one number, for at least one modality")
        unknown = [
            item for item in allowed_ids or () if not any(item in index for index in self.indexes.values())
        ]
        if unknown:
            raise InputError(f"filter: {len(unknown)} unknown ids, the first is {unknown[0]!r}.")
        hits: dict[str, Hits] = {}
        for name, rows in asked.items():
            index = self.indexes[name]
            some = None if allowed_ids is None else [item for item in allowed_ids if item in index]
            most = min(max(self.depth, k), len(index))
            made = (provenance or {}).get(name)
            hits[name] = index.search(rows, most, where=where, allowed_ids=some, provenance=made)
        fused = [
            self._fuse_ranks(hits, number)
            if self.method == "ranks"
            else self._fuse_scores(asked, hits, number)
            for number in range(next(iter(counts.values())))
        ]
        width = min([k, *(len(scores) for scores in fused)])
        best = [sorted(scores.items(), key=lambda pair: -pair[1])[:width] for scores in fused]
        kinds = {index.ids.dtype for index in self.indexes.values()}
        ids = np.array(
            [[name for name, _ in line] for line in best], dtype=kinds.pop() if len(kinds) == 1 else object
        )
        scores = np.array([[score for _, score in line] for line in best], dtype=np.float32)
        return Hits(ids.reshape(len(best), width), scores.reshape(len(best), width))

    def __len__(self) -> int:
        """Number of items that any of the indexes holds."""
        return len({name for index in self.indexes.values() for name in index.ids.tolist()})

    def __contains__(self, name: object) -> bool:
        return any(name in index for index in self.indexes.values())

    def save(self, folder: str | Path) -> None:
        """Write all indexes to one folder; a kill at any moment leaves what was there, or the whole of this.

        Args:
            folder: of the bundle.

        Raises:
            InputError: as `Index.save`.
        """
        facts = {"kind": "fused", "weights": self.weights, "method": self.method, "depth": self.depth}
        save_bundle(folder, facts, {}, {name: index.save for name, index in self.indexes.items()})

    @classmethod
    def open(cls, folder: str | Path, *, device: str = "auto") -> FusedIndex:
        """Open what `save` wrote, after checking the hash of every file.

        Args:
            folder: of the bundle.
            device: "auto", "cpu" or a CUDA device.

        Raises:
            InputError: there are no such indexes, or one is damaged: which file, and how, is said.
        """
        return open_bundle(folder, lambda opened: cls.from_bundle(opened, device))

    @classmethod
    def from_bundle(cls, opened: OpenedBundle, device: str = "auto") -> FusedIndex:
        """Restore the indexes of a bundle whose files were checked.

        Args:
            opened: the bundle.
            device: as in `Index.build`.

        Raises:
            InputError: another kind of bundle, or one that does not say how to fuse.
        """
        opened.check_kind("fused")
        facts = opened.attributes
        indexes = {name: Index.from_bundle(part, device) for name, part in opened.parts.items()}
        if not isinstance(facts.get("weights"), dict) or type(facts.get("depth")) is not int:
            raise InputError(f"{opened.folder}: manifest.json does not say how the indexes are fused")
        return cls(indexes, facts["weights"], method=facts.get("method"), depth=facts["depth"])  # type: ignore[arg-type]

    def _fuse_ranks(self, hits: Mapping[str, Hits], query: int) -> dict[Any, float]:
        found: dict[Any, float] = {}
        for name, each in hits.items():
            for rank, item in enumerate(each.ids[query].tolist(), start=1):
                found[item] = found.get(item, 0.0) + self.weights[name] / (_RRF_K + rank)
        return found

    def _fuse_scores(
        self, query_vectors: Mapping[str, np.ndarray], hits: Mapping[str, Hits], query: int
    ) -> dict[Any, float]:
        items = list(dict.fromkeys(item for each in hits.values() for item in each.ids[query].tolist()))
        sums, weights = np.zeros(len(items)), np.zeros(len(items))
        for name, rows in query_vectors.items():
            index, weight = self.indexes[name], self.weights[name]
            there = np.array([item in index for item in items], dtype=bool)
            scores = index.scores(rows[query], [item for item, has in zip(items, there, strict=True) if has])
            sums[there] += weight * scores
            weights[there] += weight
        return dict(zip(items, (sums / weights).tolist(), strict=True))
