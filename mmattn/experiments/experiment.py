"""What every experiment does: its folder, encoders and their inputs, models, training, the clock."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mmattn import schema
from mmattn.array_types import Ints
from mmattn.config import ModelConfig
from mmattn.encoders.base import Encoder, EncoderCard
from mmattn.encoders.model_inputs import ModelInputs, prepare_inputs
from mmattn.encoders.store.rejected_content import write_rejected
from mmattn.errors import InputError
from mmattn.experiments.config import FitConfig
from mmattn.experiments.seed_result import SeedResult
from mmattn.model.build import build_encoders, build_model, choose_device
from mmattn.model.model import Model
from mmattn.reports.results import Report
from mmattn.training.accelerator import distributed_state
from mmattn.training.loop import History, train
from mmattn.training.tasks.base import Task
from mmattn.types import Sample

__all__ = ["Experiment", "Stopwatch", "encoder_summaries", "known_contents", "open_run_folder"]


class Experiment(ABC):
    """A configured run: its data, its encoders, and a folder for what comes out.

    Everything is selected on validation; the test part is scored once, by the finished systems. A run that
    was killed goes on where it stopped: finished seeds are kept, an unfinished one resumes from its last
    epoch.

    Args:
        config: everything `mmattn fit` was told.
        resume: go on in a folder that exists.
        progress: show progress bars.

    Attributes:
        folder: of the run.
        device: that models are on.
        processes: the processes of `accelerate launch`, one if there is no other.

    Raises:
        InputError: data that does not fit, a folder that exists and `resume` is False, or one that holds a
            run of other settings.
    """

    def __init__(self, config: FitConfig, *, resume: bool = False, progress: bool = True):
        self.config, self.progress = config, progress
        self.read_data()  # a mistake is reported before anything is written
        self.folder = open_run_folder(config, resume)
        self.device = choose_device()
        self.processes = distributed_state()

    @abstractmethod
    def read_data(self) -> None:
        """Read the data and check that it fits the configuration.

        Raises:
            InputError: it does not.
        """

    @abstractmethod
    def run_seed(self, seed: int) -> SeedResult | None:
        """Run one seed, from the split to the numbers.

        Args:
            seed: of the split and of the training.

        Returns:
            The result in the main process; None in the others, which only train.
        """

    @abstractmethod
    def report(self, results: Sequence[SeedResult]) -> Report:
        """Return the report.

        Args:
            results: of all seeds.
        """

    def finish(self) -> None:
        """Leave what else a finished run is used for; by default nothing."""
        return

    def seed_folder(self, seed: int) -> Path:
        """Return the folder of a seed.

        Args:
            seed: its number.
        """
        return self.folder / f"seed-{seed}"

    def build_encoders(self, samples: Sequence[Sample], known: Iterable[int]) -> dict[str, Encoder]:
        """Create new encoders; vocabularies come from the known samples only.

        Args:
            samples: all of them.
            known: rows that may be learned from.
        """
        contents = known_contents(samples, self.config.sources, known)
        return build_encoders(self.config.encoders, contents)

    def prepare_inputs(self, samples: Sequence[Sample], encoders: Mapping[str, Encoder]) -> ModelInputs:
        """Read or encode what the encoders need of all samples, and note what could not be read.

        Args:
            samples: all of them.
            encoders: modality -> encoder.
        """
        config = self.config
        inputs = prepare_inputs(
            samples, encoders, config.data.features, config.sources, progress=self.progress
        )
        write_rejected(self.folder / "rejected.csv", inputs.rejected)
        return inputs

    def build_model(
        self, config: ModelConfig, encoders: Mapping[str, Encoder], inputs: ModelInputs, learned: Ints
    ) -> Model:
        """Build a model on the device, with input projections calibrated on what is learned from.

        Args:
            config: of the model.
            encoders: modality -> encoder.
            inputs: of all samples.
            learned: rows that are learned from.
        """
        model = build_model(encoders, config)
        model.core.input_projection.calibrate(
            ModelInputs(inputs.tokens).select_tokens(torch.from_numpy(learned), encoders)
        )
        return model.to(self.device)

    def train(self, task: Task, seed: int, name: str, stop_after_epoch: int = 0) -> History:
        """Train a task, with its checkpoint in the folder of the seed.

        Args:
            task: what is trained.
            seed: of every random number.
            name: of the training, and of its folder.
            stop_after_epoch: stop after this epoch of the schedule; 0 goes to its end.
        """
        return train(
            task, self.config.training, seed=seed, stop_after_epoch=stop_after_epoch,
            folder=self.seed_folder(seed) / name, progress=self.progress, run_name=f"seed {seed}: {name}",
        )  # fmt: skip


class Stopwatch:
    """Seconds of the steps of a run.

    Attributes:
        seconds: step -> seconds.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def mark(self, name: str) -> None:
        """End a step.

        Args:
            name: of the step that ends now.
        """
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 1)
        self._last = now


def known_contents(
    samples: Sequence[Sample], sources: Mapping[str, str], known: Iterable[int]
) -> dict[str, list[Any]]:
    """Return modality -> contents of all samples, None if a sample is not known, for vocabularies.

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


def open_run_folder(config: FitConfig, resume: bool) -> Path:
    """Create the run's folder with its configuration; one run never writes over another.

    Args:
        config: of the run.
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


def encoder_summaries(encoders: Mapping[str, Encoder]) -> dict[str, dict[str, Any]]:
    """Return what a report says of encoders: their cards without the long lists of their vocabularies.

    Args:
        encoders: modality -> encoder.
    """
    return {name: _summarize_card(encoder.describe()) for name, encoder in encoders.items()}


def _summarize_card(card: EncoderCard) -> dict[str, Any]:
    short = {"name": card.name, "revision": card.revision, "fingerprint": card.fingerprint()[:16]}
    return short | {"weights": card.weights_hash[:16] or "trained with the model", "width": card.dim}
