"""What every run of `mmattn fit` does alike: its folder, its clock, the cards of its encoders."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from mmattn import schema
from mmattn.encoders.base import Encoder
from mmattn.errors import InputError
from mmattn.files import atomic_path, write_json
from mmattn.training.accelerator import distributed_state
from mmattn.types import Sample

__all__ = [
    "Experiment",
    "Stopwatch",
    "encoder_card",
    "known_contents",
    "open_run_folder",
    "run_seeds",
    "save_seed",
]

log = logging.getLogger(__name__)


class Experiment(Protocol):
    """A configured run, which goes seed by seed; what a seed gives is kept by `run_seeds`."""

    folder: Path
    device: Any

    def run_seed(self, seed: int) -> Any:
        """Everything for one seed; of several processes, the main one alone has a result."""


ExperimentT = TypeVar("ExperimentT", bound=Experiment)


def run_seeds(
    make_experiment: Callable[..., ExperimentT],
    config: Any,
    *,
    load_result: Callable[[Path], Any],
    save_result: Callable[[Path, Any], None],
    resume: bool,
    progress: bool,
) -> tuple[ExperimentT, list[Any]]:
    """Open a run and go through its seeds, in one process or in several that train together.

    What a seed gave is kept on the disk when it is done, and read from there where it is.

    Args:
        make_experiment: opens it, from the configuration, `resume` and `progress`.
        config: with `protocol.seeds`.
        load_result, save_result: read and write what a seed gave, at the path of a file of its own.
        resume: go on in a folder that exists.
        progress: show bars.

    Returns:
        The run, and the results of the seeds: in the main process all of them.
    """
    together = distributed_state()
    with together.main_process_first():  # the others find the folder that the main one has opened
        main = together.is_main_process
        run = make_experiment(config, resume=resume or not main, progress=progress and main)
    log.info("device: %s; run folder: %s", run.device, run.folder)
    results = []
    for seed in config.protocol.seeds:
        together.wait_for_everyone()  # the main one may still measure the seed before
        done = run.folder / f"seed-{seed}" / "result.npz"
        if done.exists():
            log.info("seed %d: finished before, kept", seed)
            results.append(load_result(done))
        elif result := run.run_seed(seed):
            save_result(done, result)
            results.append(result)
    return run, results


def save_seed(path: Path, metadata: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Write what a seed gave: arrays at `path` (.npz) and notes beside it (.json), each atomically."""
    write_json(path.with_suffix(".json"), metadata)
    # Last, because its presence says that the seed is finished.
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def known_contents(
    samples: Sequence[Sample], sources: Mapping[str, str], known: Iterable[int]
) -> dict[str, list[Any]]:
    """Modality -> contents of all samples, None where a sample is not known: what vocabularies come from.

    Args:
        samples: all of them.
        sources: modality -> key of `Sample.content`.
        known: rows of those that may be learned from.

    Example:
        >>> films = [Sample("1", {"text": "Heat"}), Sample("2", {"text": "Up"})]
        >>> known_contents(films, {"title": "text"}, [1])
        {'title': [None, 'Up']}
    """
    rows = {int(row) for row in known}
    return {
        name: [sample.content.get(source) if row in rows else None for row, sample in enumerate(samples)]
        for name, source in sources.items()
    }


def open_run_folder(config: Any, resume: bool) -> Path:
    """The run's folder with its configuration; one run never writes over another.

    Args:
        config: a dataclass with `out` and `name`.
        resume: go on in a folder that holds a run of the same settings.

    Raises:
        InputError: the folder exists and `resume` is False, or holds something else.
    """
    folder: Path = config.out / config.name
    settings = folder / "config.yaml"
    if settings.exists():
        if not resume:
            raise InputError(f"{folder}: this run exists; choose another name, or --resume to go on with it")
        if schema.load_config(type(config), settings) != config:
            raise InputError(f"{folder}: holds a run with other settings; choose another name")
    elif folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: exists and is no run; choose another name")
    else:
        schema.dump_config(config, settings)
    return folder


def encoder_card(encoder: Encoder) -> dict[str, Any]:
    """An encoder's card for the report, without the long lists of its vocabulary."""
    card = encoder.describe()
    short = {"name": card.name, "revision": card.revision, "fingerprint": card.fingerprint()[:16]}
    return short | {"weights": card.weights_hash[:16] or "trained with the model", "width": card.dim}


class Stopwatch:
    """Seconds of the steps of a run.

    Attributes:
        seconds: step -> seconds.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def mark(self, name: str) -> None:
        """The step of that name ends now."""
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 1)
        self._last = now
