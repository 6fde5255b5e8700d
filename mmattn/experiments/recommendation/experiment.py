"""The experiment of a recommender: encode, split, train, score, baselines, ablations."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from mmattn.array_types import Floats
from mmattn.attention.language.biases import GraphBias
from mmattn.attention.language.program import parse
from mmattn.data.graph_neighbours import GRAPH_CONTENT, bidirectional_edges, with_neighbours
from mmattn.data.reader import read_dataset
from mmattn.encoders.model_inputs import ModelInputs
from mmattn.errors import InputError, PluginError
from mmattn.evaluation.splits.split import Part, Split
from mmattn.experiments.ablation import ablations
from mmattn.experiments.experiment import Experiment, Stopwatch, encoder_summaries
from mmattn.experiments.recommendation.baselines import BaselineContent, fit_baseline, tune_baselines
from mmattn.experiments.recommendation.hybrid import fit_hybrid, tune_hybrid, user_profiles
from mmattn.experiments.recommendation.index_cost import measure_index_cost
from mmattn.experiments.recommendation.protocol import (
    ScoreFn,
    check_baselines,
    make_split,
    part_sizes,
    per_user_metrics,
)
from mmattn.experiments.recommendation.summary import summarize_recommender
from mmattn.experiments.recommendation.system_evaluation import (
    SystemEvaluator,
    SystemResult,
    modality_gaps,
    pick_example_users,
)
from mmattn.experiments.seed_result import RankingResult, SeedResult
from mmattn.model.model import Model
from mmattn.registry import heads as head_registry
from mmattn.reports.results import OURS, Report
from mmattn.serving.build_service import build_service
from mmattn.serving.run_encoder import RunEncoder
from mmattn.serving.service import INDEX_FOLDER
from mmattn.training.loop import History
from mmattn.training.tasks.recommender import KnownInteractions, RecommenderTask
from mmattn.training.tasks.with_alignment import with_alignment

__all__ = ["RecommendationExperiment"]

log = logging.getLogger(__name__)
_NUM_SHOWN = 8  # recommendations of a user in the report


class RecommendationExperiment(Experiment):
    """A head that learns from interactions, measured on users beside baselines.

    Attributes:
        dataset: items, users and interactions.
        task_type: the task that trains the head.
    """

    def read_data(self) -> None:
        config = self.config
        self.task_type = _task_type(config.head.name)
        if config.hybrid is not None and not self.task_type.linear_in_history:
            raise InputError(
                "hybrid: is built around a head whose scores are linear in the history, such as "
                f"recommendation; got head.name: {config.head.name}"
            )
        check_baselines(config.protocol, config.baselines)
        card = config.card_path()
        dataset = read_dataset(card, config.data.reject_limit).with_min_rating(config.data.min_rating)
        if GRAPH_CONTENT in config.sources.values():
            dataset = with_neighbours(dataset)
        if not len(dataset.interactions):
            raise InputError(f"{card}: has no interactions, expected some to learn from")
        self.dataset = dataset
        # The first seed's model and inputs, from which the service is built; None if it was trained before.
        self._first_trained: tuple[Model, ModelInputs] | None = None

    def run_seed(self, seed: int) -> SeedResult | None:
        clock, wanted = Stopwatch(), self.config.evaluation
        split = make_split(self.dataset, self.config.protocol, seed)
        task, inputs = self._build_task(split, "validation", seed)
        clock.mark("features")
        history = self._train(task, seed, "choose")
        clock.mark("training")
        is_main = self.processes.is_main_process
        settings = self._tune_hybrid(task, split) if is_main and self.config.hybrid is not None else {}
        clock.mark("hybrid settings")
        if self.config.training.refit:
            task, inputs = self._build_task(split, "test", seed)
            self._train(task, seed, "refit", stop_after_epoch=history.best_epoch)
            clock.mark("refit")
        else:  # nothing more is learned, but histories may hold all that is known by the test
            task.set_known(self._known(split, "test"))
        if not is_main:
            return None
        task.model.prune()  # heads whose gate training has closed; the outputs do not change
        evaluator = SystemEvaluator(split, self.config.protocol, wanted.subgroups, wanted.subgroup_metric)
        build_score = self._score_builder(task, settings, split)
        systems = {OURS: evaluator.evaluate_scores(build_score())}
        clock.mark("test")
        baselines, baseline_settings = self._run_baselines(evaluator, inputs, seed)
        systems |= baselines
        clock.mark("baselines")
        ablated = self._run_ablations(build_score, evaluator, inputs, seed)
        clock.mark("ablations")
        gaps = modality_gaps(task, inputs, self.config.modalities_by_source())
        is_first = seed == self.config.protocol.seeds[0]
        # Latency does not depend on the seed: measure it once. A hybrid has no vectors of items.
        cost = None
        if is_first and wanted.index_dim > 0 and not settings:
            metric = self.config.protocol.metrics[0]
            cost = measure_index_cost(task.recommender(), split, metric, wanted.index_dim)
        clock.mark("gaps and index")
        task.model.save_pretrained(self.seed_folder(seed) / "model")
        if is_first:
            self._first_trained = task.model, inputs
        shown = pick_example_users(systems[OURS], split, seed)
        top = systems[OURS].ranking.items[:, :_NUM_SHOWN]
        ranking = RankingResult(
            values={name: system.values for name, system in systems.items()},
            ablations=ablated,
            subgroups={
                group: {name: system.subgroups[group] for name, system in systems.items()}
                for group in systems[OURS].subgroups
            },
            recall_at_cutoffs={name: list(system.recall.values()) for name, system in systems.items()},
            cutoffs=evaluator.cutoffs,
            modality_gaps={" | ".join(pair): gap for pair, gap in gaps.items()},
            index_cost=cost,
            example_users=shown,
            example_items={why: top[users] for why, users in shown.items()},
            baseline_settings=baseline_settings,
            hybrid_settings=settings,
        )
        return SeedResult(
            seed, history, clock.seconds, part_sizes(split),
            encoders=encoder_summaries(task.model.encoders), num_rejected=len(inputs.rejected),
            ranking=ranking,
        )  # fmt: skip

    def report(self, results: Sequence[SeedResult]) -> Report:
        return summarize_recommender(self.config, self.dataset, results, self.device)

    def finish(self) -> None:
        """Build the service from the first seed's model, which is read from the disk only after a resume."""
        # The index of a finished run may hold items that came later.
        if (self.folder / INDEX_FOLDER / "manifest.json").is_file():
            return
        seed, head = self.config.protocol.seeds[0], self.config.head.name
        folder = self.seed_folder(seed) / "model"
        if self._first_trained is None:
            encoder = RunEncoder(folder, head)
            inputs = encoder.read_inputs(
                self.dataset.items, self.config.data.features, progress=self.progress
            )
        else:
            model, inputs = self._first_trained
            encoder = RunEncoder(folder, head, model)
        build_service(self.folder, self.dataset, encoder, inputs, seed=seed)

    # --- training -------------------------------------------------------------------------------

    def _known(self, split: Split, part: Part) -> KnownInteractions:
        # In a hybrid, the head is responsible for items without interactions.
        rank_new_items = len(split.cold_items) > 0 or self.config.hybrid is not None
        return KnownInteractions(split, part, self.dataset.interactions.value, rank_new_items)

    def _build_task(self, split: Split, part: Part, seed: int) -> tuple[RecommenderTask, ModelInputs]:
        """The task when `part` is to be predicted: it has seen nothing else of the data."""
        known = self._known(split, part)
        torch.manual_seed(seed)  # of everything random from here on, the encoders' first weights included
        with self.processes.main_process_first():  # it fills the feature store, the others read
            encoders = self.build_encoders(self.dataset.items, known.items)
            inputs = self.prepare_inputs(self.dataset.items, encoders)
        model = self.build_model(self.config.model_config(), encoders, inputs, known.items)
        for term in parse(self.config.fusion.program).walk():
            if isinstance(term, GraphBias):
                model.core.edges.register_edges(term.name, bidirectional_edges(self.dataset.graph))
        validate = partial(self._validation_metrics, split) if part == "validation" else _no_validation
        task = self.task_type.from_interactions(
            model, inputs, known, validate, head=self.config.head.name, config=self.config.training
        )
        return task, inputs

    def _validation_metrics(self, split: Split, recommender: Any) -> dict[str, float]:
        """The only metrics that any choice sees."""
        values = per_user_metrics(recommender.score, split, "validation", self.config.protocol.metrics)
        return {name: float(np.nanmean(value)) for name, value in values.items()}

    def _train(self, task: RecommenderTask, seed: int, name: str, stop_after_epoch: int = 0) -> History:
        weight = self.config.training.alignment
        return self.train(with_alignment(task, weight) if weight else task, seed, name, stop_after_epoch)

    # --- the finished systems -------------------------------------------------------------------

    def _tune_hybrid(self, task: RecommenderTask, split: Split) -> dict[str, float]:
        """Select the settings of the hybrid on validation."""
        assert self.config.hybrid is not None
        metric = self.config.protocol.metrics[0]

        def validate(recommender: Any) -> float:
            values = per_user_metrics(recommender.score, split, "validation", (metric,))
            return float(np.nanmean(values[metric]))

        return tune_hybrid(
            self.config.hybrid, split.known("validation"), task.item_weights(), task.items, validate,
            user_profiles(self.dataset.users),
        )  # fmt: skip

    def _score_builder(
        self, task: RecommenderTask, settings: dict[str, float], split: Split
    ) -> Callable[..., ScoreFn]:
        """Return a function from the items' inputs to our system's scores, for ablations.

        The parts of a hybrid that do not depend on content are fitted once.
        """
        if self.config.hybrid is None:
            return lambda inputs=None: task.recommender(inputs).score
        whole = fit_hybrid(
            settings, split.known("test"), None, task.items, user_profiles(self.dataset.users),
            self.config.hybrid.max_users,
        )  # fmt: skip
        return lambda inputs=None: whole.with_content(task.item_weights(inputs)).score

    def _run_ablations(
        self,
        build_score: Callable[..., ScoreFn],
        evaluator: SystemEvaluator,
        inputs: ModelInputs,
        seed: int,
    ) -> dict[str, dict[str, Floats]]:
        """Evaluate our system with something taken away: the same weights, the same stored features."""
        wanted = self.config.evaluation
        variants = ablations(
            inputs, self.config.modalities_by_source(), wanted.ablations,
            include_encoders=wanted.ablate_encoders, include_subsets=wanted.subsets, seed=seed,
        )  # fmt: skip
        bar = tqdm(variants, desc=f"seed {seed}: ablations", disable=not self.progress, leave=False)
        return {name: dict(evaluator.per_user_metrics(build_score(changed))) for name, changed in bar}

    def _run_baselines(
        self, evaluator: SystemEvaluator, inputs: ModelInputs, seed: int
    ) -> tuple[dict[str, SystemResult], dict[str, Mapping[str, Any]]]:
        """Evaluate the baselines at the test; return the settings that validation selected, too."""
        content = BaselineContent(self.dataset.items, inputs, self.dataset.interactions)
        split, protocol, configs = evaluator.split, self.config.protocol, self.config.baselines
        settings: dict[str, Mapping[str, Any]] = {}
        if protocol.tuning_trials:
            configs, tuning = tune_baselines(
                configs, content, split,
                metric=protocol.metrics[0], trials=protocol.tuning_trials, seed=seed, device=self.device,
            )  # fmt: skip
            tuning.save(self.seed_folder(seed) / "baselines.json")
            settings = {name: system.parameters for name, system in tuning.systems.items()}
        results = {}
        for name, config in configs.items():
            fitted = fit_baseline(
                config, content, split.known("test"), split.known_items("test"),
                histories=split.histories("test") if len(split.cold_users) else None,
                seed=seed, device=self.device,
            )  # fmt: skip
            results[name] = evaluator.evaluate_scores(fitted.score)
        return results, settings


def _task_type(head: str) -> type[RecommenderTask]:
    """The task that trains a head on interactions.

    Raises:
        InputError: no such head, or one that does not learn from interactions.
    """
    try:
        result = head_registry.load(head)
    except PluginError as error:
        raise InputError(f"head.name: {error}") from error
    task = result.task() if callable(getattr(result, "task", None)) else None
    if not (isinstance(task, type) and issubclass(task, RecommenderTask)):
        raise InputError(
            f"head.name: {head!r} does not learn from interactions, so it needs a target: name it in `tasks`"
        )
    return task


def _no_validation(recommender: Any) -> dict[str, float]:
    """Nothing is held out any more: no metrics, the last epoch is kept."""
    return {}
