"""The file format of the feature store: a safetensors file with the tokens of some items.

A shard is written under a temporary name, flushed and renamed, so that a kill never leaves a part of one. Its
header names the items by the hash of their content and holds a checksum of the tensors, which detects later
damage.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mmattn.files import atomic_path
from mmattn.types import Tokens

__all__ = ["BrokenShard", "Shard", "concatenate_layouts", "write_shard", "write_view"]

_CHUNK_ROWS = 4096  # items in memory at once while a view is written
_FORMAT = "mmattn features 1"
_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.int64: "I64"}


class BrokenShard(Exception):
    """A file is not a complete shard: truncated, damaged, or of another format."""


@dataclass(frozen=True)
class Shard:
    """The tokens of some items, in a memory-mapped file.

    Args:
        path: the file.
        items: name of each item: the hash of its content, or "" where it has no content.
        rejected: item -> the reason why it cannot be encoded.
        values: [N, D], memory-mapped: rows are read from disk on use.
        lengths: [I] int64, tokens of each item.
        position: [N] int64.
        time: [N] seconds, or None.
        entity: [N] int64, or None.
    """

    path: Path
    items: tuple[str, ...]
    rejected: Mapping[str, str]
    values: Tensor
    lengths: Tensor
    position: Tensor
    time: Tensor | None = None
    entity: Tensor | None = None

    @classmethod
    def open(cls, path: Path, *, verify: bool) -> Shard:
        """Open a shard and map it into memory.

        Args:
            path: the file.
            verify: read everything once and compare the checksum; False checks sizes and header only.

        Raises:
            BrokenShard: the file is truncated, damaged, or no shard.
            FileNotFoundError: there is no such file.
        """
        if not path.is_file():
            raise FileNotFoundError(path)
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {}).get("mmattn", "{}"))
                names = set(file.keys())
                if header.get("format") != _FORMAT or not {"values", "lengths", "position"} <= names:
                    raise BrokenShard(f"{path.name}: not a shard of this version")
                tensors = {name: file.get_tensor(name) for name in names}
        except (SafetensorError, OSError, ValueError) as error:
            raise BrokenShard(f"{path.name}: {error}") from error
        values = tensors.pop("values")
        if verify:
            checksum = 0
            for tensor in (*(tensors[name] for name in _by_element_size(tensors)), values):
                checksum = _checksum(tensor, checksum)
            if checksum != header["checksum"]:
                raise BrokenShard(f"{path.name}: damaged since it was written")
        if len(header["items"]) != len(tensors["lengths"]) or int(tensors["lengths"].sum()) != len(values):
            raise BrokenShard(f"{path.name}: its items and its values do not fit")
        return cls(
            path=path, items=tuple(header["items"]), rejected=header["rejected"], values=values, **tensors
        )


def write_shard(
    path: Path,
    *,
    items: Sequence[str],
    rejected: Mapping[str, str],
    values: Iterable[Tensor],
    shape: tuple[int, int],
    dtype: torch.dtype,
    layout: Mapping[str, Tensor],
) -> None:
    """Write a shard atomically; the values come in pieces and need not fit into memory.

    Args:
        path: the file.
        items: name of each item, in the order of `layout["lengths"]`.
        rejected: item -> reason.
        values: pieces [n, D] whose concatenation has `shape`.
        shape: (N, D) of all values.
        dtype: float32 or float16.
        layout: the other tensors of `Shard`: lengths, position, and optionally time and entity.

    Raises:
        OSError: the disk is full or read-only. An existing file stays as it was.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(_header(items, rejected, shape, dtype, layout, checksum=0))
        checksum = 0
        for tensor in chain((layout[name] for name in _by_element_size(layout)), values):
            file.write(_bytes(tensor))
            checksum = _checksum(tensor, checksum)
        # The checksum is known only now; its fixed width fits the place of the zero.
        file.seek(0)
        file.write(_header(items, rejected, shape, dtype, layout, checksum))


