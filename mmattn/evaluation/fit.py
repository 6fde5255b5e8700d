"""The whole of `mmattn fit`: every seed of the experiment, the report, and what recommends from then on."""

from __future__ import annotations

import logging
from pathlib import Path

from mmattn.config import FitConfig
from mmattn.evaluation.experiment import Experiment
from mmattn.evaluation.summary import summarise
from mmattn.serving.leave import leave_service

__all__ = ["run_experiment"]

log = logging.getLogger(__name__)


def run_experiment(config: FitConfig, *, resume: bool = False, progress: bool = True) -> Path:
    """Run every seed, write the report, and leave the first seed's model ready to recommend.

    Returns:
        The folder of the run, with model, metrics.json, report.html and index.
    """
    experiment = Experiment(config, resume=resume, progress=progress)
    log.info("device: %s; run folder: %s", experiment.device, experiment.folder)
    results = [experiment.run_seed(seed) for seed in config.protocol.seeds]
    summarise(experiment, results)
    leave_service(experiment.folder, experiment.dataset, progress=progress)
    return experiment.folder
