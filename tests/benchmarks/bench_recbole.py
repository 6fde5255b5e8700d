"""Training beside RecBole's LightGCN, inside RecBole: the time of an epoch, and until LightGCN's best score.

Both are trained by RecBole's own Trainer and judged by its own evaluation (MRR@10, its default) on the same
split of its own ml-100k, in turn, on one thread. LightGCN has RecBole's own settings, at the learning rates
named, until its early stopping. What counts is the processor's time in training epochs, without validation.

RecBole has an environment of its own, which `make test-hosts` builds and this script then runs in.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mmattn.testing.measuring import Report, options

ROOT = Path(__file__).parents[2]
COMMON = {
    "use_gpu": False,
    "show_progress": False,
    "metrics": ["MRR", "NDCG"],
    "valid_metric": "MRR@10",
    "eval_batch_size": 2_000_000,
    "load_col": {"inter": ["user_id", "item_id"], "item": ["item_id", "movie_title", "class"]},
}
OURS = {
    "learning_rate": 0.01,
    "learner": "adamw",
    "weight_decay": 0.1,
    "train_batch_size": 30_000,
    "train_neg_sample_args": None,
    "mmattn": {"texts": ["movie_title"], "tags": ["class"]},
}


@dataclass
class Curve:
    """Processor seconds of each epoch's training, and the score after it."""

    seconds: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    @property
    def best(self) -> float:
        return max(self.scores)

    def epochs_to(self, score: float) -> int | None:
        """Epochs until the score is reached; None where it never is."""
        return next((epoch for epoch, now in enumerate(self.scores, 1) if now >= score), None)

    def seconds_to(self, score: float) -> float:
        """Seconds of training until the score is reached; NaN where it never is."""
        epochs = self.epochs_to(score)
        return float("nan") if epochs is None else sum(self.seconds[:epochs])


class Reached(Exception):
    """The target is reached: no need to train on."""


def curve_of(model_class: type, target: float, **settings: Any) -> Curve:
    """Train by RecBole's Trainer until its early stopping, or until the target is reached."""
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.trainer import Trainer
    from recbole.utils import init_seed

    class Timed(Trainer):  # type: ignore[misc, unused-ignore]
        def _train_epoch(self, *args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            loss = super()._train_epoch(*args, **kwargs)
            curve.seconds.append(time.process_time() - start)
            return loss

    def look(epoch: int, score: float) -> None:
        curve.scores.append(score)
        print(f"{model_class.__name__}, epoch {epoch + 1}: {score:.4f}", file=sys.stderr)
        if score >= target:
            raise Reached

    curve = Curve()
    config = Config(model=model_class, dataset="ml-100k", config_dict={**COMMON, **settings})
    init_seed(config["seed"], reproducibility=True)
    train, valid, _ = data_preparation(config, create_dataset(config))
    model = model_class(config, train.dataset).to(config["device"])
    with contextlib.suppress(Reached):
        Timed(config, model).fit(train, valid, saved=False, verbose=False, callback_fn=look)
    return curve


def main(arguments: Namespace) -> None:
    from recbole.model.general_recommender import LightGCN

    from mmattn_adapters.recbole import TowerRecommender

    torch.set_num_threads(1)
    report = Report(arguments, "recbole", "numpy", "scipy")
    sys.argv = sys.argv[:1]  # RecBole would read the arguments as its own
    os.chdir(tempfile.mkdtemp())  # and it writes its logs where it stands
    report.table(
        "RecBole's ml-100k, 80% of each user's ratings for training; MRR@10 on 10%",
        ["model", "epochs", "seconds an epoch", "best score", "at epoch", "seconds to LightGCN's best"],
    )
    baselines = {
        f"LightGCN, rate {rate:g}": curve_of(
            LightGCN, float("inf"), epochs=arguments.epochs, learning_rate=rate
        )
        for rate in arguments.rates
    }
    target = max(curve.best for curve in baselines.values())
    ours = curve_of(TowerRecommender, target, epochs=arguments.epochs, stopping_step=1000, **OURS)
    for name, curve in {**baselines, "mmattn, two towers": ours}.items():
        a_epoch = sum(curve.seconds) / len(curve.seconds)
        at = curve.scores.index(curve.best) + 1
        report.row(name, len(curve.scores), a_epoch, curve.best, at, curve.seconds_to(target))
    fastest = min(seconds for curve in baselines.values() if (seconds := curve.seconds_to(target)) == seconds)
    report.note(
        f"to {target:.4f}: {fastest / ours.seconds_to(target):.1f} times faster than the fastest LightGCN"
    )
    report.close()


if __name__ == "__main__":
    try:
        import recbole  # noqa: F401
    except ModuleNotFoundError:
        hosts = ROOT / ".venv-hosts/bin/python"
        if not hosts.exists() or Path(sys.executable) == hosts:
            print("RecBole is not here: `make test-hosts` builds its environment; nothing was measured")
            sys.exit()
        os.execv(hosts, [str(hosts), *sys.argv])
    parser = options(__doc__, repeat=1)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.001, 0.002, 0.005, 0.01])
    parser.add_argument("--epochs", type=int, default=300, help="at most")
    main(parser.parse_args())
