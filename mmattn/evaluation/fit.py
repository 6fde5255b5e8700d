"""The whole of `mmattn fit`: every seed of the experiment, then the report."""

from __future__ import annotations

import logging
from pathlib import Path

from mmattn.config import FitConfig
from mmattn.evaluation.experiment import Experiment
from mmattn.evaluation.summary import summarise

__all__ = ["run_experiment"]

log = logging.getLogger(__name__)


def run_experiment(config: FitConfig, *, resume: bool = False, progress: bool = True) -> Path:
    """Run every seed and write the report.

    Returns:
        The folder of the run, with model, metrics.json and report.html.
    """
    experiment = Experiment(config, resume=resume, progress=progress)
    log.info("device: %s; run folder: %s", experiment.device, experiment.folder)
    results = [experiment.run_seed(seed) for seed in config.protocol.seeds]
    summarise(experiment, results)
    return experiment.folder
