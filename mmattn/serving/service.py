"""Recommender service of a finished run: recommends items for a history."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from mmattn.data.roles import ItemTable
from mmattn.data.tables import as_text
from mmattn.errors import InputError, did_you_mean
from mmattn.retrieval.filters import filter_mask
from mmattn.retrieval.index import Index
from mmattn.retrieval.storage import index_files
from mmattn.retrieval.storage.bundle import OpenedBundle, open_bundle, save_bundle
from mmattn.schema import from_mapping
from mmattn.serving.add_items import AddedItems, new_item_weights, read_new_items
from mmattn.serving.item_metadata import item_columns
from mmattn.serving.run_encoder import RunEncoder, model_provenance
from mmattn.serving.unseen_search import topk_unseen
from mmattn.types import Sample

if TYPE_CHECKING:
    from mmattn.array_types import Floats32, Ints

__all__ = ["INDEX_FOLDER", "Recommendations", "RecommenderService", "recommend"]

INDEX_FOLDER = "index"  # the bundle's folder within the run's


_MAX_NAMED_IDS = 5  # unknown ids in a message


@dataclass(frozen=True)
class Recommendations:
    """Recommendations for one user, best first.

    Args:
        ids: ids of the items, numbers or text as in the catalogue.
        scores: higher is better; comparable between items, not between users.
        basis: "history", or "catalogue" if the history is empty.
    """

    ids: list[Any]
    scores: list[float]
    basis: str


@dataclass(eq=False)
class RecommenderService:
    """Recommender of a run, as saved by `mmattn fit`; open it with `RecommenderService.open`.

    A user vector is the sum of the contributions of the items in the history, so a new user needs only a
    history. A user without a history is represented by the mean contribution of the known items: everybody
    without a history gets the same items, and popularity plays no part in it.

    Args:
        folder: folder of the bundle.
        index: vectors of all I items, with metadata columns for filters.
        item_to_user: [I, W], contribution of each item to the user vector.
        weights_to_vector: [W, K], maps the weights of an item to its vector.
        known_rows: [K], rows of the known items in the index.
        known_vectors: [K, D], head output for the known items.
        cooccurrence: [K, K], number of users who chose both items, if the head completes histories; otherwise
            [0, 0].
        attributes: other entries of the manifest.
    """

    folder: Path
    index: Index
    item_to_user: Floats32
    weights_to_vector: Floats32
    known_rows: Ints
    known_vectors: Floats32
    cooccurrence: Floats32
    attributes: Mapping[str, Any]

    def __post_init__(self) -> None:
        self._id_to_row = pd.Index(self.index.ids)
        self._last_filter: tuple[str, NDArray[np.bool_]] | None = None  # the last one asked for
        self._manifest_seen = b""

    # --- storage ---------------------------------------------------------------------------------

    @classmethod
    def open(cls, run: str | Path) -> RecommenderService:
        """Open the recommender of a run, after checking the hash of every file.

        Args:
            run: folder that `mmattn fit` wrote.

        Raises:
            InputError: no recommender there, damage, or a model beside it that did not make the vectors.
        """
        folder = Path(run) / INDEX_FOLDER
        if not (folder / "manifest.json").is_file():
            raise InputError(
                f"{run}: holds no {INDEX_FOLDER}/ to recommend from, expected a run that `mmattn fit` "
                f"finished"
            )
        service: RecommenderService = open_bundle(folder, lambda opened: cls._from_bundle(opened, folder))
        model = service.model
        if model.is_dir():  # the model is needed for adding items only
            service.check_provenance(model_provenance(model, service.attributes["head"]), str(model))
        return service

    @classmethod
    def _from_bundle(cls, opened: OpenedBundle, folder: Path) -> RecommenderService:
        opened.check_kind("recommender")
        facts = opened.attributes
        index = Index.from_bundle(opened.parts["items"])
        known, width = facts["known"], index.dim
        shape = (known, known) if facts["completes"] else (0, 0)
        service = cls(
            folder, index,
            item_to_user=index_files.read_array(opened, "item-to-user", (len(index), width), np.float32),
            weights_to_vector=index_files.read_array(opened, "weights-to-vector", (width, known), np.float32),
            known_rows=index_files.read_array(opened, "known-rows", (known,), np.int64),
            known_vectors=index_files.read_array(opened, "known-vectors", (known, facts["dim"]), np.float32),
            cooccurrence=index_files.read_array(opened, "cooccurrence", shape, np.float32),
            attributes=facts,
        )  # fmt: skip
        service._manifest_seen = (folder / "manifest.json").read_bytes()
        return service

    def save(self, *, replace: bool = False) -> None:
        """Write the bundle, atomically: an interrupted save leaves the old or the new state.

        Args:
            replace: whether to overwrite changes that another process made since this was opened.

        Raises:
            InputError: another process has changed the bundle since, and `replace` is false.
        """
        manifest = self.folder / "manifest.json"
        if not replace and manifest.is_file() and manifest.read_bytes() != self._manifest_seen:
            raise InputError(f"{self.folder}: was changed since it was opened; open it again, then change it")
        arrays = ("item_to_user", "weights_to_vector", "known_rows", "known_vectors", "cooccurrence")
        writers = {
            f"{name.replace('_', '-')}.npy": index_files.write_array(
                np.ascontiguousarray(getattr(self, name))
            )
            for name in arrays
        }
        save_bundle(self.folder, self.attributes, writers, {"items": self.index.save})
        self._manifest_seen = manifest.read_bytes()

    @property
    def model(self) -> Path:
        """Folder of the model that made the vectors."""
        return self.folder.parent / self.attributes["model"]

    @property
    def columns(self) -> ItemTable:
        """Item table of the catalogue's card."""
        return from_mapping(ItemTable, self.attributes["columns"], str(self.folder))

    def check_provenance(self, provenance: Mapping[str, str], where: str) -> None:
        """Check that a model made the vectors of this service.

        Args:
            provenance: provenance of the model, part -> fingerprint.
            where: the model's path, for the error message.

        Raises:
            InputError: a part (encoder, program, weights, head) differs; the message gives both fingerprints.
        """
        ours = self.index.provenance or {}
        for part in sorted({*ours, *provenance}):
            if ours.get(part) != provenance.get(part):
                raise InputError(
                    f"{where}: a model of another {part}, {provenance.get(part, 'none')}; the vectors in "
                    f"{self.folder} were made with {ours.get(part, 'none')}"
                )

    # --- recommendation --------------------------------------------------------------------------

    def recommend(self, history: Sequence[Any], k: int = 20, where: str | None = None) -> Recommendations:
        """Recommend items to one user.

        Args:
            history: ids of the items that the user has chosen, in any order; they are not recommended.
            k: number of items; fewer are returned if fewer are left.
            where: filter expression over the item columns, `genre == 'Comedy' and year > 1990`; see
                `mmattn.retrieval.filters`. None for no filter.

        Raises:
            InputError: ids that are not in the catalogue, k below 1, or an invalid filter.
        """
        if isinstance(history, (str, bytes)) or not hasattr(history, "__len__"):
            raise InputError(f"history: got {history!r}, expected a list of item ids")
        rows = np.unique(self.rows_of(history))
        scores, rows_found = self.recommend_batch(_history_row(rows, len(self.index)), k, where)
        has_item = rows_found[0] >= 0
        basis = "history" if len(rows) else "catalogue"
        return Recommendations(
            self.index.ids[rows_found[0][has_item]].tolist(), scores[0][has_item].tolist(), basis
        )

    def recommend_batch(
        self, seen: sparse.csr_array, k: int = 20, where: str | None = None
    ) -> tuple[Floats32, Ints]:
        """Recommend items to many users.

        Args:
            seen: [U, I] ones where the user has chosen the item of that row of the index.
            k: items per user.
            where: as in `recommend`.

        Returns:
            Scores and rows of the index, both [U, k], best first; minus infinity and -1 where no item is
            left.

        Raises:
            InputError: k below 1, or an invalid filter.
        """
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
            raise InputError(f"recommend: got k={k!r}, expected a whole number from 1")
        queries = np.ascontiguousarray(seen @ self.item_to_user, dtype=np.float32)
        queries[np.diff(seen.indptr) == 0] = self.item_to_user[self.known_rows].mean(0)
        return topk_unseen(self.index, queries, seen, int(k), self._allowed(where))

    def _allowed(self, where: str | None) -> NDArray[np.bool_] | None:
        if where is None:
            return None
        if self._last_filter is None or self._last_filter[0] != where:
            self._last_filter = (where, filter_mask(where, self.index.metadata))
        return self._last_filter[1]

    def rows_of(self, ids: Sequence[Any]) -> Ints:
        """Rows of items in the index.

        Args:
            ids: n numbers or texts; 7 and "7" are the same item.

        Returns:
            [n] int64.

        Raises:
            InputError: ids that are not in the catalogue; the message suggests a similar one.
        """
        rows = self.find_rows(ids)
        unknown = [as_text(name) for name, row in zip(ids, rows, strict=True) if row < 0]
        if unknown:
            raise InputError(f"history: {self.unknown_ids_message(unknown)}")
        return rows

    def find_rows(self, ids: Sequence[Any]) -> Ints:
        """Rows of items in the index; -1 for ids that are not in the catalogue.

        Args:
            ids: n numbers or texts; 7 and "7" are the same item.

        Returns:
            [n] int64.
        """
        names = [as_text(name) for name in ids]
        if self.index.ids.dtype == object:
            return np.asarray(self._id_to_row.get_indexer(pd.Index(names, dtype=object)), np.int64)
        numbers = np.array([_is_number(name) for name in names], dtype=bool)
        rows = self._id_to_row.get_indexer(
            pd.Index([int(name) if is_number else 0 for name, is_number in zip(names, numbers, strict=True)])
        )
        return np.where(numbers, rows, -1)

    def unknown_ids_message(self, ids: Sequence[str]) -> str:
        """Error message for ids that are not in the catalogue.

        Args:
            ids: at least one unknown id; duplicates are named once.
        """
        names = list(dict.fromkeys(ids))
        shown = ", ".join(repr(name) for name in names[:_MAX_NAMED_IDS]) + (
            ", ..." if len(names) > _MAX_NAMED_IDS else ""
        )
        few = len(self.index) < 100_000  # above, the search for similar ids takes more than a second
        hint = did_you_mean(names[0], map(str, self.index.ids.tolist())) if few else ""
        return (
            f"{len(names)} item{'' if len(names) == 1 else 's'} not among the "
            f"{len(self.index):,} of catalogue {self.attributes['catalogue']!r}: {shown}."
            f"{hint if hint.startswith(' Did') else ''}"
        )

    # --- change ----------------------------------------------------------------------------------

    def add_items(
        self, source: Sequence[Sample] | str | Path, *, features: str | Path | None = None,
        progress: bool = False,
    ) -> AddedItems:  # fmt: skip
        """Add items that came after training, and save the bundle; nothing is trained.

        The vector of a new item is computed from the weights of the known items for it. In a history, a new
        item contributes like the known items, weighted by these weights. Existing items are unchanged.

        Args:
            source: samples, a card of the same data set that has grown, or a table with its columns (columns
                that the table lacks are missing values).
            features: folder of the feature store; None stores nothing.
            progress: whether to show progress bars while encoding.

        Raises:
            InputError: another data set's card, ids of another kind, or a model that did not make the
                vectors; nothing is added then.
        """
        labels: Mapping[str, np.ndarray] = {}
        if isinstance(source, (str, Path)):
            read = read_new_items(Path(source), self.attributes["catalogue"], self.columns)
            samples, labels = list(read.items), read.labels
        else:
            samples = list(source)
        ids = self._to_catalogue_ids([sample.id for sample in samples])
        new = [index for index, name in enumerate(ids) if name not in self.index]
        if not new:
            return AddedItems([], len(samples), [])
        encoder = RunEncoder(self.model, self.attributes["head"])
        self.check_provenance(encoder.provenance, str(self.model))
        with tempfile.TemporaryDirectory() as nowhere:
            inputs = encoder.read_inputs(
                [samples[index] for index in new], features or nowhere, progress=progress
            )
            vectors, has_content = encoder.vectors(inputs)
        good = [index for index, has in zip(new, has_content, strict=True) if has]
        without = [ids[index] for index, has in zip(new, has_content, strict=True) if not has]
        if good:
            head = encoder.model.head(encoder.head)
            weights_KN = new_item_weights(head, self.known_vectors, vectors[has_content], self.cooccurrence)
            columns = item_columns(
                [samples[index] for index in good], self.columns,
                {name: cells[good] for name, cells in labels.items()},
            )  # fmt: skip
            self.index.add(
                (self.weights_to_vector @ weights_KN).T, [ids[index] for index in good],
                metadata=columns, provenance=encoder.provenance,
            )  # fmt: skip
            self.item_to_user = np.concatenate(
                [self.item_to_user, weights_KN.T @ self.item_to_user[self.known_rows]]
            )
            self.save()
            self._id_to_row, self._last_filter = pd.Index(self.index.ids), None
        return AddedItems([ids[index] for index in good], len(samples) - len(new), without)

    def _to_catalogue_ids(self, names: Sequence[str]) -> list[Any]:
        """Ids in the catalogue's type.

        Raises:
            InputError: text although the catalogue has numbers, or a duplicate id.
        """
        if self.index.ids.dtype == np.int64:
            wrong = [name for name in names if not _is_number(name)]
            if wrong:
                raise InputError(f"add: got id {wrong[0]!r}, expected whole numbers as in the catalogue")
            names = [int(name) for name in names]  # type: ignore[misc]
        if len(set(names)) < len(names):
            twice = next(name for index, name in enumerate(names) if name in names[:index])
            raise InputError(f"add: id {twice!r} comes twice, expected each id once")
        return list(names)


def recommend(
    run: RecommenderService | str | Path, history: Sequence[Any], k: int = 20, where: str | None = None
) -> Recommendations:
    """Recommend items of a finished run to a user with this history.

    Args:
        run: folder that `mmattn fit` wrote, or an opened `RecommenderService`, which is faster for many
            calls.
        history: ids of the items chosen so far; empty for a user without a history.
        k: number of items.
        where: filter expression over the item columns; None for no filter.

    Raises:
        InputError: no such run, ids that are not in the catalogue, or an invalid filter.

    Example:
        >>> recommend("runs/demo", history=["7"])
        Traceback (most recent call last):
        mmattn.errors.InputError: runs/demo: holds no index/ to recommend from, expected a run that ...
    """
    service = run if isinstance(run, RecommenderService) else RecommenderService.open(run)
    return service.recommend(history, k, where)


def _history_row(rows: Ints, count: int) -> sparse.csr_array:
    return sparse.csr_array(
        (np.ones(len(rows), np.float32), rows, np.array([0, len(rows)])), shape=(1, count)
    )


def _is_number(name: str) -> bool:
    return name.removeprefix("-").isdecimal() and len(name) < 19
