"""Items divided into shards, each encoded and written to a file of its own."""

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
    """Items divided into shards, each encoded by one worker and written to a file of its own.

    Args:
        samples: all items.
        out: parquet file into which the shards are merged.
        shard_size: items per shard; the last one may have fewer.
        folder: folder of the shard files; its name is a hash of items, source and model.
    """

    samples: Sequence[Sample]
    out: Path
    shard_size: int
    folder: Path

    @classmethod
    def create(
        cls, samples: Sequence[Sample], out: Path, shard_size: int, source: str, provenance: Mapping[str, str]
    ) -> EmbeddingShards:
        """Divide items into shards.

        Args:
            samples: all items, the same in every process.
            out: parquet file into which the shards are merged.
            shard_size: items per shard.
            source: hash of the source of the samples; existing shards of another source are not used.
            provenance: provenance of the encoder; existing shards of another provenance are not used.

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
        """File of a shard.

        Args:
            number: shard number, from 0.
        """
        return self.folder / f"{number:06d}.parquet"

    def pending(self) -> list[int]:
        """Numbers of the shards whose file does not exist yet."""
        return [number for number in range(len(self)) if not self.path(number).exists()]

    def write(self, number: int, encoder: RunEncoder, features: str | Path, *, progress: bool = False) -> int:
        """Encode a shard and write its file, atomically.

        Args:
            number: shard number, from 0.
            encoder: encoder of the run.
            features: folder of the feature store.
            progress: whether to show progress bars.

        Returns:
            Number of contents that could not be read.
        """
        part = self.samples[number * self.shard_size : (number + 1) * self.shard_size]
        inputs = encoder.read_inputs(part, features, progress=progress)
        vectors, has_content = encoder.vectors(inputs)
        ids = pd.Series([sample.id for sample in part], dtype=object)[has_content].to_numpy()
        no_columns = pd.DataFrame(index=range(len(ids)))
        write_parquet(
            VectorTable(vectors[has_content], ids, no_columns, encoder.provenance), self.path(number)
        )
        return len(inputs.rejected)

    def merge(self) -> int:
        """Merge all shards into one file, delete theirs, and return the number of vectors.

        Raises:
            InputError: a shard that cannot be read, or no vectors in any shard.
        """
        rows = join_parquet([self.path(number) for number in range(len(self))], self.out)
        shutil.rmtree(self.folder)
        return rows
