"""Open an index of any kind; the manifest of the bundle names the kind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mmattn.errors import InputError
from mmattn.retrieval.fused_index import FusedIndex
from mmattn.retrieval.index import Index
from mmattn.retrieval.maxsim import MaxSimIndex
from mmattn.retrieval.protocol import SearchIndex
from mmattn.retrieval.sharded import ShardedIndex
from mmattn.retrieval.storage.bundle import OpenedBundle, open_bundle

__all__ = ["KINDS", "open_index"]

# The manifest's "kind" -> the class that restores it.
KINDS: Mapping[str, type[SearchIndex]] = {
    "index": Index,
    "shards": ShardedIndex,
    "maxsim": MaxSimIndex,
    "fused": FusedIndex,
}


def open_index(folder: str | Path, *, device: str = "auto") -> SearchIndex:
    """Open a folder written by any index's `save`, after checking the hash of every file.

    Args:
        folder: the bundle.
        device: "auto", "cpu" or a CUDA device.

    Returns:
        An index of the class that was saved.

    Raises:
        InputError: there is no index, or it is damaged; the message names the file and the damage.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> folder = tempfile.mkdtemp()
        >>> ShardedIndex.from_index(Index.build(np.eye(4), ["a", "b", "c", "d"]), 2).save(folder)
        >>> open_index(folder)
        ShardedIndex(4 vectors of width 4, ip, in 2 shards)
    """

    def restore(opened: OpenedBundle) -> SearchIndex:
        kind = str(opened.attributes.get("kind"))
        if kind not in KINDS:
            raise InputError(f"{opened.folder}: holds {kind!r}, expected one of {', '.join(KINDS)}")
        return KINDS[kind].from_bundle(opened, device)

    return open_bundle(folder, restore)
