"""The whole of `mmattn fit`: every seed of the experiment, the report, and what recommends from then on."""

from __future__ import annotations

from pathlib import Path

from mmattn.experiments.config import FitConfig
from mmattn.experiments.experiment import RecommendationExperiment
from mmattn.experiments.runner import run_seeds
from mmattn.experiments.seed_result import load_result, save_result
from mmattn.experiments.summary import summarise
from mmattn.serving.build_service import build_service
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
            build_service(experiment.folder, experiment.dataset, progress=progress)
    together.wait_for_everyone()
    return experiment.folder
