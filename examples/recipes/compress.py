"""What distillation, int8 and pruned heads cost and save: size, time and accuracy of one digit classifier.

    python examples/recipes/compress.py [--seeds 0 1 2] [--items 1797] [--epochs 12] [--out FOLDER]

The embedded digits, named from handwriting and sound (either may be absent); the words, which would say it,
are left out. The large model is trained with gated heads; of the gate penalties the largest is taken that
costs at most one point on validation. Test items are scored once, by the finished models. Time: one thread,
tokens to answer (core and head, which is what differs), the models in turn, medians.
"""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmattn.attention.layer.head_gates import layers
from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.data.reader import read_dataset
from mmattn.encoders.model_inputs import ModelInputs, prepare_inputs
from mmattn.experiments.supervised.robustness import evaluate_under_attack, evaluate_under_noise
from mmattn.files import write_json
from mmattn.model.build import build_encoders, build_model
from mmattn.model.model import Model
from mmattn.testing.measuring import Report, in_turn, options, process_seconds
from mmattn.training.loop import LoopConfig, train
from mmattn.training.tasks.adversarial import FGM
from mmattn.training.tasks.distillation import DistillationTask
from mmattn.training.tasks.supervised import SupervisedTask
from mmattn_datasets.digits.prepare import Digits

DIM, LAYERS, HEADS = 256, 2, 8
PENALTIES = (0.003, 0.01, 0.03)
GATED = "Program(score=dot() >> head_gate('gate'), mask=full, norm=softmax())"
CLASSES = [str(digit) for digit in range(10)]
LEVELS, RADII = (0.0, 0.3, 1.0, 2.0), (0.0, 0.05, 0.1, 0.2)


class Digit:
    """The task, on items that were prepared once.

    Args:
        folder: for the data.
        items: how many.
        epochs: of every training.
    """

    def __init__(self, folder: Path, items: int, epochs: int):
        Digits().prepare(None, folder, items=items)
        self.dataset = read_dataset(folder)
        self.epochs = epochs
        self.targets = [str(name) for name in self.dataset.labels["digit"]]
        self.part = {
            name: np.flatnonzero((self.dataset.item_split == name) & self.dataset.presence[:, [0, 2]].any(1))
            for name in ("train", "validation", "test")
        }

    def model(self, seed: int, dim: int, layers: int, program: str = GATED) -> Model:
        """An untrained model."""
        torch.manual_seed(seed)
        config = ModelConfig(
            {
                "image": EncoderConfig("tiny-image", standardise=True),
                "audio": EncoderConfig("log-mel", {"layers": 1, "dim": 64}, standardise=True),
            },
            FusionConfig(dim=dim, layers=layers, heads=HEADS, expansion=4.0, program=program),
            {"digit": HeadConfig("classification", {"classes": CLASSES})},
        )
        return build_model(build_encoders(config.encoders), config)

    def inputs(self, model: Model) -> ModelInputs:
        """Contents, read once."""
        return prepare_inputs(self.dataset.items, model.encoders, Path("unused"), progress=False)

    def trained(
        self, model: Model, inputs: ModelInputs, seed: int, penalty: float = 0.0, **kind: Any
    ) -> SupervisedTask:
        """The task after training; the epoch is chosen on validation, or is the last where gates close."""
        made = DistillationTask if "teacher" in kind else SupervisedTask
        task = made(
            model, inputs, self.targets, self.part["train"],
            None if penalty else lambda _: {"accuracy": self.accuracy(task, "validation")},
            head="digit", batch_size=64, drop_modality=0.1, **kind,
        )  # fmt: skip
        train(
            task,
            LoopConfig(
                epochs=self.epochs,
                learning_rate=2e-3,
                ema_decay=0.98,
                gate_penalty=penalty,
                weight_decay=0.01,
                warmup_ratio=0.05,
                patience=0,
            ),
            seed=seed,
            progress=False,
        )
        return task

    def accuracy(self, task: SupervisedTask, part: str) -> float:
        """Share of the items of a part that are named rightly."""
        return hits(task.predict(self.part[part]), [self.targets[row] for row in self.part[part]])


def hits(found: list[str], truth: list[str]) -> float:
    return float(np.mean([entry == other for entry, other in zip(found, truth, strict=True)]))


