"""The closed-form hybrid on MovieLens-1M: warm films by its own split, and new and old films in one list.

    mmattn prepare movielens --root ../shared/data/ml1m --out data/ml1m
    python examples/recipes/movielens_hybrid.py --card data/ml1m

Settings are chosen by nDCG@20 on a fifth of every user's training, EASE's by as many trials as the hybrid's
items' part; the test part is measured once with each, seen items masked. New films are judged by a kernel of
genres, people and year here; `mmattn fit --config examples/movielens_warm.yaml` has a trained tower say it.
Seconds are the processor's, of one thread.
"""

from __future__ import annotations

import argparse
import os
import time
from functools import partial

os.environ.setdefault("OMP_NUM_THREADS", "1")

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import linalg

from mmattn.data.dataset import Dataset
from mmattn.data.reader import read_dataset
from mmattn.encoders.model_inputs import ModelInputs
from mmattn.evaluation.splits.split import Part, Split
from mmattn.evaluation.statistics.bootstrap import Interval, bootstrap, paired_bootstrap
from mmattn.experiments.config import BaselineConfig, HybridConfig, ProtocolConfig
from mmattn.experiments.recommendation.baselines import BaselineContent
from mmattn.experiments.recommendation.hybrid import fit_hybrid, tune_hybrid, user_profiles
from mmattn.experiments.recommendation.protocol import make_split, per_user_metrics
from mmattn.experiments.recommendation.system_evaluation import SystemEvaluator
from mmattn.heads.recommendation.history_completion import complete_history_weights, cooccurrence_counts
from mmattn.recommenders import EASE, Popularity, Recommender
from mmattn.testing.measuring import Report

METRICS = ("ndcg@20", "recall@20")
STRENGTHS = (300.0, 500.0, 1000.0)
WARM = HybridConfig(
    regularization=STRENGTHS,
    user_regularization=(3.0,),
    profile_scale=(0.0, 0.3, 0.5),
    user_weight=(0.65, 0.8),
    shrinkage=(0.0,),
)
# Parts as the warm list chose them: what is new here is how content and choices share a list.
MIXED = HybridConfig(
    regularization=(500.0,),
    user_regularization=(3.0,),
    profile_scale=(0.3,),
    user_weight=(0.65,),
    shrinkage=(0.0, 5.0),
    popularity_penalty=(0.05,),
    content_scale=(1.0, 2.0, 4.0),
)
CONTENT = BaselineConfig(
    "kernel-ridge",
    tags={"genres": 1.0},
    tfidf={"directors+writers+actors": 1.0},
    gaussian={"year": 5.0},
    exponent=0.5,
)
RIDGE = 2.0  # of the kernel
Values = dict[str, NDArray[np.float64]]


