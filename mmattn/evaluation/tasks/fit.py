"""The whole of `mmattn fit` for heads that learn from targets: every seed, and the report."""

from __future__ import annotations

import logging
from pathlib import Path

from mmattn.evaluation.tasks.run import TaskRun
from mmattn.evaluation.tasks.summary import summarise_tasks
from mmattn.task_config import TaskFitConfig
from mmattn.training.accelerator import processes

__all__ = ["run_tasks"]

log = logging.getLogger(__name__)


def run_tasks(config: TaskFitConfig, *, resume: bool = False, progress: bool = True) -> Path:
    """Run every seed and write the report; each seed's model is in `seed-N/model`.

    In several processes (`accelerate launch`) all of them train, and the main one alone does the rest.

    Returns:
        The folder of the run, with models, predictions, metrics.json and report.html.
    """
    together = processes()
    with together.main_process_first():  # the others find the folder that the main one has opened
        main = together.is_main_process
        run = TaskRun(config, resume=resume or not main, progress=progress and main)
    log.info("device: %s; run folder: %s", run.device, run.folder)
    results = [result for seed in config.protocol.seeds if (result := run.run_seed(seed))]
    if main:
        summarise_tasks(run, results)
    together.wait_for_everyone()
    return run.folder
