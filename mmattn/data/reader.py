"""Read the data of a card; bad rows and cells are listed with their reason."""

from __future__ import annotations

import os

from mmattn.data.card import Card
from mmattn.data.content import open_content_table
from mmattn.data.dataset import Dataset
from mmattn.data.interactions import read_graph, read_interactions
from mmattn.data.rejected import RejectionLog
from mmattn.types import Sample

__all__ = ["read_dataset"]


def read_dataset(card: Card | str | os.PathLike[str], reject_limit: float = 0.5) -> Dataset:
    """Read all tables of a card.

    The content of an item depends on the kind of the modality:

    * "text": a list with one text for each text column in the card's order, None where it is missing;
    * "words": a list of words;
    * "table": a mapping from column to value (categories a list of str, category a str, number a float,
      entity an index into `Dataset.graph.entities`);
    * "image" and "audio": a `Path`.

    Empty cells, lists and texts are missing values; a modality without any value is absent. `Dataset` and
    `Column` describe the targets.

    `Dataset.rejected` lists interactions with unknown items or users, without a user, or with an unreadable
    time or value; duplicate interactions (same user, item, and time if any; the first is kept); files that do
    not exist (the item keeps its other modalities); and items without any modality (they are kept).

    Args:
        card: a checked card, or the path of one.
        reject_limit: maximum fraction of a table's rows, or of a column's cells, that may be bad.

    Returns:
        The dataset.

    Raises:
        InputError: a bad card or file, duplicate ids, or more rejections than the limit.

    Example:
        >>> import pathlib, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (folder / "items.csv").write_text("id,title\\n7,Heat\\n8,\\n")
        >>> _ = (folder / "card.yaml").write_text(
        ...     "name: films\\nitems: {file: items.csv, id: id, columns: {title: text}}")
        >>> films = read_dataset(folder)
        >>> [dict(item.content) for item in films.items], films.rejected.counts()
        ([{'text': ['Heat']}, {}], {'kept': 1})
    """
    if not isinstance(card, Card):
        card = Card.load(card)
    rejected = RejectionLog()
    items = open_content_table(card, "items", card.items, rejected, reject_limit)
    users = open_content_table(card, "users", card.users, rejected, reject_limit) if card.users else None
    named = items.entity_names() | (users.entity_names() if users else set())
    graph = read_graph(card, named, rejected, reject_limit)
    entities = {name: index for index, name in enumerate(graph.entities)}
    item_samples = items.samples(entities)
    user_samples = users.samples(entities) if users else ()
    known_users = [sample.id for sample in user_samples] if users else None
    interactions, user_ids = read_interactions(card, items.ids, known_users, rejected, reject_limit)
    return Dataset(
        card=card,
        items=item_samples,
        users=user_samples if users else tuple(Sample(id) for id in user_ids),
        interactions=interactions,
        graph=graph,
        item_split=items.split(),
        labels=items.labels(),
        targets=items.targets(item_samples),
        rejected=rejected,
    )
