"""The file format of the feature store: one safetensors file holds the tokens of some items.

It is there whole or not at all: a shard is written under another name, flushed and renamed, so a
kill never leaves half of one. Its header names the items by the hash of their content and holds a
checksum of the tensors, so a file that was damaged afterwards is found out.
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

__all__ = ["BrokenShard", "Shard", "write_shard", "write_view"]

_CHUNK_ROWS = 4096  # items that are gathered in memory at once while a view is written
_FORMAT = "mmattn features 1"
_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.int64: "I64"}


class BrokenShard(Exception):
    """A file is no whole shard: torn, damaged, or something else."""


@dataclass(frozen=True)
class Shard:
    """The tokens of some items, in a file that is mapped into memory.

    Args:
        path: the file.
        items: what each item is called: the hash of its content, or "" where it has no content.
        rejected: item -> the reason why it cannot be encoded.
        values: [N, D], mapped: rows are read from the disk when they are used.
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
        """Map a shard.

        Args:
            verify: read everything once and compare the checksum; False trusts sizes and header.

        Raises:
            BrokenShard: it is torn, damaged, or no shard.
            FileNotFoundError: it is not there.
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
    """Write a shard, atomically; the values come in pieces, so they need not fit into memory.

    Args:
        path: the final place.
        items: what each item is called, in the order of `layout["lengths"]`.
        rejected: item -> reason.
        values: pieces [n, D] that add up to `shape`.
        shape: [N, D] of all the values.
        dtype: float32 or float16.
        layout: the other tensors of `Shard`: lengths, position, and perhaps time and entity.

    Raises:
        OSError: the disk is full, or cannot be written to. What was there before is untouched.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(_header(items, rejected, shape, dtype, layout, checksum=0))
        checksum = 0
        for tensor in chain((layout[name] for name in _by_element_size(layout)), values):
            file.write(_bytes(tensor))
            checksum = _checksum(tensor, checksum)
        # The checksum is known only now; written in a fixed width, it fits where the zero stands.
        file.seek(0)
        file.write(_header(items, rejected, shape, dtype, layout, checksum))


def write_view(
    path: Path, items: Sequence[str], shards: Sequence[Shard], dim: int, dtype: torch.dtype
) -> None:
    """Write the items' tokens, gathered from shards, as one shard in the order of `items`.

    Args:
        path: the final place.
        items: names; what no shard holds has no tokens.
        shards: which hold them; of two that hold the same item the first counts.
        dim: width D.
        dtype: of the values.

    Raises:
        OSError: as `write_shard`.
    """
    where: dict[str, tuple[Shard, int, int]] = {}
    for shard in reversed(shards):
        ends = shard.lengths.cumsum(0).tolist()
        where |= {name: (shard, *rows) for name, *rows in zip(shard.items, [0, *ends], ends, strict=False)}
    runs = [where[name] for name in items if name in where]

    def rows(field: str, runs: Sequence[tuple[Shard, int, int]], none: Tensor) -> Tensor:
        return torch.cat([none, *(getattr(shard, field)[start:end] for shard, start, end in runs)])

    none = torch.zeros(0, dtype=torch.int64)
    layout = {
        "lengths": torch.tensor(
            [where[name][2] - where[name][1] if name in where else 0 for name in items], dtype=torch.int64
        ),
        "position": rows("position", runs, none),
    }
    for field, empty in (("time", torch.zeros(0)), ("entity", none)):
        if runs and getattr(runs[0][0], field) is not None:
            layout[field] = rows(field, runs, empty)
    reasons = {name: reason for shard in shards for name, reason in shard.rejected.items()}
    wanted = set(items)
    write_shard(
        path,
        items=items,
        rejected={name: reason for name, reason in reasons.items() if name in wanted},
        values=(
            rows("values", runs[start : start + _CHUNK_ROWS], torch.zeros(0, dim, dtype=dtype))
            for start in range(0, len(runs), _CHUNK_ROWS)
        ),
        shape=(len(layout["position"]), dim),
        dtype=dtype,
        layout=layout,
    )


def _header(
    items: Sequence[str],
    rejected: Mapping[str, str],
    shape: tuple[int, int],
    dtype: torch.dtype,
    layout: Mapping[str, Tensor],
    checksum: int,
) -> bytes:
    """The header of a safetensors file: its length, then JSON that says where each tensor lies."""
    shapes = {name: (layout[name].dtype, list(layout[name].shape)) for name in _by_element_size(layout)}
    tensors, start = {}, 0
    for name, (kind, size) in {**shapes, "values": (dtype, list(shape))}.items():
        end = start + math.prod(size) * kind.itemsize
        tensors[name] = {"dtype": _DTYPES[kind], "shape": size, "data_offsets": [start, end]}
        start = end
    ours = {"format": _FORMAT, "items": list(items), "rejected": dict(rejected)}
    text = json.dumps(ours)[:-1] + f', "checksum": {checksum:>10d}}}'
    data = json.dumps({"__metadata__": {"mmattn": text}, **tensors}).encode()
    data += b" " * (-len(data) % 8)  # the tensors begin at a multiple of eight bytes
    return struct.pack("<Q", len(data)) + data


def _by_element_size(layout: Mapping[str, Tensor]) -> list[str]:
    """Wide numbers first: every tensor then begins at a multiple of its own width."""
    return sorted(layout, key=lambda name: (-layout[name].dtype.itemsize, name))


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def _checksum(tensor: Tensor, previous: int) -> int:
    """CRC-32, going on from `previous`: against accidents, and quicker than the disk."""
    return zlib.crc32(_bytes(tensor), previous)
