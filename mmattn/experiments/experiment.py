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

from mmattn import attention
from mmattn.attention.language.biases import GraphBias
from mmattn.data.graph_neighbours import CONTENT, edges, with_neighbours
from mmattn.data.reader import read
from mmattn.encoders.base import Encoder
from mmattn.encoders.model_inputs import Inputs, gather
from mmattn.encoders.store.feature_store import write_rejected
from mmattn.errors import InputError
from mmattn.evaluation.splits.split import Part, Split
from mmattn.evaluation.splits.temporal import known_histories, moment
from mmattn.experiments.ablation import variants
from mmattn.experiments.baselines import RivalContent, fit_rival, tune_rivals
from mmattn.experiments.config import FitConfig
from mmattn.experiments.hybrid import choose_hybrid, fit_hybrid, user_profiles
from mmattn.experiments.index_cost import serve
from mmattn.experiments.protocol import Score, make_split, measure, part_sizes
from mmattn.experiments.runner import Clock, encoder_card, known_contents, open_folder
from mmattn.experiments.seed_result import SeedResult
from mmattn.experiments.system_evaluation import Examined, Examiner, examples, gaps
from mmattn.model.build import build_encoders, build_model, choose_device
from mmattn.reports.results import OURS
from mmattn.training.accelerator import processes
from mmattn.training.loop import History, train
from mmattn.training.tasks.recommendation import RecommendationTask
from mmattn.training.tasks.sequence import SequenceTask
from mmattn.training.tasks.with_alignment import with_alignment

__all__ = ["Experiment"]

log = logging.getLogger(__name__)
Trained = RecommendationTask | SequenceTask
_SHOWN = 8  # recommendations of a user in the report


