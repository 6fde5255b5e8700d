"""Blood cells: our detector with EfficientNet-lite0 beside torchvision's Faster R-CNN with the same backbone.

    python examples/recipes/bccd.py --root ../shared/data/bccd --out runs/bccd --seeds 0

Both have the bundled weights of the backbone, the same feature pyramid, pictures of 320 x 240, anchors of the
sizes of the cells, batches, steps, rates, augmentation and averaged weights; the official train part to learn
from, val to choose the epoch, test measured once, on pictures of 640 x 480. Ours is what was chosen on val by
short runs; torchvision's keeps its own settings: wider heads, more proposals, its three shapes of anchors.
A run that was killed goes on where it was (--out), and one that was done is read from there.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from mmattn.boxes import Boxes
from mmattn.data.voc import read_voc
from mmattn.encoders.image.image_io import read_image
from mmattn.evaluation.tasks.detection import detection_metrics, per_class_detection_metrics
from mmattn.evaluation.tasks.detection_intervals import bootstrap_detection, paired_bootstrap_detection
from mmattn.files import write_json
from mmattn.model.build import choose_device
from mmattn.testing.measuring import Report
from mmattn.training.augmentation.box_augment import BoxAugment
from mmattn.training.loop import LoopConfig, train
from mmattn.types import Sample
from mmattn_adapters.detection.networks import DetectorTransform
from mmattn_adapters.detection.pyramid import FeaturePyramid
from mmattn_adapters.detection.task import DetectionTask
from mmattn_adapters.torchvision import Detector

LABELS = ("Platelets", "RBC", "WBC")
SIZE = (240, 320)  # height and width that both systems see
LEVELS, WIDTH, FROZEN = (2, 3, 4), 96, 2
SYSTEMS = ("mmattn", "torchvision")
# Fitted on the boxes of train at this size: platelets 25 pixels, red cells 50, white cells 110.
ANCHORS = ((24.0,), (48.0,), (100.0,), (160.0,))


@dataclass
class Picture:
    """A picture at the size that is learned from, with its boxes at that size and at its own."""

    sample: Sample
    boxes: Boxes
    truth: Boxes


class Task(DetectionTask):
    """Adds the processor's seconds to the history."""

    _since = 0.0

    def batches(self, epoch: int, generator: torch.Generator) -> Any:
        self._since = time.process_time()
        return super().batches(epoch, generator)

    def extra_metrics(self) -> dict[str, float]:
        return {"processor seconds": time.process_time() - self._since}


class Plain(nn.Module):
    """torchvision's Faster R-CNN as it comes, with what `DetectionTask` asks of a detector."""

    def __init__(self) -> None:
        super().__init__()
        pyramid = FeaturePyramid(levels=LEVELS, out_channels=WIDTH, extra_levels="pool", frozen_stages=FROZEN)
        self.network = FasterRCNN(
            pyramid,
            len(LABELS) + 1,
            rpn_anchor_generator=AnchorGenerator(ANCHORS, ((0.5, 1.0, 2.0),) * len(ANCHORS)),
            box_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], 7, 2),
        )
        self.network.transform = DetectorTransform(pyramid, None, 1333)
        self.config = argparse.Namespace(picture="image")

    def losses(self, samples: Sequence[Sample], targets: Sequence[Boxes], _: float) -> dict[str, Tensor]:
        device = next(self.parameters()).device
        truth = [
            {
                "boxes": boxes.boxes.to(device),
                "labels": torch.tensor([LABELS.index(label) + 1 for label in boxes.labels]).long().to(device),
            }
            for boxes in targets
        ]
        losses: dict[str, Tensor] = self.network(self._pictures(samples), truth)
        return losses

    @torch.no_grad()
    def predict(self, samples: Sequence[Sample]) -> list[Boxes]:
        self.eval()
        results = []
        for sample in samples:
            (entry,) = self.network(self._pictures([sample]))
            labels = [LABELS[number - 1] for number in entry["labels"].tolist()]
            results.append(Boxes(entry["boxes"].cpu(), labels, SIZE, entry["scores"].cpu()))
        return results

    def _pictures(self, samples: Sequence[Sample]) -> list[Tensor]:
        device = next(self.parameters()).device
        return [sample.content["image"].to(device) / 255 for sample in samples]


def ours(kind: str) -> Detector:
    """What was chosen on val."""
    shared: dict[str, Any] = {"levels": LEVELS, "fpn_channels": WIDTH, "frozen_stages": FROZEN}
    if kind == "fcos":
        return Detector.build("fcos", LABELS, **shared, extra_levels="none", num_convs=3)
    options = {
        "rpn_pre_nms_top_n_train": 600,
        "rpn_post_nms_top_n_train": 300,
        "rpn_pre_nms_top_n_test": 600,
        "rpn_post_nms_top_n_test": 200,
        "box_batch_size_per_image": 128,
    }
    detector = Detector.build("faster-rcnn", LABELS, **shared, representation_size=256, options=options)
    detector.network.rpn.anchor_generator = AnchorGenerator(ANCHORS, ((0.75, 1.0, 1.33),) * len(ANCHORS))
    return detector


def read(root: Path, part: str) -> list[Picture]:
    """The pictures of a part, shrunk once."""
    pictures = []
    for path, truth in read_voc(root, part, labels=LABELS):
        shrunk = read_image(path).resize(SIZE[::-1], Image.Resampling.BOX)
        pixels = torch.from_numpy(np.array(shrunk)).permute(2, 0, 1).contiguous()
        pictures.append(Picture(Sample(path.stem, {"image": pixels}), truth.scaled(SIZE), truth))
    return pictures


