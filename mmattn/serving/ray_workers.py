"""Shards encoded by actors of Ray, on this machine or on all machines of a cluster.

Each actor loads the model once and writes the files that a single process would write, so a call that was
killed goes on in any way. On a cluster (`RAY_ADDRESS`) every machine must see the same folders.

pip install 'mmattn[ray]'
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from mmattn.errors import InputError, MissingDependency, MmattnError

if TYPE_CHECKING:
    from mmattn.serving.embedding_shards import EmbeddingShards
    from mmattn.serving.run_encoder import RunEncoder

__all__ = ["write_with_ray"]


def write_with_ray(
    encoder: RunEncoder, shards: EmbeddingShards, features: str | Path, workers: int, *, progress: bool = True
) -> int:
    """Write all pending shards with so many actors; the number of contents that cannot be read.

    The actors share the cluster's CPUs and GPUs evenly. A cluster that this call has started, it also
    stops.

    Args:
        encoder: its model and head are what every actor loads.
        shards: what is to be written.
        features: folder of the feature store.
        workers: actors, at most as many as there are CPUs.
        progress: show Ray's bars.

    Raises:
        InputError: fewer than 1 worker, more than there are CPUs, or what a single process would raise.
        MissingDependency: Ray is not installed.
    """
    pending = shards.pending()
    if not pending:
        return 0
    ray = _import_ray()
    started = not ray.is_initialized()
    if started:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
    try:
        share = _worker_resources(ray.cluster_resources(), workers)
        # Other machines, and actors of this one, may stand in another folder.
        places = (Path(encoder.folder).resolve(), encoder.head, Path(features).resolve())
        given = ray.put(replace(shards, folder=shards.folder.resolve()))
        ray.data.DataContext.get_current().enable_progress_bars = progress
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        written = ray.data.from_items(
            [{"shard": number} for number in pending], override_num_blocks=len(pending)
        ).map_batches(
            _Worker, fn_constructor_args=(given, *places), batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(pending))), **share,
        )  # fmt: skip
        unreadable = 0
        for row in written.iter_rows():
            if row["refused"]:
                raise InputError(row["refused"])
            unreadable += row["unreadable"]
        return unreadable
    finally:
        if started:
            ray.shutdown()


class _Worker:
    """An actor: one model, which writes one shard after the other."""

    def __init__(self, shards_ref: Any, model: Path, head: str, features: Path):
        import ray

        from mmattn.serving.run_encoder import RunEncoder

        self.shards: EmbeddingShards = ray.get(shards_ref)
        self.encoder = RunEncoder(model, head)
        self.features = features

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        (number,) = batch["shard"].tolist()
        unreadable, refused = 0, ""
        try:
            unreadable = self.shards.write(number, self.encoder, self.features)
        except MmattnError as error:
            refused = str(error)  # Ray would wrap the error, and lose its message on the way
        return {"unreadable": np.array([unreadable]), "refused": np.array([refused], dtype=object)}


def _worker_resources(resources: dict[str, float], workers: int) -> dict[str, float]:
    """What of the cluster each actor gets: whole CPUs, and a GPU or a part of one."""
    cpus, gpus = int(resources.get("CPU", 0)), resources.get("GPU", 0.0)
    if not 1 <= workers <= cpus:
        raise InputError(f"embed: got --workers {workers}, expected 1 to {cpus}, the CPUs that Ray has")
    return {"num_cpus": cpus // workers, "num_gpus": min(1.0, gpus / workers)}


def _import_ray() -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray starts: nothing goes out from here
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingDependency("embed: --ray needs Ray: pip install 'mmattn[ray]'") from error
    return ray
