"""The runner of `mmattn fit`: seed by seed, in one process or in several, resumable; then the report."""

from __future__ import annotations

import logging
from pathlib import Path

from mmattn.experiments.config import FitConfig
from mmattn.experiments.experiment import Experiment
from mmattn.experiments.recommendation.experiment import RecommendationExperiment
from mmattn.experiments.seed_result import SeedResult, load_result, save_result
from mmattn.experiments.supervised.experiment import SupervisedExperiment
from mmattn.reports.report import write_report
from mmattn.training.accelerator import distributed_state

__all__ = ["run_experiment", "run_seeds"]

log = logging.getLogger(__name__)


def run_experiment(config: FitConfig, *, resume: bool = False, progress: bool = True) -> Path:
    """Run every seed, write the report, and leave what serves from then on.

    With several processes (`accelerate launch`) all of them train, and the main one alone does the rest; the
    numbers are those of one process with as many times `training.grad_accumulation`, but for running
    statistics (`standardise`, batch normalization), which are those of the main process's batches.

    Args:
        config: of the run.
        resume: go on with a run that was interrupted.
        progress: show progress bars.

    Returns:
        The folder of the run, with models, metrics.json, report.html, and the index of a recommender.

    Raises:
        InputError: a mistake in the configuration or the data; the key is named.
    """
    together = distributed_state()
    with together.main_process_first():  # the others find the folder that the main one has opened
        is_main = together.is_main_process
        kind = SupervisedExperiment if config.tasks else RecommendationExperiment
        experiment = kind(config, resume=resume or not is_main, progress=progress and is_main)
    results = run_seeds(experiment)
    if is_main:
        write_report(experiment.folder / "report.html", experiment.report(results))
        experiment.finish()
    together.wait_for_everyone()
    return experiment.folder


def run_seeds(experiment: Experiment) -> list[SeedResult]:
    """Run the seeds that are not finished; read the results of the others.

    Args:
        experiment: with `run_seed`.

    Returns:
        The results of all seeds in the main process; none in the others.
    """
    log.info("device: %s; run folder: %s", experiment.device, experiment.folder)
    results = []
    for seed in experiment.config.protocol.seeds:
        experiment.processes.wait_for_everyone()  # the main one may still evaluate the seed before
        path = experiment.folder / f"seed-{seed}" / "result.npz"
        if path.exists():
            log.info("seed %d: finished before, kept", seed)
            results.append(load_result(path))
        elif result := experiment.run_seed(seed):
            save_result(path, result)
            results.append(result)
    return results
