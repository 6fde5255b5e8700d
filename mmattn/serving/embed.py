"""Vectors of many items, computed in shards by several workers; an interrupted call can be resumed.

A shard is a parquet file beside the result; shards whose file exists are not encoded again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mmattn.data.card import Card
from mmattn.data.reader import read_dataset
from mmattn.errors import InputError
from mmattn.schema import read_yaml
from mmattn.serving.ray_workers import write_with_ray
from mmattn.types import Sample

if TYPE_CHECKING:
    from mmattn.data.roles import ItemTable
    from mmattn.serving.embedding_shards import EmbeddingShards
    from mmattn.serving.run_encoder import RunEncoder

__all__ = ["card_for_table", "embed", "read_items", "resolve_item_file"]


def embed(
    encoder: RunEncoder,
    shards: EmbeddingShards,
    features: str | Path = "features",
    *,
    ray_workers: int = 0,
    progress: bool = True,
) -> dict[str, int] | None:
    """Encode this process's shards, wait for the others, and join all shards in the first process.

    Under `accelerate launch` or `torchrun` the processes divide the shards among themselves; with
    `ray_workers`, Ray actors encode them.

    Args:
        encoder: encoder of the run.
        shards: the same in every process.
        features: folder of the feature store.
        ray_workers: number of Ray actors; 0 encodes in this process.
        progress: whether to show progress bars.

    Returns:
        Numbers of "vectors", of items "without" any content, and of "unreadable" contents; None in every
        process but the first.

    Raises:
        InputError: Ray in one of several processes, or as `EmbeddingShards.merge`.
        MissingDependency: Ray is requested and not installed.
    """
    from accelerate import PartialState

    # Without `cpu=True`, accelerate ignores torchrun on a CPU, and every process would do all the work.
    state = PartialState(cpu=not torch.accelerator.is_available())
    if ray_workers:
        if state.num_processes > 1:
            raise InputError("embed: got --ray in one of several processes, expected a single process")
        unreadable = write_with_ray(encoder, shards, features, ray_workers, progress=progress)
    else:
        unreadable = 0
        for number in range(state.process_index, len(shards), state.num_processes):
            if not shards.path(number).exists():
                shown = progress and state.is_main_process
                unreadable += shards.write(number, encoder, features, progress=shown)
    state.wait_for_everyone()
    if not state.is_main_process:
        return None
    rows = shards.merge()
    return {"vectors": rows, "without": len(shards.samples) - rows, "unreadable": unreadable}


def read_items(items: Path, run: Path) -> Sequence[Sample]:
    """Read the samples of a card, or of a table with the columns of the run's own items.

    Args:
        items: card.yaml, its folder, or a table.
        run: folder of the run, whose config.yaml gives the meaning of a table's columns.

    Raises:
        InputError: no such file, missing columns, or a table of items that need a card.
    """
    if resolve_item_file(items).suffix in (".yaml", ".yml"):
        return read_dataset(items).items
    settings = run / "config.yaml"
    if not settings.is_file():
        raise InputError(f"{items}: {run} does not say what its columns mean; give a card.yaml instead")
    card = Card.read(Path(read_yaml(settings)["data"]["card"]))
    return read_dataset(card_for_table(items, card.name, card.items)).items


def card_for_table(table: Path, name: str, columns: ItemTable) -> Card:
    """Card of a table with the columns of another card; files named in the table are relative to it.

    Args:
        table: file with the items.
        name: name of the data set.
        columns: item table of the other card.

    Raises:
        InputError: missing columns, or columns of graph entities, which need a card with the graph.
    """
    if any(use.role == "entity" for _, use in columns.uses()):
        raise InputError(f"{table}: the items name entities of a graph; give a card.yaml that has it too")
    alone = Card(name, replace(columns, file=table.name))
    object.__setattr__(alone, "path", table.parent / "card.yaml")  # its files are relative to this path
    alone.check_files()
    return alone


def resolve_item_file(items: Path) -> Path:
    """The card of a folder, or the given file itself.

    Args:
        items: folder with a card.yaml, or a file.

    Raises:
        InputError: the file does not exist.
    """
    file = items / "card.yaml" if items.is_dir() else items
    if not file.is_file():
        raise InputError(f"{items}: no such file, expected a card.yaml or a table of items")
    return file