def one_seed(digit: Digit, seed: int) -> dict[str, Any]:
    """Accuracy, size and time of every variant, and how the large model stands noise and attacks."""
    whole = digit.model(seed, dim=DIM, layers=LAYERS)
    inputs = digit.inputs(whole)
    large = digit.trained(whole, inputs, seed)
    chosen, pruned = 0.0, large
    for penalty in PENALTIES:
        tried = digit.trained(digit.model(seed, dim=DIM, layers=LAYERS), inputs, seed, penalty)
        if digit.accuracy(tried, "validation") >= digit.accuracy(large, "validation") - 0.01:
            chosen, pruned = penalty, tried
    pruned.model.prune()
    small = digit.trained(digit.model(seed, dim=64, layers=1), inputs, seed)
    taught = digit.trained(
        digit.model(seed, dim=64, layers=1), inputs, seed,
        teacher=large.model, temperature=3.0, teacher_weight=0.7,
    )  # fmt: skip
    steeled = digit.trained(digit.model(seed, dim=DIM, layers=LAYERS), inputs, seed, perturb=FGM(0.05))
    variants = {
        "large": large, "large, int8": in_int8(large), "pruned": pruned, "pruned, int8": in_int8(pruned),
        "small": small, "small, taught by the large one": taught, "the same, int8": in_int8(taught),
    }  # fmt: skip
    tested, test = {"large": large, "trained with FGM": steeled}, digit.part["test"]
    heads = sum(layer.heads for _, layer in layers(pruned.model.core))
    return {
        "seed": seed, "penalty": chosen, "heads left": heads,
        "accuracy": {name: digit.accuracy(task, "test") for name, task in variants.items()},
        "megabytes": {name: size(task.model) for name, task in variants.items()},
        "milliseconds": times({name: task.model for name, task in variants.items()}, inputs, test),
        "noise": {name: evaluate_under_noise(task, test, hits, LEVELS) for name, task in tested.items()},
        "attacks": {
            name: {steps: evaluate_under_attack(task, test, hits, RADII, steps=steps) for steps in (1, 5)}
            for name, task in tested.items()
        },
    }  # fmt: skip


def in_int8(task: SupervisedTask) -> SupervisedTask:
    """A copy of the task whose model is quantised."""
    model = copy.deepcopy(task.model)
    model.quantize()
    return SupervisedTask(model, task.inputs, task.targets, task.rows.tolist(), head="digit")


def size(model: Model) -> float:
    """Megabytes of the core and the head on the disk."""
    state = {**model.core.state_dict(), **model.heads.state_dict()}
    return sum(value.numel() * value.element_size() for value in state.values()) / 1e6


def times(models: dict[str, Model], inputs: ModelInputs, rows: np.ndarray) -> dict[str, list[float]]:
    """Milliseconds from tokens to answers, for one sample and for 64."""
    results: dict[str, list[float]] = {name: [] for name in models}
    with torch.no_grad():
        for count in (1, 64):
            runs = {}
            for name, model in models.items():
                parts = model.eval().tokens(inputs, torch.from_numpy(rows[:count]))
                runs[name] = lambda model=model, parts=parts: model.head("digit")(model.fuse(parts))
            for name, seconds in in_turn(runs, 21, process_seconds).items():
                results[name].append(seconds * 1e3)
    return results


def main() -> None:
    parser = options(__doc__, repeat=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--items", type=int, default=1797)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument(
        "--out", type=Path, help="folder for one JSON file a seed; those that are there are kept"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    report = Report(arguments)
    out = arguments.out or Path(tempfile.mkdtemp())
    digit = Digit(out / "data", arguments.items, arguments.epochs)
    for seed in arguments.seeds:
        if not (out / f"seed-{seed}.json").exists():
            write_json(out / f"seed-{seed}.json", one_seed(digit, seed))
    results = [
        json.loads((out / f"seed-{seed}.json").read_text(encoding="utf-8")) for seed in arguments.seeds
    ]
    tables(report, results, len(digit.part["test"]))
    report.close()


def tables(report: Report, found: list[dict[str, Any]], items: int) -> None:
    """Means over the seeds; the accuracies of the seeds beside them."""
    report.table(
        f"Core and head, {items} test items, {len(found)} seeds",
        ["model", "MB", "ms, 1 sample", "ms, 64 samples", "accuracy", "of each seed"],
    )
    for name in found[0]["accuracy"]:
        entry, many = np.mean([seed["milliseconds"][name] for seed in found], axis=0).tolist()
        accuracy = [seed["accuracy"][name] for seed in found]
        report.row(
            name,
            float(np.mean([seed["megabytes"][name] for seed in found])),
            entry,
            many,
            float(np.mean(accuracy)),
            ", ".join(f"{value:.3f}" for value in accuracy),
        )
    left = ", ".join(
        f"{seed['heads left']} of {LAYERS * HEADS} (penalty {seed['penalty']})" for seed in found
    )
    report.note(f"heads left: {left}")
    for what, columns in (("noise", LEVELS), ("attacks", RADII)):
        for model in found[0][what]:
            report.table(
                f"{model}: accuracy against {what}",
                ["on" if what == "noise" else "steps", *map(str, columns)],
            )
            for key in found[0][what][model]:
                report.row(key, *np.mean([seed[what][model][key] for seed in found], axis=0).tolist())


if __name__ == "__main__":
    main()