def write_view(
    path: Path, items: Sequence[str], shards: Sequence[Shard], dim: int, dtype: torch.dtype
) -> None:
    """Gather the tokens of items from shards into one shard, in the order of `items`.

    Args:
        path: the file.
        items: names of the items; one that no shard holds gets no tokens.
        shards: the source; where two hold the same item, the first is used.
        dim: width D of the tokens.
        dtype: dtype of the values.

    Raises:
        OSError: as in `write_shard`.
    """
    locations: dict[str, tuple[Shard, int, int]] = {}
    for shard in reversed(shards):
        ends = shard.lengths.cumsum(0).tolist()
        locations |= {
            name: (shard, *rows) for name, *rows in zip(shard.items, [0, *ends], ends, strict=False)
        }
    runs = [locations[name] for name in items if name in locations]

    def rows(field: str, runs: Sequence[tuple[Shard, int, int]], empty: Tensor) -> Tensor:
        return torch.cat([empty, *(getattr(shard, field)[start:end] for shard, start, end in runs)])

    no_ints = torch.zeros(0, dtype=torch.int64)
    layout = {
        "lengths": torch.tensor(
            [locations[name][2] - locations[name][1] if name in locations else 0 for name in items],
            dtype=torch.int64,
        ),
        "position": rows("position", runs, no_ints),
    }
    for field, empty in (("time", torch.zeros(0)), ("entity", no_ints)):
        if runs and getattr(runs[0][0], field) is not None:
            layout[field] = rows(field, runs, empty)
    reasons = {name: reason for shard in shards for name, reason in shard.rejected.items()}
    item_set = set(items)
    write_shard(
        path,
        items=items,
        rejected={name: reason for name, reason in reasons.items() if name in item_set},
        values=(
            rows("values", runs[start : start + _CHUNK_ROWS], torch.zeros(0, dim, dtype=dtype))
            for start in range(0, len(runs), _CHUNK_ROWS)
        ),
        shape=(len(layout["position"]), dim),
        dtype=dtype,
        layout=layout,
    )


def concatenate_layouts(parts: Sequence[Tokens]) -> dict[str, Tensor]:
    """Concatenate everything but the values of several batches of tokens.

    Args:
        parts: the batches.

    Returns:
        The `layout` of `write_shard`; missing times are NaN, missing entities -1.
    """
    no_ints = torch.zeros(0, dtype=torch.int64)
    layout = {
        "lengths": torch.cat([no_ints, *(part.lengths for part in parts)]),
        "position": torch.cat([no_ints, *(part.position for part in parts)]),
    }
    if any(part.time is not None for part in parts):
        layout["time"] = torch.cat(
            [_fill_missing(part.time, len(part.values), float("nan"), torch.float32) for part in parts]
        )
    if any(part.entity is not None for part in parts):
        layout["entity"] = torch.cat(
            [_fill_missing(part.entity, len(part.values), -1, torch.int64) for part in parts]
        )
    return layout


def _header(
    items: Sequence[str],
    rejected: Mapping[str, str],
    shape: tuple[int, int],
    dtype: torch.dtype,
    layout: Mapping[str, Tensor],
    checksum: int,
) -> bytes:
    """Build the header of a safetensors file: its length, then JSON with the offsets of each tensor."""
    shapes = {name: (layout[name].dtype, list(layout[name].shape)) for name in _by_element_size(layout)}
    tensors, start = {}, 0
    for name, (kind, size) in {**shapes, "values": (dtype, list(shape))}.items():
        end = start + math.prod(size) * kind.itemsize
        tensors[name] = {"dtype": _DTYPES[kind], "shape": size, "data_offsets": [start, end]}
        start = end
    metadata = {"format": _FORMAT, "items": list(items), "rejected": dict(rejected)}
    text = json.dumps(metadata)[:-1] + f', "checksum": {checksum:>10d}}}'
    data = json.dumps({"__metadata__": {"mmattn": text}, **tensors}).encode()
    data += b" " * (-len(data) % 8)  # tensors are aligned to eight bytes
    return struct.pack("<Q", len(data)) + data


def _by_element_size(layout: Mapping[str, Tensor]) -> list[str]:
    """Names sorted by element size, widest first, so that every tensor is aligned to its element size."""
    return sorted(layout, key=lambda name: (-layout[name].dtype.itemsize, name))


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def _checksum(tensor: Tensor, previous: int) -> int:
    """Continue the CRC-32 `previous`: it detects accidental damage and is faster than the disk."""
    return zlib.crc32(_bytes(tensor), previous)


def _fill_missing(tensor: Tensor | None, count: int, fill: float, dtype: torch.dtype) -> Tensor:
    return torch.full((count,), fill, dtype=dtype) if tensor is None else tensor.to(dtype)
