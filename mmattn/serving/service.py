"""A finished run that answers: what would somebody with this history choose?"""

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
    """What one user gets, best first.

    Args:
        ids: of the items, as the catalogue has them: numbers or text.
        scores: higher is better; they compare items for this user, not users.
        basis: "history", or "catalogue" where there is no history to go by.
    """

    ids: list[Any]
    scores: list[float]
    basis: str


@dataclass(eq=False)
class RecommenderService:
    """The recommender of a run, as `mmattn fit` leaves it: opened by `RecommenderService.open`.

    The vector of a user is the sum of what the items of the history add to it, so a new user needs nothing
    but a history. Who has none is taken for somebody who met each known item once: the answer is what the
    catalogue as a whole speaks for, the same for everybody; how often an item was met plays no part in it.

    Args:
        folder: of the bundle.
        index: vectors of all items, with columns to filter on.
        item_to_user: [I, W], what each item of the index adds to a user's vector.
        weights_to_vector: [W, K], makes the vector of an item from its weights.
        known_rows: [K], rows of the known items in the index.
        known_vectors: [K, D], what the model's head makes of the known items.
        cooccurrence: [K, K], how many users chose both, where the head completes histories; otherwise [0, 0].
        attributes: what else the manifest says.
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

    # --- on the disk -----------------------------------------------------------------------------

    @classmethod
    def open(cls, run: str | Path) -> RecommenderService:
        """Open what `mmattn fit` left in a run's folder, every file checked against its hash.

        Args:
            run: folder of the run.

        Raises:
            InputError: nothing there, damage, or a model beside it that did not make the vectors.
        """
        folder = Path(run) / INDEX_FOLDER
        if not (folder / "manifest.json").is_file():
            raise InputError(
                f"{run}: holds no {INDEX_FOLDER}/ to recommend from, expected a run that `mmattn fit` "
                f"finished"
            )
        service: RecommenderService = open_bundle(folder, lambda opened: cls._from_bundle(opened, folder))
        model = service.model
        if model.is_dir():  # it is needed for new items only
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
        """Write everything; a kill at any moment leaves what was there, or the whole of this.

        Args:
            replace: whatever is there.

        Raises:
            InputError: somebody else has written there since this was opened.
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
        """What the catalogue's card says of the table of items."""
        return from_mapping(ItemTable, self.attributes["columns"], str(self.folder))

    def check_provenance(self, provenance: Mapping[str, str], where: str) -> None:
        """Check that a model is the one that made these vectors.

        Args:
            provenance: part -> fingerprint of the model.
            where: begins the message.

        Raises:
            InputError: the first part (encoder, program, weights) that differs, on both sides.
            InputError: another model.
        """
        ours = self.index.provenance or {}
        for part in sorted({*ours, *provenance}):
            if ours.get(part) != provenance.get(part):
                raise InputError(
                    f"{where}: a model of another {part}, {provenance.get(part, 'none')}; the vectors in "
                    f"{self.folder} were made with {ours.get(part, 'none')}"
                )

    # --- answers ---------------------------------------------------------------------------------

    def recommend(self, history: Sequence[Any], k: int = 20, where: str | None = None) -> Recommendations:
        """The best items for one user.

        Args:
            history: ids of the items that the user has met, in any order; none of them is recommended.
            k: how many; fewer come back where fewer are left.
            where: a condition over the columns, `genre == 'Comedy' and year > 1990`; see
                `mmattn.retrieval.filters`.

        Raises:
            InputError: ids that are not in the catalogue, k below 1, or a filter that does not parse.
        """
        if isinstance(history, (str, bytes)) or not hasattr(history, "__len__"):
            raise InputError(f"history: got {history!r}, expected a list of item ids")
        rows = np.unique(self.rows_of(history))
        scores, found = self.recommend_batch(_history_row(rows, len(self.index)), k, where)
        there = found[0] >= 0
        basis = "history" if len(rows) else "catalogue"
        return Recommendations(self.index.ids[found[0][there]].tolist(), scores[0][there].tolist(), basis)

    def recommend_batch(
        self, seen: sparse.csr_array, k: int = 20, where: str | None = None
    ) -> tuple[Floats32, Ints]:
        """Scores and rows of the index [U, k] for many users; minus infinity and -1 where no item is left.

        Args:
            seen: [U, I] ones where the user has met the item of that row.
            k: how many.
            where: as in `recommend`.

        Raises:
            InputError: k below 1, or a filter that does not parse.
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
        """[n] rows of items in the index.

        Args:
            ids: numbers or text; 7 and "7" name the same item.

        Raises:
            InputError: ids that are not in the catalogue, with the nearest that are.
        """
        rows = self.find_rows(ids)
        unknown = [as_text(name) for name, row in zip(ids, rows, strict=True) if row < 0]
        if unknown:
            raise InputError(f"history: {self.unknown_ids_message(unknown)}")
        return rows

    def find_rows(self, ids: Sequence[Any]) -> Ints:
        """Return the rows of items in the index, [n]; -1 for unknown items.

        Args:
            ids: [n] ids.
        """
        names = [as_text(name) for name in ids]
        if self.index.ids.dtype == object:
            return np.asarray(self._id_to_row.get_indexer(pd.Index(names, dtype=object)), np.int64)
        numbers = np.array([_is_number(name) for name in names], dtype=bool)
        found = self._id_to_row.get_indexer(
            pd.Index([int(name) if is_number else 0 for name, is_number in zip(names, numbers, strict=True)])
        )
        return np.where(numbers, found, -1)

    def unknown_ids_message(self, ids: Sequence[str]) -> str:
        """Return the message about ids that are not in the catalogue.

        Args:
            ids: the unknown ids.
        """
        names = list(dict.fromkeys(ids))
        shown = ", ".join(repr(name) for name in names[:_MAX_NAMED_IDS]) + (
            ", ..." if len(names) > _MAX_NAMED_IDS else ""
        )
        few = len(self.index) < 100_000  # looking for likely ones takes a second from there on
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
        """Add items that came after training, and write the bundle: nothing is trained again.

        A new item's vector comes from what the known items say of it. Met in a history, it stands for the
        known items that say of it what they say. Items that are there already stay as they are.

        Args:
            source: samples, a card of the same data set that has grown, or a table with its columns (those
                that it does not have are missing).
            features: folder of the feature store; left out, nothing is stored.
            progress: show bars while encoding.

        Raises:
            InputError: another data set's card, ids of another kind, or a model that is not the one that
                made the vectors; nothing is added then.
        """
        labels: Mapping[str, np.ndarray] = {}
        if isinstance(source, (str, Path)):
            read = read_new_items(Path(source), self.attributes["catalogue"], self.columns)
            samples, labels = list(read.items), read.labels
        else:
            samples = list(source)
        ids = self._to_catalogue_ids([sample.id for sample in samples])
        new = [place for place, name in enumerate(ids) if name not in self.index]
        if not new:
            return AddedItems([], len(samples), [])
        encoder = RunEncoder(self.model, self.attributes["head"])
        self.check_provenance(encoder.provenance, str(self.model))
        with tempfile.TemporaryDirectory() as nowhere:
            inputs = encoder.read_inputs(
                [samples[place] for place in new], features or nowhere, progress=progress
            )
            vectors, there = encoder.vectors(inputs)
        good = [place for place, has in zip(new, there, strict=True) if has]
        without = [ids[place] for place, has in zip(new, there, strict=True) if not has]
        if good:
            head = encoder.model.head(encoder.head)
            weights_KN = new_item_weights(head, self.known_vectors, vectors[there], self.cooccurrence)
            columns = item_columns(
                [samples[place] for place in good], self.columns,
                {name: cells[good] for name, cells in labels.items()},
            )  # fmt: skip
            self.index.add(
                (self.weights_to_vector @ weights_KN).T, [ids[place] for place in good],
                metadata=columns, provenance=encoder.provenance,
            )  # fmt: skip
            self.item_to_user = np.concatenate(
                [self.item_to_user, weights_KN.T @ self.item_to_user[self.known_rows]]
            )
            self.save()
            self._id_to_row, self._last_filter = pd.Index(self.index.ids), None
        return AddedItems([ids[place] for place in good], len(samples) - len(new), without)

    def _to_catalogue_ids(self, names: Sequence[str]) -> list[Any]:
        """Ids as the catalogue has them.

        Raises:
            InputError: text where the catalogue has numbers, or an id twice.
        """
        if self.index.ids.dtype == np.int64:
            wrong = [name for name in names if not _is_number(name)]
            if wrong:
                raise InputError(f"add: got id {wrong[0]!r}, expected whole numbers as in the catalogue")
            names = [int(name) for name in names]  # type: ignore[misc]
        if len(set(names)) < len(names):
            twice = next(name for place, name in enumerate(names) if name in names[:place])
            raise InputError(f"add: id {twice!r} comes twice, expected each id once")
        return list(names)


def recommend(
    run: RecommenderService | str | Path, history: Sequence[Any], k: int = 20, where: str | None = None
) -> Recommendations:
    """What a finished run recommends to somebody with this history.

    Args:
        run: the folder that `mmattn fit` left, or a `RecommenderService`, which is opened once for many
            questions.
        history: ids of the items met; empty, the answer is what the catalogue as a whole speaks for.
        k: how many.
        where: a condition over the items' columns.

    Raises:
        InputError: no such run, ids that are not in the catalogue, or a filter that does not parse.

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
