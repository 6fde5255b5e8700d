"""Spoken digits, handwritten digits and named entities on one core, against a model for each alone.

    python -m tests.benchmarks.multitask --root ../shared/data --out runs/multitask --seeds 0 1 2

FSDD (official test part), scikit-learn's handwriting (its digits as `mmattn prepare digits` deals them into
parts, pictures only) and WNUT-17, each its own card. Every step takes a batch of each task; a task alone gets
as many steps with as many of its items from a model of the same encoders and core. The epoch is chosen on
validation, together by the mean of the three figures. Seeds are runs of their own: a run that was stopped
goes on with the next. The report, report.html in the run's folder, has all that is printed here and more.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from mmattn import schema
from mmattn.evaluation.tasks.fit import run_tasks
from mmattn.registry import datasets
from mmattn.task_config import TaskFitConfig
from tests.benchmarks.measuring import Report

PROGRAM = "Program(score=dot() >> temperature(dynamic('sharpness', on='task')))"
SETTINGS: dict[str, Any] = {
    "name": "multitask",
    "encoders": {
        "audio": {"name": "conv-mel", "options": {"channels": [16, 32, 48], "dim": 64}, "standardise": True},
        "image": {"name": "tiny-image", "options": {"dim": 64, "size": 16, "grid": 4}, "standardise": True},
        "words": {"name": "minilm", "content": "text", "options": {"words": True, "max_length": 128}},
        "shapes": {"name": "tiny-text", "content": "text", "options": {"words": True, "shapes": True}},
    },
    "fusion": {"dim": 128, "layers": 1, "heads": 4, "program": PROGRAM, "dropout": 0.2},
    "tasks": {
        "keyword": {
            "head": {"name": "classification", "options": {"smoothing": 0.1}},
            "target": "digit", "batch": 32, "augment": {"audio": {"strength": 0.7}},
        },
        "picture": {
            "head": {"name": "classification", "options": {"smoothing": 0.1}},
            "target": "digit", "batch": 32, "reads": ["image"], "augment": {"image": {"shift": 1}},
        },
        "entities": {
            "head": {"name": "tagging", "options": {"modality": "words"}},
            # Its loss is a mean over words, of which a sentence has 18; those of the others are a sample's.
            "target": "tags", "batch": 32, "weight": 10.0,
        },
    },
    "weighting": "fixed",
    "training": {
        "epochs": 5, "steps": 60, "learning_rate": 3e-3, "patience": 0, "weight_decay": 0.02,
        "optimizer_options": {"fused": True}, "precision": "no",
    },
    "robustness": {"knockouts": [], "subsets": False, "noise": [1.0]},
}  # fmt: skip
CARDS = {"keyword": "fsdd", "picture": "pictures", "entities": "wnut17"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, required=True, help="the folder that holds fsdd and wnut17")
    parser.add_argument("--out", type=Path, default=Path("runs/multitask"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--weighting", default=SETTINGS["weighting"])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--name", default="multitask", help="of the run's folder")
    parser.add_argument("--json", action="store_true", help="print JSON; the tables go to standard error")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    report = Report(arguments, "mmattn", "torchaudio", "transformers", "seqeval")
    config = configured(arguments)
    begun = time.process_time()
    folder = run_tasks(config, resume=(config.out / config.name).exists(), progress=False)
    metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
    report.table(
        f"Together and alone, {config.weighting} weights, seeds {config.protocol.seeds}",
        ("task", "figure", "together", "alone", "together - alone"),
    )
    for name, task in metrics["tasks"].items():
        for figure in task["figures"]:
            report.row(name, figure, *(shown(task[which][figure]) for which in ("figures", "alone", "gain")))
    report.table("Seconds of the processor", ("what", "seconds"))
    report.row("this call", round(time.process_time() - begun))
    report.close()


def configured(arguments: argparse.Namespace) -> TaskFitConfig:
    """The run's settings, with the cards, which are prepared where they are not there yet."""
    data = arguments.out / "data"
    for name, plugin, root, options in (
        ("fsdd", "fsdd", arguments.root / "fsdd", {}),
        ("pictures", "digits", None, {"items": 1797, "absent": 0.0}),
        ("wnut17", "wnut17", arguments.root / "wnut17", {}),
    ):
        if not (data / name / "card.yaml").is_file():
            datasets.create(plugin).prepare(root, data / name, **options)
    changed = copy.deepcopy(SETTINGS)
    for task, card in CARDS.items():
        changed["tasks"][task]["card"] = data / card
    changed |= {"name": arguments.name, "out": arguments.out, "weighting": arguments.weighting}
    changed |= {"data": {"features": arguments.out / "features"}, "protocol": {"seeds": arguments.seeds}}
    changed["training"]["epochs"] = arguments.epochs
    return schema.from_mapping(TaskFitConfig, changed, "settings")


def shown(interval: dict[str, float]) -> str:
    return f"{interval['mean']:+.4f} ({interval['low']:+.4f} to {interval['high']:+.4f})"


if __name__ == "__main__":
    main()