class Content:
    """What the known items' content says of every item, for itself."""

    def __init__(self, split: Split, weights: NDArray[np.float32]):
        self.histories = split.known("test")[:, split.known_items("test")]
        self.weights = weights

    def score(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.histories[users] @ self.weights[:, items]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--card", required=True, help="the prepared data set")
    parser.add_argument("--lists", nargs="*", default=["warm", "mixed"], choices=["warm", "mixed"])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--json", action="store_true", help="print JSON; the tables go to standard error")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    report = Report(arguments, "mmattn", "numpy", "scipy")
    dataset = read_dataset(arguments.card)
    if "warm" in arguments.lists:
        warm(report, dataset, arguments.seeds)
    if "mixed" in arguments.lists:
        mixed(report, dataset, arguments.seeds[0])
    report.close()


def warm(report: Report, dataset: Dataset, seeds: list[int]) -> None:
    """Draws of validation choose; the one test part is measured."""
    values: dict[str, list[Values]] = {"hybrid": [], "EASE, 500": [], "EASE, tuned": []}
    profiles, chosen = user_profiles(dataset.users), []
    begun = time.process_time()
    for seed in seeds:
        split = make_split(dataset, ProtocolConfig(split="given", validation=0.2), seed)
        known, train = split.known_items("test"), split.known("validation")
        settings = tune_hybrid(WARM, train, None, known, partial(judged, split), profiles)
        figures = {strength: judged(split, EASE(strength).fit(train)) for strength in STRENGTHS}
        strength = max(figures, key=figures.__getitem__)
        chosen.append(f"{seed}: {settings}; EASE {strength:g}")
        for name, system in (
            ("hybrid", fit_hybrid(settings, split.known("test"), None, known, profiles)),
            ("EASE, 500", EASE(500.0).fit(split.known("test"))),
            ("EASE, tuned", EASE(strength).fit(split.known("test"))),
        ):
            values[name].append(per_user_metrics(system.score, split, "test", METRICS))
    report.table("Warm films", ("system", *METRICS, *(f"hybrid - it, {metric}" for metric in METRICS)))
    stacked = {
        name: {m: np.stack([entry[m] for entry in value]) for m in METRICS} for name, value in values.items()
    }
    for name, result in stacked.items():
        ahead = [
            told(paired_bootstrap(stacked["hybrid"][m], result[m])) if name != "hybrid" else "-"
            for m in METRICS
        ]
        report.row(name, *(told(bootstrap(result[m])) for m in METRICS), *ahead)
    report.table("Chosen on validation", ("seed: settings",))
    for line in chosen:
        report.row(line)
    report.table("Time", ("all of it, s",))
    report.row(time.process_time() - begun)


def mixed(report: Report, dataset: Dataset, seed: int) -> None:
    """A fifth of the films is new, and they are ranked with all others."""
    kernel_II = BaselineContent(dataset.items, ModelInputs({})).kernel(CONTENT)
    protocol, profiles = ProtocolConfig(split="mixed", metrics=METRICS), user_profiles(dataset.users)
    split = make_split(dataset, protocol, seed)
    settings = tune_hybrid(
        MIXED, split.known("validation"), content_weights(kernel_II, split, "validation"),
        split.known_items("validation"), partial(judged, split), profiles,
    )  # fmt: skip
    known, train = split.known_items("test"), split.known("test")
    content = content_weights(kernel_II, split, "test")
    hybrid = fit_hybrid(settings, train, content, known, profiles)
    systems: dict[str, Any] = {
        "hybrid": hybrid,
        "hybrid, content_scale 1": hybrid.with_weights(content_scale=1.0),
        "hybrid, no content": hybrid.with_content(None),
        "content alone": Content(split, content),
        "EASE, 500": EASE(500.0).fit(train, known=known),
        "popularity": Popularity().fit(train),
    }
    report.table(
        f"New and old films in one list, seed {seed}: {settings}",
        ("system", *METRICS, "hybrid - it, ndcg@20", "recall@20 of new films", "new films in the list"),
    )
    examiner = SystemEvaluator(split, protocol)
    examined = {name: examiner.evaluate_scores(system.score) for name, system in systems.items()}
    for name, value in examined.items():
        ahead = paired_bootstrap(examined["hybrid"].values[METRICS[0]], value.values[METRICS[0]])
        report.row(
            name,
            *(told(bootstrap(value.values[metric])) for metric in METRICS),
            "-" if name == "hybrid" else told(ahead),
            float(np.nanmean(value.subgroups["items: cold"])),
            f"{np.isin(value.ranking.items[:, :20], split.cold_items).mean():.1%}",
        )


def content_weights(kernel_II: NDArray[np.float64], split: Split, part: Part) -> NDArray[np.float32]:
    """[W, I] by kernel ridge over the known items, each left out of its own answer, histories completed."""
    known = split.known_items(part)
    inverse_WW = linalg.inv(kernel_II[np.ix_(known, known)] + RIDGE * np.eye(len(known)))
    weights_WI = inverse_WW @ kernel_II[known]
    alone_WW = -inverse_WW / np.diag(inverse_WW)
    np.fill_diagonal(alone_WW, 0.0)
    weights_WI[:, known] = alone_WW
    together = cooccurrence_counts(split.known(part)[:, known])
    return complete_history_weights(torch.from_numpy(weights_WI.astype(np.float32)), together).numpy()


def judged(split: Split, system: Recommender) -> float:
    """nDCG@20 on validation."""
    return float(np.nanmean(per_user_metrics(system.score, split, "validation", METRICS[:1])[METRICS[0]]))


def told(interval: Interval) -> str:
    return f"{interval.mean:.4f} ({interval.low:.4f} to {interval.high:.4f})"


if __name__ == "__main__":
    main()
