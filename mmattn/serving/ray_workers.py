"""Shards encoded by Ray actors, on this machine or on a cluster.

Each actor loads the model once and writes the same shard files as a single process, so an interrupted call
can be resumed with or without Ray. On a cluster (`RAY_ADDRESS`) every machine must see the same folders.

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
    """Write all pending shards with Ray actors.

    The actors share the cluster's CPUs and GPUs evenly. Ray is shut down at the end if this call started it.

    Args:
        encoder: its model folder and head are loaded by every actor.
        shards: the shards to write.
        features: folder of the feature store.
        workers: number of actors, at most the number of CPUs.
        progress: whether to show Ray's progress bars.

    Returns:
        Number of contents that could not be read.

    Raises:
        InputError: fewer than 1 worker, more than there are CPUs, or an error in a worker.
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
        # Actors may run in another working directory: pass absolute paths.
        arguments = (Path(encoder.folder).resolve(), encoder.head, Path(features).resolve())
        given = ray.put(replace(shards, folder=shards.folder.resolve()))
        ray.data.DataContext.get_current().enable_progress_bars = progress
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        written = ray.data.from_items(
            [{"shard": number} for number in pending], override_num_blocks=len(pending)
        ).map_batches(
            _Worker, fn_constructor_args=(given, *arguments), batch_size=1,
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
    """Actor that loads one model and writes shards one after the other."""

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
            refused = str(error)  # Ray would wrap the error and lose its message
        return {"unreadable": np.array([unreadable]), "refused": np.array([refused], dtype=object)}


def _worker_resources(resources: dict[str, float], workers: int) -> dict[str, float]:
    """Resources of each actor: whole CPUs, and one GPU or a fraction of one."""
    cpus, gpus = int(resources.get("CPU", 0)), resources.get("GPU", 0.0)
    if not 1 <= workers <= cpus:
        raise InputError(f"embed: got --workers {workers}, expected 1 to {cpus}, the CPUs that Ray has")
    return {"num_cpus": cpus // workers, "num_gpus": min(1.0, gpus / workers)}


def _import_ray() -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray starts: disables usage reports
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingDependency("embed: --ray needs Ray: pip install 'mmattn[ray]'") from error
    return ray
