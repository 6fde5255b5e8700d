"""`mmattn demo`: the embedded tour, offline, a few minutes on two cores.

Makes a small data set (real handwriting, number words in twelve languages, synthetic sound patterns,
simulated collectors), aligns the three modalities, searches across them, recommends unseen items,
and writes a report to look at.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

if TYPE_CHECKING:
    from mmattn.data.dataset import Dataset

_PROGRAM = "Program(score=dot() >> modality_bias('pair'), mask=full, norm=softmax())"
_ALIGN_EPOCHS = 20


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--out", default="runs/demo", metavar="DIR", help="where everything goes")
    parser.add_argument("--items", type=int, default=1200, help="items of the data set")
    parser.add_argument("--epochs", type=int, default=_ALIGN_EPOCHS, help="epochs of the alignment")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def run(arguments: Namespace) -> int:
    from mmattn.cli.prepare import prepare
    from mmattn.data.reader import read_dataset
    from mmattn.model.build import choose_device

    started, out = time.perf_counter(), Path(arguments.out)
    print(f"mmattn demo on {choose_device()}; everything goes to {out}\n\n1. A data set", flush=True)
    prepare("digits", None, out / "data", {"items": arguments["items"]})
    dataset = read_dataset(out / "data")
    print("\n2. One space for image, text and audio", flush=True)
    _align_modalities(dataset, out, arguments.epochs, progress=not arguments.quiet)
    print("\n3. Recommendations of items that nobody has met", flush=True)
    report = _run_recommender(out, progress=not arguments.quiet)
    print(f"\nreport: {report}\ndone in {time.perf_counter() - started:.0f} s", flush=True)
    return 0


def _align_modalities(dataset: Dataset, out: Path, epochs: int, progress: bool) -> None:
    """Train encoders and core on which pictures, words and sounds mean the same; search unseen items."""
    import numpy as np
    import torch

    from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
    from mmattn.encoders.model_inputs import prepare_inputs
    from mmattn.evaluation.ranking.crossmodal import cross_modal_precision
    from mmattn.model.build import build_encoders, build_model, choose_device
    from mmattn.model.modality_vectors import modality_vectors
    from mmattn.model.model import Model
    from mmattn.training.loop import LoopConfig, train
    from mmattn.training.tasks.alignment import AlignmentTask

    config = ModelConfig(
        encoders={
            "image": EncoderConfig("tiny-image", standardise=True),
            "text": EncoderConfig("tiny-text", {"layers": 1}, standardise=True),
            "audio": EncoderConfig("log-mel", standardise=True),
        },
        fusion=FusionConfig(dim=64, layers=1, heads=4, program=_PROGRAM),
        heads={"alignment": HeadConfig("alignment")},
    )
    torch.manual_seed(0)
    encoders = build_encoders(config.encoders)
    model = build_model(encoders, config).to(choose_device())
    inputs = prepare_inputs(dataset.items, encoders, out / "features", progress=progress)
    labels = dataset.labels["digit"]
    groups = torch.from_numpy(np.unique(labels, return_inverse=True)[1])
    part = {name: torch.from_numpy(np.flatnonzero(dataset.item_split == name)) for name in _SPLIT_PARTS}

    def judge(model: Model) -> dict[str, float]:
        precision = cross_modal_precision(*modality_vectors(model, inputs, part["validation"]), labels)
        return {"precision@10": float(np.mean(list(precision.values())))}

    task = AlignmentTask(
        model, inputs, groups=groups, validate_fn=judge, samples=part["train"], batch_size=64
    )
    train(
        task,
        LoopConfig(
            epochs=epochs, learning_rate=1e-3, weight_decay=0.01, warmup_ratio=0.05, patience=0, ema_decay=0.0
        ),
        progress=progress,
        run_name="align",
    )
    model.save_pretrained(out / "aligned")
    precision = cross_modal_precision(*modality_vectors(model, inputs, part["test"]), labels)
    print(f"precision@10 on {len(part['test'])} unseen items (query -> searched; chance is 0.10)")
    for (query, target), value in precision.items():
        print(f"  {query:>5} -> {target:<5}  {value:.3f}")


_SPLIT_PARTS = ("train", "validation", "test")


def _run_recommender(out: Path, progress: bool) -> Path:
    """The main job on the same items, with the aligned encoders, frozen."""
    import json
    import shutil

    from mmattn.cli.fit import metrics_table
    from mmattn.config import EncoderConfig, FusionConfig, HeadConfig
    from mmattn.experiments.config import (
        BaselineConfig,
        DataConfig,
        FitConfig,
        ProtocolConfig,
        TrainingConfig,
    )
    from mmattn.experiments.runner import run_experiment

    vectors = dict.fromkeys(("image", "text", "audio"), 1.0)
    config = FitConfig(
        name="recommend",
        data=DataConfig(card=out / "data", features=out / "features"),
        encoders={
            name: EncoderConfig(
                "aligned",
                {"model": str((out / "aligned").resolve()), "source_modality": name},
                dim_fraction=0.33,
            )
            for name in vectors
        },
        protocol=ProtocolConfig(split="cold", seeds=(0, 1, 2), metrics=("ndcg@10", "recall@10", "mrr@10")),
        fusion=FusionConfig(dim=192, layers=1, width=32, heads=4, program=_PROGRAM, expansion=1.0),
        head=HeadConfig(),
        training=TrainingConfig(
            epochs=4, steps_per_epoch=10, learning_rate=1e-3, users_per_batch=0, drop_modality=0.1
        ),
        baselines={
            "popularity": BaselineConfig("popularity"),
            "ease": BaselineConfig("ease"),
            "content ridge": BaselineConfig("content-ridge", vectors=vectors),
            "content neighbours": BaselineConfig("content-knn", vectors=vectors),
        },
        out=out,
    )
    shutil.rmtree(out / "recommend", ignore_errors=True)  # the tour starts anew each time
    folder = run_experiment(config, progress=progress)
    print(metrics_table(json.loads((folder / "metrics.json").read_text(encoding="utf-8"))))
    return folder / "report.html"
