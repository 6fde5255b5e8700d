"""Fused search over one index per modality; items and queries may lack modalities."""

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

_RRF_K = 60  # constant of reciprocal rank fusion, the value of Cormack et al.


class FusedIndex:
    """Per-modality indexes whose results are fused.

    Method "scores": the weighted mean of an item's scores over the modalities that both query and item have,
    computed for the best `depth` items of each index. A missing modality does not lower the score.
    Method "ranks": reciprocal rank fusion, the sum of weight / (60 + rank) over the result lists that contain
    the item.

    Paper: Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and Individual Rank
    Learning Methods", SIGIR 2009.

    Args:
        indexes: modality -> index; for "scores" all of one metric.
        weights: modality -> positive weight; 1 for modalities that are not named.
        method: "scores" or "ranks".
        depth: number of candidates per index.

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
        """Find the k best items of each query.

        Args:
            queries: modality -> [Q, D] vectors; leave out modalities that the queries lack.
            k: items per query; fewer are returned where fewer items were found.
            where: filter expression over the metadata of each index; None means no filter.
            allowed_ids: restrict the search to these ids (each index uses those it holds); None means all.
            provenance: modality -> provenance of the queries, which must equal that of the index; modalities
                that are not named are not checked.

        Returns:
            Hits with `ids` and `scores` of shape [Q, k].

        Raises:
            InputError: no modality, an unknown one, different numbers of queries, or as `Index.search`.
        """
        for name in queries:
            if name not in self.indexes:
                raise InputError(f"search: no modality {name!r}.{did_you_mean(name, self.indexes)}")
        query_vectors = {name: np.asarray(rows, np.float32) for name, rows in queries.items()}
        counts = {name: len(rows) for name, rows in query_vectors.items()}
        if len(set(counts.values())) != 1:
            raise InputError(f"search: got {counts} queries, expected one number, for at least one modality")
        unknown = [
            item for item in allowed_ids or () if not any(item in index for index in self.indexes.values())
        ]
        if unknown:
            raise InputError(f"filter: {len(unknown)} unknown ids, the first is {unknown[0]!r}.")
        hits: dict[str, Hits] = {}
        for name, rows in query_vectors.items():
            index = self.indexes[name]
            some = None if allowed_ids is None else [item for item in allowed_ids if item in index]
            most = min(max(self.depth, k), len(index))
            made = (provenance or {}).get(name)
            hits[name] = index.search(rows, most, where=where, allowed_ids=some, provenance=made)
        fused = [
            self._fuse_ranks(hits, number)
            if self.method == "ranks"
            else self._fuse_scores(query_vectors, hits, number)
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
        """Write all indexes to one folder, atomically: an interrupted save leaves the old or the new state.

        Args:
            folder: new, empty, or a bundle that is replaced.

        Raises:
            InputError: as `Index.save`.
        """
        facts = {"kind": "fused", "weights": self.weights, "method": self.method, "depth": self.depth}
        save_bundle(folder, facts, {}, {name: index.save for name, index in self.indexes.items()})

    @classmethod
    def open(cls, folder: str | Path, *, device: str = "auto") -> FusedIndex:
        """Open a folder written by `save`, after checking the hash of every file.

        Args:
            folder: the bundle.
            device: as in `Index.build`.

        Raises:
            InputError: no such bundle, or it is damaged; the message names the file and the damage.
        """
        return open_bundle(folder, lambda opened: cls.from_bundle(opened, device))

    @classmethod
    def from_bundle(cls, opened: OpenedBundle, device: str = "auto") -> FusedIndex:
        """Restore the indexes of a verified bundle.

        Args:
            opened: the bundle.
            device: as in `Index.build`.

        Raises:
            InputError: another kind of bundle, or a manifest without fusion settings.
        """
        opened.check_kind("fused")
        facts = opened.attributes
        indexes = {name: Index.from_bundle(part, device) for name, part in opened.parts.items()}
        if not isinstance(facts.get("weights"), dict) or type(facts.get("depth")) is not int:
            raise InputError(f"{opened.folder}: manifest.json does not say how the indexes are fused")
        return cls(indexes, facts["weights"], method=facts.get("method"), depth=facts["depth"])  # type: ignore[arg-type]

    def _fuse_ranks(self, hits: Mapping[str, Hits], query: int) -> dict[Any, float]:
        scores: dict[Any, float] = {}
        for name, each in hits.items():
            for rank, item in enumerate(each.ids[query].tolist(), start=1):
                scores[item] = scores.get(item, 0.0) + self.weights[name] / (_RRF_K + rank)
        return scores

    def _fuse_scores(
        self, query_vectors: Mapping[str, np.ndarray], hits: Mapping[str, Hits], query: int
    ) -> dict[Any, float]:
        items = list(dict.fromkeys(item for each in hits.values() for item in each.ids[query].tolist()))
        sums, weights = np.zeros(len(items)), np.zeros(len(items))
        for name, rows in query_vectors.items():
            index, weight = self.indexes[name], self.weights[name]
            has_item = np.array([item in index for item in items], dtype=bool)
            scores = index.scores(
                rows[query], [item for item, has in zip(items, has_item, strict=True) if has]
            )
            sums[has_item] += weight * scores
            weights[has_item] += weight
        return dict(zip(items, (sums / weights).tolist(), strict=True))
