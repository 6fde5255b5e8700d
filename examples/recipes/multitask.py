"""Spoken digits, handwritten digits and named entities on one core, against a model for each alone.

    python examples/recipes/multitask.py --root ../shared/data --out runs/multitask --seeds 0 1 2

FSDD (official test part), scikit-learn's handwriting (its digits as `mmattn prepare digits` deals them into
parts, pictures only) and WNUT-17, each its own card. Every step takes a batch of each task; a task alone gets
as many steps with as many of its items from a model of the same encoders and core. The epoch is chosen on
validation, together by the mean of the three figures. Settings: examples/three_tasks.yaml. Seeds are runs of
their own: a run that was stopped goes on with the next. The report, report.html in the run's folder, has all
that is printed here and more.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from mmattn.experiments.config import FitConfig, load_fit
from mmattn.experiments.runner import run_experiment
from mmattn.registry import datasets
from mmattn.testing.measuring import Report

SETTINGS = Path(__file__).parents[2] / "examples/three_tasks.yaml"
CARDS = {"keyword": "fsdd", "picture": "pictures", "entities": "wnut17"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, required=True, help="the folder that holds fsdd and wnut17")
    parser.add_argument("--out", type=Path, default=Path("runs/multitask"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--weighting", default="fixed")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--name", default="multitask", help="of the run's folder")
    parser.add_argument("--json", action="store_true", help="print JSON; the tables go to standard error")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    report = Report(arguments, "mmattn", "torchaudio", "transformers", "seqeval")
    config = configured(arguments)
    begun = time.process_time()
    folder = run_experiment(config, resume=(config.out / config.name).exists(), progress=False)
    metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
    report.table(
        f"Together and alone, {config.weighting} weights, seeds {config.protocol.seeds}",
        ("task", "metric", "together", "alone", "together - alone"),
    )
    for name, task in metrics["tasks"].items():
        for metric in task["metrics"]:
            result = (task[which][metric] for which in ("metrics", "single_task", "gain"))
            report.row(name, metric, *map(shown, result))
    report.table("Seconds of the processor", ("what", "seconds"))
    report.row("this call", round(time.process_time() - begun))
    report.close()


def configured(arguments: argparse.Namespace) -> FitConfig:
    """The run's settings, with the cards, which are prepared where they are not there yet."""
    data = arguments.out / "data"
    for name, plugin, root, options in (
        ("fsdd", "fsdd", arguments.root / "fsdd", {}),
        ("pictures", "digits", None, {"items": 1797, "missing_rate": 0.0}),
        ("wnut17", "wnut17", arguments.root / "wnut17", {}),
    ):
        if not (data / name / "card.yaml").is_file():
            datasets.create(plugin).prepare(root, data / name, **options)
    changes = {f"tasks.{task}.card": data / card for task, card in CARDS.items()}
    changes |= {"name": arguments.name, "out": arguments.out, "weighting": arguments.weighting}
    changes |= {"data.features": arguments.out / "features", "protocol.seeds": arguments.seeds}
    return load_fit(SETTINGS, {**changes, "training.epochs": arguments.epochs})


def shown(interval: dict[str, float]) -> str:
    return f"{interval['mean']:+.4f} ({interval['low']:+.4f} to {interval['high']:+.4f})"


if __name__ == "__main__":
    main()
