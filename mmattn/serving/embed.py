"""Vectors of many items, shard by shard: several workers share the shards, and a kill loses only one.

A shard is a parquet file beside the result. Whoever finds it there, does not encode it again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch

from mmattn.data.card import Card
from mmattn.data.reader import read_dataset
from mmattn.data.roles import ItemTable
from mmattn.errors import InputError
from mmattn.experiments.config import FitConfig
from mmattn.retrieval.storage.arrow import VectorTable, join_parquet, write_parquet
from mmattn.schema import load_config
from mmattn.serving.run_encoder import RunEncoder
from mmattn.types import Sample

__all__ = ["EmbeddingShards", "card_for_table", "embed", "read_items", "resolve_item_file"]


@dataclass(frozen=True)
class EmbeddingShards:
    """Items in shards, each of which somebody encodes and writes to a file of its own.

    Args:
        samples: all items.
        out: the parquet file that all shards together become.
        shard_size: items a shard; the last one may have fewer.
        folder: of the shards' files; its name tells items, source and model from others.
    """

    samples: Sequence[Sample]
    out: Path
    shard_size: int
    folder: Path

    @classmethod
    def create(
        cls, samples: Sequence[Sample], out: Path, shard_size: int, source: str, provenance: Mapping[str, str]
    ) -> EmbeddingShards:
        """Cut the items into shards.

        Args:
            samples: all items, the same in every process.
            out: the parquet file.
            shard_size: items a shard.
            source: hash of where the samples come from; shards of another source are not used.
            provenance: of the encoder; shards of another one are not used either.

        Raises:
            InputError: a size below 1.
        """
        if shard_size < 1:
            raise InputError(f"embed: got --shard-size {shard_size}, expected at least 1")
        told = json.dumps([dict(provenance), source, shard_size, [sample.id for sample in samples]])
        folder = out.parent / f".{out.name}.{hashlib.sha256(told.encode()).hexdigest()[:16]}.shards"
        return cls(samples, out, shard_size, folder)

    def __len__(self) -> int:
        """Number of shards."""
        return -(-len(self.samples) // self.shard_size)

    def path(self, number: int) -> Path:
        """The file of a shard."""
        return self.folder / f"{number:06d}.parquet"

    def pending(self) -> list[int]:
        """The shards that nobody has written yet."""
        return [number for number in range(len(self)) if not self.path(number).exists()]

    def write(self, number: int, encoder: RunEncoder, features: str | Path, *, progress: bool = False) -> int:
        """Encode a shard and write its file, atomically; the number of contents that cannot be read."""
        part = self.samples[number * self.shard_size : (number + 1) * self.shard_size]
        inputs = encoder.read_inputs(part, features, progress=progress)
        vectors, there = encoder.vectors(inputs)
        ids = pd.Series([sample.id for sample in part], dtype=object)[there].to_numpy()
        no_columns = pd.DataFrame(index=range(len(ids)))
        write_parquet(VectorTable(vectors[there], ids, no_columns, encoder.provenance), self.path(number))
        return len(inputs.rejected)

    def merge(self) -> int:
        """Write all shards as one file, remove theirs, and return the number of vectors.

        Raises:
            InputError: a shard that cannot be read, or no vector in any of them.
        """
        rows = join_parquet([self.path(number) for number in range(len(self))], self.out)
        shutil.rmtree(self.folder)
        return rows


def embed(
    encoder: RunEncoder,
    shards: EmbeddingShards,
    features: str | Path = "features",
    *,
    ray_workers: int = 0,
    progress: bool = True,
) -> dict[str, int] | None:
    """Encode this process's shards, wait for the others, and join all in the first process.

    Under `accelerate launch` or `torchrun` the processes share the shards; with `ray_workers` they are
    left to so many actors of Ray.

    Args:
        encoder: of the run.
        shards: the same in every process.
        features: folder of the feature store.
        ray_workers: actors of Ray; 0 is this process itself.
        progress: show bars.

    Returns:
        Numbers of "vectors", of items "without" any content, and of "unreadable" contents; None in every
        process but the first.

    Raises:
        InputError: several processes and actors of Ray at once, or as `EmbeddingShards.merge`.
        MissingDependency: Ray is asked for and not installed.
    """
    from accelerate import PartialState

    # Under torchrun accelerate asks for the CPU by name: without it every process would do all the work.
    state = PartialState(cpu=not torch.accelerator.is_available())
    if ray_workers:
        from mmattn.serving.ray_workers import write_with_ray

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
    """The samples of a card, or of a table with the columns of the run's own items.

    Raises:
        InputError: no such file, columns that are missing, or a table where only a card can say enough.
    """
    if resolve_item_file(items).suffix in (".yaml", ".yml"):
        return read_dataset(items).items
    settings = run / "config.yaml"
    if not settings.is_file():
        raise InputError(f"{items}: {run} does not say what its columns mean; give a card.yaml instead")
    card = Card.read(load_config(FitConfig, settings).data.card)
    return read_dataset(card_for_table(items, card.name, card.items)).items


def card_for_table(table: Path, name: str, columns: ItemTable) -> Card:
    """The card of a table with the columns of a known one; files that it names are relative to the table.

    Raises:
        InputError: columns that are missing, or a table where only a card can say enough.
    """
    if any(use.role == "entity" for _, use in columns.uses()):
        raise InputError(f"{table}: the items name entities of a graph; give a card.yaml that has it too")
    alone = Card(name, replace(columns, file=table.name))
    object.__setattr__(alone, "path", table.parent / "card.yaml")  # what its files are relative to
    alone.check_files()
    return alone


def resolve_item_file(items: Path) -> Path:
    """The file that says what the items are: the card of a folder, or the given file itself.

    Raises:
        InputError: there is none.
    """
    file = items / "card.yaml" if items.is_dir() else items
    if not file.is_file():
        raise InputError(f"{items}: no such file, expected a card.yaml or a table of items")
    return file
