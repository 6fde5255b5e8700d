"""One honest run of the main job, seed by seed: encode, split, train, score, rivals, knockouts.

Everything is chosen on validation; the test part is scored once, by the finished systems. A run
that was killed goes on where it stopped: finished seeds are kept, an unfinished one resumes from its
last epoch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from mmattn.attention.language.biases import GraphBias
from mmattn.attention.language.program import parse
from mmattn.data.graph_neighbours import GRAPH_CONTENT, bidirectional_edges, with_neighbours
from mmattn.data.reader import read_dataset
from mmattn.encoders.base import Encoder
from mmattn.encoders.model_inputs import ModelInputs, prepare_inputs
from mmattn.encoders.store.rejected_content import write_rejected
from mmattn.errors import InputError
from mmattn.evaluation.splits.split import Part, Split
from mmattn.evaluation.splits.temporal import known_histories, part_start
from mmattn.experiments.ablation import ablations
from mmattn.experiments.baselines import BaselineContent, fit_baseline, tune_baselines
from mmattn.experiments.config import FitConfig
from mmattn.experiments.hybrid import fit_hybrid, tune_hybrid, user_profiles
from mmattn.experiments.index_cost import measure_index_cost
from mmattn.experiments.protocol import ScoreFn, make_split, part_sizes, per_user_metrics
from mmattn.experiments.runner import Stopwatch, encoder_card, known_contents, open_run_folder
from mmattn.experiments.seed_result import SeedResult
from mmattn.experiments.system_evaluation import (
    SystemEvaluator,
    SystemResult,
    modality_gaps,
    pick_example_users,
)
from mmattn.model.build import build_encoders, build_model, choose_device
from mmattn.model.model import Model
from mmattn.reports.results import OURS
from mmattn.training.accelerator import distributed_state
from mmattn.training.loop import History, train
from mmattn.training.tasks.recommendation import RecommendationTask
from mmattn.training.tasks.sequence import SequenceTask
from mmattn.training.tasks.with_alignment import with_alignment

__all__ = ["RecommendationExperiment"]

log = logging.getLogger(__name__)
RecommenderTask = RecommendationTask | SequenceTask
_NUM_SHOWN = 8  # recommendations of a user in the report


class RecommendationExperiment:
    """A configured run: the data set, its features, and a folder for what comes out.

    Args:
        config: everything `mmattn fit` was told.
        resume: go on in a folder that exists.
        progress: show bars.

    Raises:
        InputError: the run's folder exists and `resume` is False, or holds a run of other settings.
    """

    def __init__(self, config: FitConfig, *, resume: bool = False, progress: bool = True):
        if config.hybrid is not None and config.head.name == "sequence":
            raise InputError("hybrid: is built around a recommendation head, got head.name: sequence")
        self.config = config
        self.progress = progress
        self.folder = open_run_folder(config, resume)
        self.dataset = read_dataset(config.data.card, config.data.reject_limit).with_min_rating(
            config.data.min_rating
        )
        if GRAPH_CONTENT in config.sources.values():
            self.dataset = with_neighbours(self.dataset)
        self.device = choose_device()
        self.processes = distributed_state()
        self.cards: dict[str, Any] = {}
        self.rejected = 0
        # The first seed's model and inputs, from which the service is built; None if it was trained before.
        self.first_trained: tuple[Model, ModelInputs] | None = None
        if not len(self.dataset.interactions):
            raise InputError(f"{config.data.card}: has no interactions, expected some to learn from")

    def run_seed(self, seed: int) -> SeedResult | None:
        """Everything for one seed, from the split to the numbers.

        Of several processes, the main one alone has a result; the others train along.
        """
        clock = Stopwatch()
        split = make_split(self.dataset, self.config.protocol, seed)
        task, inputs = self._build_task(split, "validation", seed)
        clock.mark("features")
        history = self._train(task, seed)
        clock.mark("training")
        main = self.processes.is_main_process
        settings = self._tune_hybrid(task, split) if main else {}
        clock.mark("choice of the hybrid")
        if self.config.training.refit:
            task, inputs = self._build_task(split, "test", seed)
            self._train(task, seed, until=history.best_epoch)
            clock.mark("refit")
        elif isinstance(task, SequenceTask):
            task.set_test_histories(known_histories(split, "test"), part_start(split, "test"))
        else:  # nothing is learned any more, but histories may hold all that is known by the test
            task.interactions, task.items = split.known("test"), split.known_items("test")
        if not main:
            return None
        task.model.prune()  # heads whose gate training has closed; nothing that is measured changes
        wanted = self.config.evaluation
        examiner = SystemEvaluator(split, self.config.protocol, wanted.subgroups, wanted.subgroup_metric)
        ours = self._score_builder(task, settings)
        examined = {OURS: examiner.evaluate_scores(ours())}
        clock.mark("test")
        rivals, chosen = self._run_baselines(examiner, inputs, seed)
        examined |= rivals
        clock.mark("rivals")
        knockouts = self._run_ablations(ours, examiner, inputs, seed)
        clock.mark("knockouts")
        apart = modality_gaps(task, inputs, self.config.modalities_by_source)
        # Speed is this machine's and not the seed's: one seed says it.
        # A hybrid asks users too: vectors of items cannot stand for it.
        first = seed == self.config.protocol.seeds[0] and wanted.index_dim > 0 and not settings
        metric = self.config.protocol.metrics[0]
        served = measure_index_cost(task.recommender(), split, metric, wanted.index_dim) if first else None
        clock.mark("gaps and index")
        shown = pick_example_users(examined[OURS], split, seed)
        top = examined[OURS].ranking.items[:, :_NUM_SHOWN]
        task.model.save_pretrained(self.folder / f"seed-{seed}" / "model")
        if seed == self.config.protocol.seeds[0]:
            self.first_trained = task.model, inputs
        return SeedResult(
            seed=seed,
            values={name: one.values for name, one in examined.items()},
            ablations=knockouts,
            history=history,
            part_sizes=part_sizes(split),
            seconds=clock.seconds,
            subgroups={
                stratum: {name: one.subgroups[stratum] for name, one in examined.items()}
                for stratum in examined[OURS].subgroups
            },
            recall_at_cutoffs={name: list(one.recall.values()) for name, one in examined.items()},
            cutoffs=examiner.cutoffs,
            modality_gaps={" | ".join(pair): gap for pair, gap in apart.items()},
            index_cost=served,
            example_users=shown,
            example_items={why: top[users] for why, users in shown.items()},
            baseline_settings=chosen,
            hybrid_settings=settings,
        )

    def _build_task(self, split: Split, part: Part, seed: int) -> tuple[RecommenderTask, ModelInputs]:
        """What is trained when `part` is to be predicted: nothing else of the data has been seen."""
        config, known = self.config, split.known_items(part)
        torch.manual_seed(seed)  # of all that is drawn from here on, the encoders' first weights too
        with self.processes.main_process_first():  # it fills the feature store, the others read
            encoders, inputs = self._prepare_inputs(known)
        model = build_model(encoders, config.model_config)
        model.core.input_projection.calibrate(
            ModelInputs(inputs.tokens).select_tokens(torch.from_numpy(known), encoders)
        )
        for term in parse(config.fusion.program).walk():
            if isinstance(term, GraphBias):
                model.core.edges.register_edges(term.name, bidirectional_edges(self.dataset.graph))
        judge = partial(self._validation_metrics, split) if part == "validation" else _no_validation
        settings = config.training
        if config.head.name == "sequence":
            return SequenceTask(
                model.to(self.device), inputs, known_histories(split, part), judge,
                query_time=part_start(split, part), steps_per_epoch=settings.steps_per_epoch,
                users_per_batch=settings.users_per_batch,
                drop_modality=settings.drop_modality,
            ), inputs  # fmt: skip
        task = RecommendationTask(
            model.to(self.device), inputs, split.known(part), known, judge,
            # In a hybrid, the head is what speaks for items that nobody chose yet.
            hide="items" if len(split.cold_items) or config.hybrid else "pairs",
            use_item_embeddings=bool(config.head.options.get("ids")),
            steps_per_epoch=settings.steps_per_epoch, users_per_batch=settings.users_per_batch,
            candidate_fraction=settings.candidate_fraction,
            history_fraction=settings.history_fraction, drop_modality=settings.drop_modality,
        )  # fmt: skip
        return task, inputs

    def _prepare_inputs(self, known: NDArray[np.int64]) -> tuple[dict[str, Encoder], ModelInputs]:
        """Encoders and what they give; vocabularies come from the known items only."""
        sources = self.config.sources
        encoders = build_encoders(self.config.encoders, known_contents(self.dataset.items, sources, known))
        inputs = prepare_inputs(
            self.dataset.items, encoders, self.config.data.features, sources, progress=self.progress
        )
        write_rejected(self.folder / "rejected.csv", inputs.rejected)
        self.rejected = len(inputs.rejected)
        self.cards = {name: encoder_card(encoder) for name, encoder in encoders.items()}
        return encoders, inputs

    def _validation_metrics(self, split: Split, recommender: Any) -> dict[str, float]:
        """Validation figures: the only ones that any choice sees."""
        values = per_user_metrics(recommender.score, split, "validation", self.config.protocol.metrics)
        return {name: float(np.nanmean(value)) for name, value in values.items()}

    def _train(self, task: RecommenderTask, seed: int, until: int = 0) -> History:
        settings, name = self.config.training, "refit" if until else "choose"
        trained = with_alignment(task, settings.alignment) if settings.alignment else task
        return train(
            trained, settings, stop_after_epoch=until, seed=seed,
            folder=self.folder / f"seed-{seed}" / name,
            progress=self.progress, run_name=f"seed {seed}: {name}",
        )  # fmt: skip

    def _tune_hybrid(self, task: RecommenderTask, split: Split) -> dict[str, float]:
        """The settings of the hybrid, on validation; empty where none is asked for."""
        metric, config = self.config.protocol.metrics[0], self.config.hybrid
        if config is None or isinstance(task, SequenceTask):
            return {}
        return tune_hybrid(
            config, task.interactions, _content_weights(task), task.items,
            lambda one: float(np.nanmean(per_user_metrics(one.score, split, "validation",
            (metric,))[metric])),
            user_profiles(self.dataset.users),
        )  # fmt: skip

    def _score_builder(self, task: RecommenderTask, settings: dict[str, float]) -> Callable[..., ScoreFn]:
        """Our system's scores, from the items' inputs: the task's own, or others where something is taken
        away. The parts of a hybrid that know nothing of content are fitted once."""
        if self.config.hybrid is None or isinstance(task, SequenceTask):
            return lambda inputs=None: task.recommender(inputs).score
        profiles = user_profiles(self.dataset.users)
        whole = fit_hybrid(
            settings, task.interactions, None, task.items, profiles, self.config.hybrid.max_users
        )
        return lambda inputs=None: whole.with_content(_content_weights(task, inputs)).score

    def _run_ablations(
        self,
        score_builder: Callable[..., ScoreFn],
        evaluator: SystemEvaluator,
        inputs: ModelInputs,
        seed: int,
    ) -> dict[str, dict[str, NDArray[np.float64]]]:
        """Our system again with something taken away: the model as it is, the stored features as they are."""
        wanted = self.config.evaluation
        taken = ablations(
            inputs, self.config.modalities_by_source, wanted.ablations,
            include_encoders=wanted.ablate_encoders, include_subsets=wanted.subsets, seed=seed,
        )  # fmt: skip
        bar = tqdm(taken, desc=f"seed {seed}: knockouts", disable=not self.progress, leave=False)
        return {name: evaluator.per_user_metrics(score_builder(left)) for name, left in bar}

    def _run_baselines(
        self, evaluator: SystemEvaluator, inputs: ModelInputs, seed: int
    ) -> tuple[dict[str, SystemResult], dict[str, Mapping[str, Any]]]:
        """Rivals at the test, and the settings that validation chose for each of them."""
        content = BaselineContent(self.dataset.items, inputs, self.dataset.interactions)
        split, protocol, configs = evaluator.split, self.config.protocol, self.config.baselines
        chosen: dict[str, Mapping[str, Any]] = {}
        if protocol.tuning_trials:
            configs, tuning = tune_baselines(
                configs, content, split,
                metric=protocol.metrics[0], trials=protocol.tuning_trials, seed=seed, device=self.device,
            )  # fmt: skip
            tuning.save(self.folder / f"seed-{seed}" / "baselines.json")
            chosen = {name: found.parameters for name, found in tuning.systems.items()}
        examined = {}
        for name, config in configs.items():
            fitted = fit_baseline(
                config, content, split.known("test"), split.known_items("test"),
                seed=seed, device=self.device,
            )  # fmt: skip
            examined[name] = evaluator.evaluate_scores(fitted.score)
        return examined, chosen


def _content_weights(task: RecommendationTask, inputs: ModelInputs | None = None) -> NDArray[np.float32]:
    """[known, I] what the trained head says that each known item says of every item."""
    recommender = task.recommender(inputs)
    return recommender.weights(np.arange(len(task.inputs))).cpu().numpy()


def _no_validation(recommender: Any) -> dict[str, float]:
    """Nothing is held out any more: no figures, the last epoch is kept."""
    return {}