def predict(detector: Any, pictures: Sequence[Picture]) -> list[Boxes]:
    """What is found, on the pictures' own size."""
    result = detector.predict([picture.sample for picture in pictures])
    return [boxes.scaled(picture.truth.size) for boxes, picture in zip(result, pictures, strict=True)]


def run(system: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train one system, or read what it came to."""
    folder = arguments.out / f"{system}-{seed}"
    done = folder / "result.json"
    if done.exists():
        return json.loads(done.read_text(encoding="utf-8"))
    torch.manual_seed(seed)
    detector: Any = Plain() if system == "torchvision" else ours(arguments.kind)
    learned, held = (read(arguments.root, part) for part in ("train", "val"))
    truth = [picture.truth for picture in held]

    def judge(model: Any) -> dict[str, float]:
        figures = detection_metrics(predict(model, held), truth)
        print(f"{system} {seed}: {figures}", flush=True)
        return {name: figures[name] for name in ("ap50", "map")}

    task = Task(
        detector,
        [picture.sample for picture in learned],
        [picture.boxes for picture in learned],
        judge,
        batch_size=4,
        augment=BoxAugment(
            flips=("horizontal", "vertical"), zoom=(0.8, 1.25), shift=0.1, photometric=0.3, fill=200
        ),
    )
    history = train(
        task.to(choose_device()),
        LoopConfig(
            epochs=arguments.epochs,
            learning_rate=arguments.rate,
            weight_decay=0.05,
            lr_multipliers={"detector.network.backbone.network": 0.3},
            ema_decay=0.99,
            max_grad_norm=5.0,
            precision="no",
            warmup_ratio=0.05,
            patience=0,
        ),
        seed=seed,
        folder=folder,
        run_name=f"{system} {seed}",
    )
    result = {
        "system": system,
        "seed": seed,
        "epoch": history.best_epoch,
        "val": history.best_score,
        "processor seconds": sum(row["processor seconds"] for row in history.rows),
        "parameters": sum(weight.numel() for weight in detector.parameters()),
    }
    if not arguments.choose:
        tested = read(arguments.root, "test")
        result["test"] = [_plain(boxes) for boxes in predict(detector, tested)]
        write_json(done, result)
    return result


def _plain(boxes: Boxes) -> dict[str, Any]:
    assert boxes.scores is not None
    return {"boxes": boxes.boxes.tolist(), "labels": boxes.labels, "scores": boxes.scores.tolist()}


def _boxes(answer: dict[str, Any], size: tuple[int, int]) -> Boxes:
    corners = torch.tensor(answer["boxes"], dtype=torch.float32).reshape(-1, 4)
    return Boxes(corners, answer["labels"], size, torch.tensor(answer["scores"]))


def show(results: dict[str, list[dict[str, Any]]], root: Path, report: Report) -> None:
    """The table of the test part."""
    truth = [boxes for _, boxes in read_voc(root, "test", labels=LABELS)]
    result = {
        system: [
            [_boxes(answer, boxes.size) for answer, boxes in zip(each["test"], truth, strict=True)]
            for each in runs
        ]
        for system, runs in results.items()
    }
    report.table("BCCD, test part, 95% intervals over pictures", ["system", "AP50", "mAP", "AP75", *LABELS])
    for system, predictions in result.items():
        figures = bootstrap_detection(predictions, truth)
        names = ("ap50", "map", "ap75", *(f"ap50 {label}" for label in LABELS))
        cells = [figures[name] for name in names]
        report.row(system, *(f"{each.mean:.4f} ({each.low:.4f} to {each.high:.4f})" for each in cells))
        official = detection_metrics(predictions[0], truth)
        rows = per_class_detection_metrics(predictions[0], truth)
        recalls = ", ".join(f"{label} {rows[label]['recall']:.3f}" for label in LABELS)
        report.note(f"{system}, first seed, by faster-coco-eval: {official}; recall {recalls}")
    if len(result) == 2 and len(set(map(len, result.values()))) == 1:
        ours, theirs = (result[system] for system in SYSTEMS)
        differences = paired_bootstrap_detection(ours, theirs, truth)
        for name in ("ap50", "map"):
            each = differences[name]
            report.note(f"{name}, ours minus theirs: {each.mean:+.4f} ({each.low:+.4f} to {each.high:+.4f})")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, required=True, help="the folder of BCCD")
    parser.add_argument("--out", type=Path, required=True, help="checkpoints and results")
    parser.add_argument("--systems", nargs="*", default=list(SYSTEMS), choices=SYSTEMS)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--kind", choices=["faster-rcnn", "fcos"], default="faster-rcnn", help="of ours")
    parser.add_argument("--choose", action="store_true", help="val only: test is not looked at")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    report = Report(arguments, "torchvision", "timm", "faster-coco-eval")
    results: dict[str, list[dict[str, Any]]] = {}
    for seed in arguments.seeds:
        for system in arguments.systems:
            result = run(system, seed, arguments)
            results.setdefault(system, []).append(result)
            shown = {name: value for name, value in result.items() if name != "test"}
            report.note(str(shown))
    if not arguments.choose:
        show(results, arguments.root, report)
    report.close()


if __name__ == "__main__":
    main()