class Experiment:
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
        self.folder = open_folder(config, resume)
        self.dataset = read(config.data.card, config.data.reject_limit).positives(config.data.positive_from)
        if CONTENT in config.sources.values():
            self.dataset = with_neighbours(self.dataset)
        self.device = choose_device()
        self.processes = processes()
        self.cards: dict[str, Any] = {}
        self.rejected = 0
        if not len(self.dataset.interactions):
            raise InputError(f"{config.data.card}: has no interactions, expected some to learn from")

    def run_seed(self, seed: int) -> SeedResult | None:
        """Everything for one seed, from the split to the numbers.

        Of several processes, the main one alone has a result; the others train along.
        """
        clock = Clock()
        split = make_split(self.dataset, self.config.protocol, seed)
        task, inputs = self._task(split, "validation", seed)
        clock.lap("features")
        history = self._train(task, seed)
        clock.lap("training")
        main = self.processes.is_main_process
        settings = self._choose_hybrid(task, split) if main else {}
        clock.lap("choice of the hybrid")
        if self.config.training.refit:
            task, inputs = self._task(split, "test", seed)
            self._train(task, seed, until=history.best_epoch)
            clock.lap("refit")
        elif isinstance(task, SequenceTask):
            task.reveal(known_histories(split, "test"), moment(split, "test"))
        else:  # nothing is learned any more, but histories may hold all that is known by the test
            task.interactions, task.items = split.known("test"), split.known_items("test")
        if not main:
            return None
        task.model.prune()  # heads whose gate training has closed; nothing that is measured changes
        wanted = self.config.evaluation
        examiner = Examiner(split, self.config.protocol, wanted.strata, wanted.strata_metric)
        ours = self._ours(task, settings)
        examined = {OURS: examiner.examine(ours())}
        clock.lap("test")
        rivals, chosen = self._rivals(examiner, inputs, seed)
        examined |= rivals
        clock.lap("rivals")
        knockouts = self._knockouts(ours, examiner, inputs, seed)
        clock.lap("knockouts")
        apart = gaps(task, inputs, self.config.contents)
        # Speed is this machine's and not the seed's: one seed says it.
        # A hybrid asks users too: vectors of items cannot stand for it.
        first = seed == self.config.protocol.seeds[0] and wanted.index > 0 and not settings
        metric = self.config.protocol.metrics[0]
        served = serve(task.recommender(), split, metric, wanted.index) if first else None
        clock.lap("gaps and index")
        shown = examples(examined[OURS], split, seed)
        top = examined[OURS].ranking.items[:, :_SHOWN]
        task.model.save_pretrained(self.folder / f"seed-{seed}" / "model")
        return SeedResult(
            seed=seed,
            values={name: one.values for name, one in examined.items()},
            knockouts=knockouts,
            history=history,
            parts=part_sizes(split),
            seconds=clock.laps,
            strata={
                stratum: {name: one.strata[stratum] for name, one in examined.items()}
                for stratum in examined[OURS].strata
            },
            recall={name: list(one.recall.values()) for name, one in examined.items()},
            depths=examiner.depths,
            gaps={" | ".join(pair): gap for pair, gap in apart.items()},
            served=served,
            shown=shown,
            top={why: top[users] for why, users in shown.items()},
            chosen=chosen,
            settings=settings,
        )

    def _task(self, split: Split, part: Part, seed: int) -> tuple[Trained, Inputs]:
        """What is trained when `part` is to be predicted: nothing else of the data has been seen."""
        config, known = self.config, split.known_items(part)
        torch.manual_seed(seed)  # of all that is drawn from here on, the encoders' first weights too
        with self.processes.main_process_first():  # it fills the feature store, the others read
            encoders, inputs = self._inputs(known)
        model = build_model(encoders, config.model)
        model.core.entry.calibrate(Inputs(inputs.tokens).select(torch.from_numpy(known), encoders))
        for term in attention.parse(config.fusion.program).walk():
            if isinstance(term, GraphBias):
                model.core.edges.hold(term.name, edges(self.dataset.graph))
        judge = partial(self._judge, split) if part == "validation" else _no_judge
        settings = config.training
        if config.head.name == "sequence":
            return SequenceTask(
                model.to(self.device), inputs, known_histories(split, part), judge,
                now=moment(split, part), steps=settings.steps, users=settings.users,
                drop_modality=settings.drop_modality,
            ), inputs  # fmt: skip
        task = RecommendationTask(
            model.to(self.device), inputs, split.known(part), known, judge,
            # In a hybrid, the head is what speaks for items that nobody chose yet.
            hide="items" if len(split.cold_items) or config.hybrid else "pairs",
            ids=bool(config.head.options.get("ids")),
            steps=settings.steps, users=settings.users, targets=settings.targets,
            history=settings.history, drop_modality=settings.drop_modality,
        )  # fmt: skip
        return task, inputs

    def _inputs(self, known: NDArray[np.int64]) -> tuple[dict[str, Encoder], Inputs]:
        """Encoders and what they give; vocabularies come from the known items only."""
        sources = self.config.sources
        encoders = build_encoders(self.config.encoders, known_contents(self.dataset.items, sources, known))
        inputs = gather(
            self.dataset.items, encoders, self.config.data.features, sources, progress=self.progress
        )
        write_rejected(self.folder / "rejected.csv", inputs.rejected)
        self.rejected = len(inputs.rejected)
        self.cards = {name: encoder_card(encoder) for name, encoder in encoders.items()}
        return encoders, inputs

    def _judge(self, split: Split, recommender: Any) -> dict[str, float]:
        """Validation figures: the only ones that any choice sees."""
        values = measure(recommender.score, split, "validation", self.config.protocol.metrics)
        return {name: float(np.nanmean(value)) for name, value in values.items()}

    def _train(self, task: Trained, seed: int, until: int = 0) -> History:
        settings, name = self.config.training, "refit" if until else "choose"
        trained = with_alignment(task, settings.alignment) if settings.alignment else task
        return train(
            trained, **settings.loop, until=until, seed=seed, folder=self.folder / f"seed-{seed}" / name,
            progress=self.progress, label=f"seed {seed}: {name}",
        )  # fmt: skip

    def _choose_hybrid(self, task: Trained, split: Split) -> dict[str, float]:
        """The settings of the hybrid, on validation; empty where none is asked for."""
        metric, config = self.config.protocol.metrics[0], self.config.hybrid
        if config is None or isinstance(task, SequenceTask):
            return {}
        return choose_hybrid(
            config, task.interactions, _content(task), task.items,
            lambda one: float(np.nanmean(measure(one.score, split, "validation", (metric,))[metric])),
            user_profiles(self.dataset.users),
        )  # fmt: skip

    def _ours(self, task: Trained, settings: dict[str, float]) -> Callable[..., Score]:
        """Our system's scores, from the items' inputs: the task's own, or others where something is taken
        away. The parts of a hybrid that know nothing of content are fitted once."""
        if self.config.hybrid is None or isinstance(task, SequenceTask):
            return lambda inputs=None: task.recommender(inputs).score
        profiles = user_profiles(self.dataset.users)
        whole = fit_hybrid(settings, task.interactions, None, task.items, profiles, self.config.hybrid.most)
        return lambda inputs=None: whole.with_content(_content(task, inputs)).score

    def _knockouts(
        self, ours: Callable[..., Score], examiner: Examiner, inputs: Inputs, seed: int
    ) -> dict[str, dict[str, NDArray[np.float64]]]:
        """Our system again with something taken away: the model as it is, the stored features as they are."""
        wanted = self.config.evaluation
        taken = variants(
            inputs, self.config.contents, wanted.knockouts,
            encoders=wanted.encoders, every_subset=wanted.subsets, seed=seed,
        )  # fmt: skip
        bar = tqdm(taken, desc=f"seed {seed}: knockouts", disable=not self.progress, leave=False)
        return {name: examiner.values(ours(left)) for name, left in bar}

    def _rivals(
        self, examiner: Examiner, inputs: Inputs, seed: int
    ) -> tuple[dict[str, Examined], dict[str, Mapping[str, Any]]]:
        """Rivals at the test, and the settings that validation chose for each of them."""
        content = RivalContent(self.dataset.items, inputs, self.dataset.interactions)
        split, protocol, configs = examiner.split, self.config.protocol, self.config.rivals
        chosen: dict[str, Mapping[str, Any]] = {}
        if protocol.budget:
            configs, tuning = tune_rivals(
                configs, content, split,
                metric=protocol.metrics[0], trials=protocol.budget, seed=seed, device=self.device,
            )  # fmt: skip
            tuning.save(self.folder / f"seed-{seed}" / "rivals.json")
            chosen = {name: found.parameters for name, found in tuning.systems.items()}
        examined = {}
        for name, config in configs.items():
            fitted = fit_rival(
                config, content, split.known("test"), split.known_items("test"),
                seed=seed, device=self.device,
            )  # fmt: skip
            examined[name] = examiner.examine(fitted.score)
        return examined, chosen


def _content(task: RecommendationTask, inputs: Inputs | None = None) -> NDArray[np.float32]:
    """[known, I] what the trained head says that each known item says of every item."""
    recommender = task.recommender(inputs)
    return recommender.weights(np.arange(len(task.inputs))).cpu().numpy()


def _no_judge(recommender: Any) -> dict[str, float]:
    """Nothing is held out any more: no figures, the last epoch is kept."""
    return {}
