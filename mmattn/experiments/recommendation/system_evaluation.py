"""What is asked of a finished system at the test: figures, depth, whom and what it serves well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmattn.array_types import Bools, Floats, Ints
from mmattn.encoders.model_inputs import ModelInputs
from mmattn.evaluation.modality_gap import ModalityGap, modality_gap
from mmattn.evaluation.ranking.metrics import Ranking, evaluate
from mmattn.evaluation.ranking.subgroups import (
    activity_groups,
    metrics_by_item_group,
    metrics_by_user_group,
    popularity_groups,
)
from mmattn.evaluation.splits.split import Split
from mmattn.experiments.ablation import ablate, samples_with
from mmattn.experiments.config import ProtocolConfig
from mmattn.experiments.recommendation.protocol import ScoreFn, per_user_metrics, rank_part
from mmattn.training.tasks.recommendation import item_vectors
from mmattn.training.tasks.recommender import RecommenderTask

__all__ = ["SystemEvaluator", "SystemResult", "modality_gaps", "pick_example_users", "split_subgroups"]


# Cut-offs of the curve of recall against k, as far as there are candidates.
_RECALL_CUTOFFS = (1, 2, 3, 5, 10, 20, 30, 50, 70, 100)


@dataclass(frozen=True, eq=False)
class SystemResult:
    """What one system gave.

    Args:
        values: metric -> [U] per-user values, NaN for users without a positive.
        recall: cut-off -> mean recall there.
        subgroups: subgroup -> [U] the subgroups's metric, NaN for users whom it does not concern.
        ranking: [U, k].
    """

    values: Mapping[str, Floats]
    recall: Mapping[int, float]
    subgroups: Mapping[str, Floats]
    ranking: Ranking


class SystemEvaluator:
    """Puts the same questions to every system.

    Args:
        split: whose test part is predicted.
        protocol: the metrics.
        subgroups: look at subgroups of items and users too.
        subgroup_metric: by which metric, without its cut-off.
    """

    def __init__(
        self, split: Split, protocol: ProtocolConfig, subgroups: bool = True, subgroup_metric: str = "recall"
    ):
        self.split = split
        self.metrics = protocol.metrics
        self.positives = split.matrix("test")
        self.cutoffs = [k for k in _RECALL_CUTOFFS if k <= len(split.candidates("test"))]
        self.subgroup_metric = f"{subgroup_metric}@{protocol.metrics[0].partition('@')[2]}"
        self.item_subgroups, self.user_subgroups = split_subgroups(split) if subgroups else ({}, {})

    def per_user_metrics(self, score: ScoreFn) -> dict[str, Floats]:
        """Compute the metrics alone: metric -> [U].

        Args:
            score: of users and items.
        """
        return per_user_metrics(score, self.split, "test", self.metrics)

    def evaluate_scores(self, score: ScoreFn) -> SystemResult:
        """Compute metrics, recall at every depth, and subgroups from one ranking.

        Args:
            score: of users and items.
        """
        at_depth = [f"recall@{k}" for k in self.cutoffs]
        wanted_metrics = list(dict.fromkeys([*self.metrics, *at_depth, self.subgroup_metric]))
        deepest = max(int(name.partition("@")[2] or 0) for name in wanted_metrics)
        ranking = rank_part(score, self.split, "test", deepest)
        measured = evaluate(ranking, self.positives, wanted_metrics)
        parts = metrics_by_item_group(ranking, self.positives, self.item_subgroups, [self.subgroup_metric])
        parts |= metrics_by_user_group(measured, self.user_subgroups)
        subgroups = {name: part.values[self.subgroup_metric] for name, part in parts.items()}
        return SystemResult(
            values={name: measured.values[name] for name in self.metrics},
            recall={k: measured.mean(f"recall@{k}") for k in self.cutoffs},
            subgroups={name: values for name, values in subgroups.items() if not np.isnan(values).all()},
            ranking=ranking,
        )


def split_subgroups(split: Split) -> tuple[dict[str, Bools], dict[str, Bools]]:
    """Return subgroups of the items to be found and of the users, by name.

    Items by how often they were chosen in training, those that nobody chose by themselves; where hidden
    items are ranked among themselves, by how often they were chosen in the hidden part, for there is nothing
    else.

    Args:
        split: of the interactions.
    """
    hidden = len(split.cold_items) > 0 and not split.joint_ranking
    counted = split.matrix("test") if hidden else split.known("test")
    groups = popularity_groups(np.bincount(counted.indices, minlength=split.item_count))
    if hidden:
        groups.pop("cold")  # cold items that nobody chose are nobody's positives
    elif split.time is not None:
        groups["warm"] = ~groups["cold"]  # head, middle and tail together, beside what nobody chose by then
    what = "cold items" if hidden else "items"
    items = {f"{what}: {name}": mask for name, mask in groups.items()}
    users = {f"history: {name}": mask for name, mask in activity_groups(split.histories("test")).items()}
    return items, users


def modality_gaps(
    task: RecommenderTask, inputs: ModelInputs, contents: Mapping[str, Sequence[str]]
) -> dict[tuple[str, str], ModalityGap]:
    """Measure how far apart the vectors lie that items get from one content alone.

    Args:
        task: with the trained model.
        inputs: of all items.
        contents: content -> modalities that read it.
    """
    vectors, presence = {}, {}
    for content, content_vectors in contents.items():
        left = ablate(inputs, [name for name in inputs.modalities if name not in content_vectors])
        vectors[content] = item_vectors(task.model, left, task.head_name).float().cpu().numpy()
        # A table whose values training never met gives no token, and so no vector: absent all the same.
        presence[content] = np.isin(np.arange(len(inputs)), samples_with(inputs, content_vectors)) & vectors[
            content
        ].any(1)
    return modality_gap(vectors, presence) if len(vectors) > 1 else {}


def pick_example_users(
    result: SystemResult, split: Split, seed: int, n_random: int = 4, n_extreme: int = 3
) -> dict[str, Ints]:
    """Pick users to look at: the best and the worst served, and some sampled at random.

    Among equals, those with most to be found come first.

    Args:
        result: of our system.
        split: of the interactions.
        seed: of the sample.
        n_random: users sampled at random.
        n_extreme: best and worst served users, each.
    """
    right = split.matrix("test")
    count_U = np.diff(right.indptr)
    users = np.flatnonzero(count_U)
    value = next(iter(result.values.values()))[users]
    best = users[np.lexsort((-count_U[users], -value))][:n_extreme]
    worst = users[np.lexsort((-count_U[users], value))][:n_extreme]
    rest = np.setdiff1d(users, [*best, *worst])
    chosen = np.random.default_rng(seed).choice(rest, min(n_random, len(rest)), replace=False)
    return {"drawn": np.sort(chosen), "best": best, "worst": np.setdiff1d(worst, best)}
