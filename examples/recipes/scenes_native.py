"""Digits found in scenes by the native detection head: all of them, or those that a phrase asks for.

    python examples/recipes/scenes_native.py --out runs/scenes-native --seeds 0

One model does both: half of the training scenes come with a phrase, which is answered by the boxes of its
digit, and half without, which are answered by all boxes. Test scenes show handwriting that no training scene
shows; a label counts. A seed that was killed goes on from its last epoch, and one that is done is read.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from typing import Any

import torch

from mmattn.boxes import Boxes
from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.encoders.model_inputs import ModelInputs
from mmattn.evaluation.tasks.detection import detection_metrics
from mmattn.evaluation.tasks.detection_intervals import bootstrap_detection
from mmattn.files import write_json
from mmattn.model.build import build_encoders, build_model, choose_device
from mmattn.model.model import Model
from mmattn.testing.measuring import Report
from mmattn.training.loop import LoopConfig, train
from mmattn.training.tasks.supervised import SupervisedTask
from mmattn_datasets.scenes.draw import DIGITS, Part, make_scenes
from mmattn_datasets.scenes.queries import make_queries

TEST = 300


def build(given: argparse.Namespace, seed: int) -> Model:
    torch.manual_seed(seed)
    encoders = {
        "image": EncoderConfig(
            "tiny-image", {"dim": 64, "size": given.size, "grid": given.size // 4}, standardise=True
        ),
        "text": EncoderConfig("tiny-text", {"dim": 64}, standardise=True),
    }
    options: dict[str, Any] = {"labels": list(DIGITS), "num_queries": 20, "layers": given.layers}
    options["num_denoising_groups"] = given.denoise
    config = ModelConfig(
        encoders,
        FusionConfig(dim=64, layers=1, heads=4, expansion=2.0),
        {"boxes": HeadConfig("detection", options)},
    )
    return build_model(build_encoders(encoders), config).to(choose_device())


def read(model: Model, part: Part, count: int, seed: int) -> tuple[ModelInputs, list[Boxes]]:
    """Scenes without a phrase, then as many others with one; and the boxes that are meant."""
    scenes = make_scenes(2 * count, part, seed=seed)
    queries = make_queries(scenes[count:], seed=seed)
    picture, text = model.encoders["image"], model.encoders["text"]
    pictures = [picture.read(scene.image) for scene in scenes]
    phrases = [None] * count + [text.read(query.phrase) for query in queries]
    targets = [scene.boxes for scene in scenes[:count]] + [query.boxes for query in queries]
    return ModelInputs(contents={"image": pictures, "text": phrases}), targets


def found_in(task: SupervisedTask, inputs: ModelInputs, targets: Sequence[Boxes]) -> list[Boxes]:
    """Predictions at the size of the pictures."""
    other = SupervisedTask(task.model, inputs, targets, range(len(inputs)), head="boxes")
    result = other.predict(range(len(inputs)))
    return [boxes.scaled(truth.size) for boxes, truth in zip(result, targets, strict=True)]


def measure(given: argparse.Namespace, seed: int) -> dict[str, list[float]]:
    """Train, or read what was measured before: system -> figure, low, high of AP50, and mAP."""
    folder = Path(given.out) / f"seed-{seed}"
    if (folder / "figures.json").exists():
        done: dict[str, list[float]] = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
        return done
    start = time.process_time()
    model = build(given, seed)
    inputs, targets = read(model, "train", given.scenes, seed)
    validation, truth = read(model, "validation", given.check, seed)

    def judge(_: Model) -> dict[str, float]:
        result = found_in(task, validation, truth)
        halves = {"all": slice(0, given.check), "asked": slice(given.check, None)}
        figures = {name: detection_metrics(result[its], truth[its])["ap50"] for name, its in halves.items()}
        print(f"seed {seed}, {time.process_time() - start:.0f} s:", figures, flush=True)
        return {"ap50": sum(figures.values()) / 2, **figures}

    task = SupervisedTask(model, inputs, targets, range(len(inputs)), judge, head="boxes", batch_size=16)
    train(
        task,
        LoopConfig(
            epochs=given.epochs,
            learning_rate=given.rate,
            weight_decay=1e-3,
            warmup_ratio=0.05,
            ema_decay=0.99,
            patience=0,
        ),
        seed=seed,
        folder=folder,
        run_name=f"scenes {seed}",
    )
    test, truth = read(model, "test", TEST, seed)
    result = found_in(task, test, truth)
    figures = {"seconds": [time.process_time() - start]}
    for name, its in (("all", slice(0, TEST)), ("asked", slice(TEST, None))):
        interval = bootstrap_detection([result[its]], truth[its], seed=seed)["ap50"]
        figures[name] = [
            interval.mean, interval.low, interval.high, detection_metrics(result[its], truth[its])["map"],
        ]  # fmt: skip
    write_json(folder / "figures.json", figures)
    model.save_pretrained(folder / "model")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--size", type=int, default=48, help="side of the pictures; a patch has 4 pixels")
    parser.add_argument("--scenes", type=int, default=2000, help="with a phrase, and as many without")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--layers", type=int, default=2, help="of the decoder")
    parser.add_argument("--denoise", type=int, default=2)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--check", type=int, default=100, help="validation scenes of each kind")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    report = Report(given, "torchvision", "faster-coco-eval")
    report.table("unseen scenes", ["seed", "task", "AP50", "95% over scenes", "mAP", "processor s"])
    for seed in given.seeds:
        figures = measure(given, seed)
        for name in ("all", "asked"):
            ap50, low, high, mean = figures[name]
            cells = f"{ap50:.3f}", f"{low:.3f} to {high:.3f}", f"{mean:.3f}", f"{figures['seconds'][0]:.0f}"
            report.row(str(seed), name, *cells)
    report.close()


if __name__ == "__main__":
    main()
