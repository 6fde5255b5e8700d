"""Items cut into shards, each of which is encoded and written to a file of its own."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from mmattn.errors import InputError
from mmattn.retrieval.storage.arrow import VectorTable, join_parquet, write_parquet
from mmattn.types import Sample

if TYPE_CHECKING:
    from mmattn.serving.run_encoder import RunEncoder

__all__ = ["EmbeddingShards"]


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
        """The file of a shard.

        Args:
            number: of the shard.
        """
        return self.folder / f"{number:06d}.parquet"

    def pending(self) -> list[int]:
        """The shards that nobody has written yet."""
        return [number for number in range(len(self)) if not self.path(number).exists()]

    def write(self, number: int, encoder: RunEncoder, features: str | Path, *, progress: bool = False) -> int:
        """Encode a shard and write its file, atomically; returns the number of unreadable contents.

        Args:
            number: of the shard.
            encoder: model of the run.
            features: folder of the feature store.
            progress: show a bar.
        """
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
