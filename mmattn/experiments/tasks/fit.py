"""The whole of `mmattn fit` for heads that learn from targets: every seed, and the report."""

from __future__ import annotations

from pathlib import Path

from mmattn.experiments.runner import run_seeds
from mmattn.experiments.tasks.config import TaskFitConfig
from mmattn.experiments.tasks.run import TaskExperiment
from mmattn.experiments.tasks.seed import load_task_result, save_task_result
from mmattn.experiments.tasks.summary import summarise_tasks
from mmattn.training.accelerator import distributed_state

__all__ = ["run_tasks"]


def run_tasks(config: TaskFitConfig, *, resume: bool = False, progress: bool = True) -> Path:
    """Run every seed and write the report; each seed's model is in `seed-N/model`.

    In several processes (`accelerate launch`) all of them train, and the main one alone does the rest.

    Returns:
        The folder of the run, with models, predictions, metrics.json and report.html.
    """
    run, results = run_seeds(
        TaskExperiment,
        config,
        load_result=load_task_result,
        save_result=save_task_result,
        resume=resume,
        progress=progress,
    )
    together = distributed_state()
    if together.is_main_process:
        summarise_tasks(run, results)
    together.wait_for_everyone()
    return run.folder
