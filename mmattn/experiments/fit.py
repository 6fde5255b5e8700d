"""The whole of `mmattn fit`: every seed of the experiment, the report, and what recommends from then on."""

from __future__ import annotations

from pathlib import Path

from mmattn.experiments.config import FitConfig
from mmattn.experiments.experiment import RecommendationExperiment
from mmattn.experiments.runner import run_seeds
from mmattn.experiments.seed_result import load_result, save_result
from mmattn.experiments.summary import summarise
from mmattn.serving.build_service import build_service
from mmattn.serving.run_encoder import RunEncoder
from mmattn.serving.service import INDEX_FOLDER
from mmattn.training.accelerator import distributed_state

__all__ = ["run_experiment"]


def run_experiment(config: FitConfig, *, resume: bool = False, progress: bool = True) -> Path:
    """Run every seed, write the report, and leave the first seed's model ready to recommend.

    In several processes (`accelerate launch`) all of them train, and the main one alone does the rest; the
    numbers are those of one process with as many times `training.accumulate`, but for running statistics
    (`standardise`, batch normalisation), which are those of the main process's share of the batches.

    Returns:
        The folder of the run, with model, metrics.json, report.html and index.
    """
    experiment, results = run_seeds(
        RecommendationExperiment,
        config,
        load_result=load_result,
        save_result=save_result,
        resume=resume,
        progress=progress,
    )
    together = distributed_state()
    if together.is_main_process:
        summarise(experiment, results)
        # The index of a finished run may hold items that came later.
        if not (experiment.folder / INDEX_FOLDER / "manifest.json").is_file():
            _leave_service(experiment, progress)
    together.wait_for_everyone()
    return experiment.folder


def _leave_service(experiment: RecommendationExperiment, progress: bool) -> None:
    """Build the service from the first seed's model, which is read from the disk only after a resume."""
    config, seed = experiment.config, experiment.config.protocol.seeds[0]
    folder = experiment.folder / f"seed-{seed}" / "model"
    if experiment.first_trained is None:
        encoder = RunEncoder(folder, config.head.name)
        inputs = encoder.read_inputs(experiment.dataset.items, config.data.features, progress=progress)
    else:
        model, inputs = experiment.first_trained
        encoder = RunEncoder(folder, config.head.name, model)
    build_service(experiment.folder, experiment.dataset, encoder, inputs, seed=seed)
