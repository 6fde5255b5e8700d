"""Items added after training: reading them, and computing their weights without training."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch
from numpy.typing import NDArray

from mmattn.data.card import Card
from mmattn.data.reader import read_dataset
from mmattn.data.tables import column_types, read_table
from mmattn.errors import InputError, did_you_mean
from mmattn.serving.embed import resolve_item_file
from mmattn.training.tasks.recommendation import Recommender

if TYPE_CHECKING:
    from mmattn.data.dataset import Dataset
    from mmattn.data.roles import ItemTable
    from mmattn.heads.recommendation.recommendation import RecommendationHead

__all__ = ["AddedItems", "new_item_weights", "read_new_items"]

_BATCH_ITEMS = 4096  # items whose weights are computed together


@dataclass(frozen=True)
class AddedItems:
    """Result of adding items.

    Args:
        ids: ids of the added items, which can be recommended from now on.
        existing: number of items that were in the catalogue before; they are unchanged.
        skipped_no_content: ids of items without content that the encoders can read; they were left out.
    """

    ids: list[Any]
    existing: int
    skipped_no_content: list[Any]


def read_new_items(source: Path, catalogue: str, columns: ItemTable) -> Dataset:
    """Read items from a card, or from a table with the columns of the catalogue.

    Columns that the table lacks are missing for every item. Knowledge-graph entities are read only from a
    card, because a table has no graph. Paths in a table are relative to it.

    Args:
        source: card.yaml, its folder, or a .parquet, .csv or .tsv file.
        catalogue: name of the data set that the run was trained on.
        columns: item table of the catalogue's card.

    Raises:
        InputError: no such file, the card of another data set, or a table without ids or any known column.
    """
    source = resolve_item_file(source)
    if source.suffix in (".yaml", ".yml"):
        card_name = Card.read(source).name
        if card_name != catalogue:
            raise InputError(f"{source}: the card of {card_name!r}, but the run's catalogue is {catalogue!r}")
        return read_dataset(source)
    types = column_types(source)
    if columns.id not in types:
        raise InputError(f"{source}: no column {columns.id!r} for the ids.{did_you_mean(columns.id, types)}")
    uses = {
        name: use for name, use in columns.columns.items() if all(entry.role != "entity" for entry in use)
    }
    stated = [name for name in uses if name in types]
    if not stated:
        raise InputError(
            f"{source}: has none of the catalogue's columns {', '.join(uses)}; it has {', '.join(types)}"
        )
    table = read_table(source, [columns.id, *stated])
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
        return read_dataset(card)


def new_item_weights(
    head: RecommendationHead,
    known_vectors: NDArray[np.float32],
    new_vectors: NDArray[np.float32],
    cooccurrence: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Weights from known to new items.

    Args:
        head: head of the run's model.
        known_vectors: [K, D] head output for the known items.
        new_vectors: [N, D] head output for the new items.
        cooccurrence: [K, K] co-occurrence counts if the head completes histories, otherwise empty.

    Returns:
        [K, N] weight of each known item in a history for the score of each new item.
    """
    device = next(head.parameters()).device
    counts = torch.tensor(cooccurrence).to(device) if len(cooccurrence) else None
    weights = []
    for start in range(0, len(new_vectors), _BATCH_ITEMS):
        part = new_vectors[start : start + _BATCH_ITEMS]
        vectors = torch.from_numpy(np.concatenate([known_vectors, part])).to(device)
        recommender = Recommender(head, vectors, np.arange(len(known_vectors)), counts)
        weights.append(recommender.weights(np.arange(len(known_vectors), len(vectors))).float().cpu().numpy())
    return np.concatenate(weights, axis=1)
