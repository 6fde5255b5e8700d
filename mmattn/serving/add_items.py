"""Items that came after training: read from a card or a table, and weighed without learning anything."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch
from numpy.typing import NDArray

from mmattn.data.card import Card
from mmattn.data.dataset import Dataset
from mmattn.data.reader import read
from mmattn.data.roles import ItemTable
from mmattn.data.tables import column_types, read_table
from mmattn.errors import InputError, nearest
from mmattn.heads.recommendation.recommendation import RecommendationHead
from mmattn.serving.embed import item_file
from mmattn.training.tasks.recommendation import Recommender

__all__ = ["Added", "read_new_items", "weights_of"]

_BLOCK = 4096  # items whose weights are computed together


@dataclass(frozen=True)
class Added:
    """What became of the items that were to be added.

    Args:
        ids: of those that are new and can be recommended from now on.
        there: how many were there before; they stay as they are.
        without: ids of those that hold nothing which the encoders can read; they are left out.
    """

    ids: list[Any]
    there: int
    without: list[Any]


def read_new_items(source: Path, catalogue: str, columns: ItemTable) -> Dataset:
    """The items of a card, or of a table with columns like those of the catalogue.

    A column that a table does not have is missing for every item; so is an entity, which only a card with
    its graph can place. Paths in a table are relative to it.

    Args:
        source: card.yaml, its folder, or a .parquet, .csv or .tsv file.
        catalogue: name of the data set that the run was trained on.
        columns: what its card says of the items.

    Raises:
        InputError: no such file, the card of another data set, or a table without ids or any known column.
    """
    source = item_file(source)
    if source.suffix in (".yaml", ".yml"):
        found = Card.read(source).name
        if found != catalogue:
            raise InputError(f"{source}: the card of {found!r}, but the run's catalogue is {catalogue!r}")
        return read(source)
    types = column_types(source)
    if columns.id not in types:
        raise InputError(f"{source}: no column {columns.id!r} for the ids.{nearest(columns.id, types)}")
    uses = {name: use for name, use in columns.columns.items() if all(one.role != "entity" for one in use)}
    there = [name for name in uses if name in types]
    if not there:
        raise InputError(
            f"{source}: has none of the catalogue's columns {', '.join(uses)}; it has {', '.join(types)}"
        )
    table = read_table(source, [columns.id, *there])
    if table.malformed:
        row, reason = table.malformed[0]
        raise InputError(f"{source}: row {row}: {reason}")
    whole = pa.table(
        {columns.id: table[columns.id]}
        | {name: table[name] if name in types else pa.nulls(len(table), pa.string()) for name in uses}
    )
    with tempfile.TemporaryDirectory() as folder:
        filled = Path(folder) / "items.parquet"
        pa.parquet.write_table(whole, filled)
        card = Card(catalogue, replace(columns, file=str(filled), columns=uses, split=None))
        object.__setattr__(card, "path", source.resolve().parent / "card.yaml")  # paths are relative to it
        card.check_files()
        return read(card)


def weights_of(
    head: RecommendationHead,
    known: NDArray[np.float32],
    new: NDArray[np.float32],
    together: NDArray[np.float32],
) -> NDArray[np.float32]:
    """[K, N], what each known item says of each new one.

    Args:
        head: of the run's model.
        known: [K, D] vectors of the known items, as the head made them.
        new: [N, D] vectors of the new items.
        together: [K, K] counts where the head completes histories, otherwise empty.
    """
    device = next(head.parameters()).device
    counts = torch.tensor(together).to(device) if len(together) else None
    found = []
    for start in range(0, len(new), _BLOCK):
        part = new[start : start + _BLOCK]
        vectors = torch.from_numpy(np.concatenate([known, part])).to(device)
        recommender = Recommender(head, vectors, np.arange(len(known)), counts)
        found.append(recommender.weights(np.arange(len(known), len(vectors))).float().cpu().numpy())
    return np.concatenate(found, axis=1)
