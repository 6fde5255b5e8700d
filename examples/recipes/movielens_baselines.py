"""The baselines on MovieLens-1M's own split into train and test, each tuned on validation by the same budget.

    mmattn prepare movielens --root ../shared/data/ml1m --out data/ml1m
    python examples/recipes/movielens_baselines.py --card data/ml1m --features features --trials 4

Settings are chosen by nDCG@20 on a tenth of every user's training; the baseline is then trained on all of the
training part with them and measured once on the test part, seen items masked. Seconds are the processor's,
of one thread.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

from typing import Any

import numpy as np
import torch

from mmattn.config import EncoderConfig
from mmattn.data.reader import read_dataset
from mmattn.encoders.model_inputs import prepare_inputs
from mmattn.evaluation.splits.split import Split
from mmattn.experiments.config import BaselineConfig, ProtocolConfig
from mmattn.experiments.recommendation.baselines import BaselineContent, fit_baseline, tune_baselines
from mmattn.experiments.recommendation.protocol import make_split, per_user_metrics
from mmattn.model.build import build_encoders
from mmattn.testing.measuring import Report

CONTENT: dict[str, Any] = {"vectors": {"summary": 1.0, "image": 0.25}, "tags": {"genres": 1.0}}
# Few epochs at a high rate: minutes in all on one thread. A step of LightGCN passes the whole graph along,
# so that its batches are large.
PAIRS = {
    "epochs": 15,
    "validate_every": 5,
    "patience": 1,
    "learning_rate": 0.01,
    "regularization": 0.01,
    "batch_size": 4096,
}
GRAPH = {
    "epochs": 24,
    "validate_every": 6,
    "patience": 1,
    "learning_rate": 0.03,
    "regularization": 1e-4,
    "batch_size": 65536,
}
BASELINES = {
    "popularity": BaselineConfig("popularity"),
    "ease": BaselineConfig("ease"),
    "item-knn": BaselineConfig("item-knn"),
    "als": BaselineConfig("als", options={"regularization": 10.0, "alpha": 1.0}),
    "content-knn": BaselineConfig("content-knn", **CONTENT),
    "content-ridge": BaselineConfig("content-ridge", **CONTENT),
    "kernel-ridge": BaselineConfig("kernel-ridge", exponent=0.5, **CONTENT),
    "bpr": BaselineConfig("bpr", options=PAIRS),
    "lightgcn": BaselineConfig("lightgcn", options=GRAPH),
    "vbpr": BaselineConfig("vbpr", vectors={"image": 1.0}, options=PAIRS),
}
ENCODERS = {
    "summary": EncoderConfig("minilm", {"pool": "all"}, source="text"),
    "image": EncoderConfig("efficientnet-lite0", {"grid": 1}),
}
METRICS = ("recall@20", "ndcg@20")
COLUMNS = ("baseline", *METRICS, "validation", "trials", "tuning, s", "training, s", "chosen")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--card", required=True, help="the prepared data set")
    parser.add_argument("--features", default="features", help="folder of the feature store")
    parser.add_argument("--trials", type=int, default=4, help="for each baseline")
    parser.add_argument("--baselines", nargs="*", default=list(BASELINES), choices=list(BASELINES))
    parser.add_argument("--json", action="store_true", help="print JSON; the tables go to standard error")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    report = Report(arguments, "mmattn", "numpy", "scipy", "implicit", "optuna")
    dataset = read_dataset(arguments.card)
    sources = {name: value.source or name for name, value in ENCODERS.items()}
    encoders = build_encoders(ENCODERS, {name: [] for name in ENCODERS})
    inputs = prepare_inputs(dataset.items, encoders, arguments.features, sources, progress=False)
    content = BaselineContent(dataset.items, inputs)
    split = make_split(dataset, ProtocolConfig(split="given", seeds=(0,), validation=0.1), seed=0)
    report.table("Baselines on MovieLens-1M, warm", COLUMNS)
    for name in arguments.baselines:
        report.row(*figures(name, content, split, arguments.trials))
    report.close()


def figures(name: str, content: BaselineContent, split: Split, trials: int) -> tuple[str | float, ...]:
    """A row of the table: chosen on validation, measured on test."""
    begun = time.process_time()
    chosen, tuning = tune_baselines(
        {name: BASELINES[name]}, content, split, metric=METRICS[1], trials=trials, seed=0
    )
    tuned = time.process_time()
    fitted = fit_baseline(chosen[name], content, split.known("test"), split.known_items("test"))
    trained = time.process_time()
    values = per_user_metrics(fitted.score, split, "test", METRICS)
    result = tuning.systems[name]
    settings = ", ".join(f"{key} {value:.4g}" for key, value in result.parameters.items())
    figures = (float(np.nanmean(values[metric])) for metric in METRICS)
    return name, *figures, result.value, len(result.trials), tuned - begun, trained - tuned, settings or "-"


if __name__ == "__main__":
    main()
