"""One honest run of heads that learn from targets, seed by seed: train together, alone, score, disturb.

Everything is chosen on validation; the test part is scored once, by the finished models. A run that was
killed goes on where it stopped: finished seeds are kept, an unfinished one resumes from its last epoch.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from mmattn.array_types import Ints
from mmattn.config import HeadConfig
from mmattn.encoders.base import Encoder
from mmattn.encoders.model_inputs import ModelInputs, prepare_inputs
from mmattn.encoders.store.rejected_content import write_rejected
from mmattn.errors import InputError
from mmattn.experiments.ablation import ablations
from mmattn.experiments.robustness import evaluate_under_attack, evaluate_under_noise
from mmattn.experiments.runner import Stopwatch, encoder_card, known_contents, open_run_folder
from mmattn.experiments.tasks.config import AdversarialConfig, TaskFitConfig
from mmattn.experiments.tasks.data import TaskData, read_task_data
from mmattn.experiments.tasks.seed import FULL, SINGLE_TASK, TaskSeedResult
from mmattn.model.build import build_encoders, build_model, choose_device
from mmattn.model.model import Model
from mmattn.registry import heads as head_registry
from mmattn.training.accelerator import distributed_state
from mmattn.training.augmentation.augment import build_augment
from mmattn.training.loop import History, train
from mmattn.training.tasks.adversarial import FGM, PGD
from mmattn.training.tasks.multitask import MultiTask
from mmattn.training.tasks.supervised import Perturb, SupervisedTask
from mmattn.training.tasks.task_weighting import FixedWeights, TaskWeighting, build_weighting

__all__ = ["TaskExperiment"]

log = logging.getLogger(__name__)
Parts = Mapping[str, Mapping[str, Ints]]  # task -> part -> rows


class TaskExperiment:
    """A configured run: the items of all tasks, and a folder for what comes out.

    Args:
        config: everything `mmattn fit` was told.
        resume: go on in a folder that exists.
        progress: show bars.

    Raises:
        InputError: tasks that do not fit their cards, a folder that exists and `resume` is False, or one that
            holds a run of other settings.
    """

    def __init__(self, config: TaskFitConfig, *, resume: bool = False, progress: bool = True):
        self.config = config
        self.progress = progress
        build_weighting(config.weighting, tuple(config.tasks))  # a mistake is said before anything is made
        self.data = read_task_data(config)
        self.folder = open_run_folder(config, resume)
        self.device = choose_device()
        self.distributed_state = distributed_state()
        self.cards: dict[str, Any] = {}
        self.rejected = 0

    @property
    def tasks(self) -> Mapping[str, TaskData]:
        """Name -> what a task learns from."""
        return self.data.tasks

    def run_seed(self, seed: int) -> TaskSeedResult | None:
        """Everything for one seed, from the first weights to the numbers.

        Of several processes, the main one alone has a result; the others train along.
        """
        clock = Stopwatch()
        parts = {
            name: task.seed_split(seed, self.config.protocol.validation) for name, task in self.tasks.items()
        }
        with self.distributed_state.main_process_first():  # it fills the feature store, the others read
            encoders, inputs = self._prepare_inputs(parts, seed)
        clock.mark("features")
        together = self._build_task(tuple(self.tasks), encoders, inputs, parts, seed)
        history = self._train(together, seed, "together")
        clock.mark("training")
        alone: dict[str, list[Any]] = {}
        histories: dict[str, History] = {}
        for name in self.tasks if len(self.tasks) > 1 and self.config.single_task_baselines else ():
            single = self._build_task((name,), self._encoders(parts, seed), inputs, parts, seed)
            histories[name] = self._train(single, seed, f"alone-{name}")
            alone[name] = self._predict(single, name, parts[name]["test"])
            clock.mark(f"training {name} alone")
        if not self.distributed_state.is_main_process:
            return None
        said = {name: self._predict(together, name, parts[name]["test"]) for name in self.tasks}
        clock.mark("test")
        counts: dict[str, dict[str, NDArray[np.float64]]] = {}
        for name, task in self.tasks.items():
            true = task.part_targets("test")
            counts[name] = {FULL: task.metrics.counts(said[name], true)}
            if name in alone:
                counts[name][SINGLE_TASK] = task.metrics.counts(alone[name], true)
            bar = tqdm(
                self._perturbed_counts(together, name, seed), desc=f"seed {seed}: {name}, disturbed",
                disable=not self.progress, leave=False,
            )  # fmt: skip
            counts[name] |= dict(bar)
        clock.mark("knockouts and noise")
        cast(Model, together.model).save_pretrained(self.folder / f"seed-{seed}" / "model")
        return TaskSeedResult(
            seed=seed,
            counts=counts,
            predictions=said,
            history=history,
            single_task_histories=histories,
            seconds=clock.seconds,
            parts={name: {part: len(rows) for part, rows in own.items()} for name, own in parts.items()},
        )

    # --- what goes in ---------------------------------------------------------------------------

    def _encoders(self, parts: Parts, seed: int) -> dict[str, Encoder]:
        """New ones; vocabularies come from the training items only."""
        torch.manual_seed(seed)
        known = chain.from_iterable(own["train"] for own in parts.values())
        contents = known_contents(self.data.samples, self.config.sources, known)
        return build_encoders(self.config.encoders, contents)

    def _prepare_inputs(self, parts: Parts, seed: int) -> tuple[dict[str, Encoder], ModelInputs]:
        """Encoders, and what all items are to them: stored tokens, or contents that are read once."""
        encoders, config = self._encoders(parts, seed), self.config
        inputs = prepare_inputs(
            self.data.samples, encoders, config.data.features, config.sources, progress=self.progress
        )
        write_rejected(self.folder / "rejected.csv", inputs.rejected)
        self.rejected = len(inputs.rejected)
        self.cards = {name: encoder_card(encoder) for name, encoder in encoders.items()}
        return encoders, inputs

    # --- training -------------------------------------------------------------------------------

    def _build_task(
        self,
        names: Sequence[str],
        encoders: Mapping[str, Encoder],
        inputs: ModelInputs,
        parts: Parts,
        seed: int,
    ) -> MultiTask:
        """A new model with a head for each of the tasks, and its training."""
        torch.manual_seed(seed)
        heads = {name: self._head_config(self.tasks[name], parts[name]["train"]) for name in names}
        model = build_model(encoders, self.config.model_config(heads))
        learned = np.unique(np.concatenate([parts[name]["train"] for name in names]))
        model.core.input_projection.calibrate(
            ModelInputs(inputs.tokens).select_tokens(torch.from_numpy(learned), encoders)
        )
        model = model.to(self.device)
        tasks = {
            name: self._build_single_task(self.tasks[name], model, inputs, parts[name]["train"])
            for name in names
        }
        # Alone or together, a task takes as many steps: those of the largest task of the run.
        steps = self.config.training.steps_per_epoch or max(
            -(-len(parts[name]["train"]) // task.config.batch_size) for name, task in self.tasks.items()
        )
        together = MultiTask(tasks, self._build_weighting(names), steps_per_epoch=steps)
        together.validate_fn = partial(self._validation_metrics, together, parts)
        return together

    def _head_config(self, task: TaskData, rows: Ints) -> HeadConfig:
        """The head with what follows from the training targets; what the file says comes before that.

        Options of the file may also say how something follows, the unit of a vocabulary, for example.
        """
        config = task.config.head
        head = head_registry.load(config.name)
        asked, taken = (inspect.signature(one).parameters for one in (head.options_for, head))
        how = {name: value for name, value in config.options.items() if name in asked}
        found = head.options_for([task.targets[row] for row in rows], **how)
        own = {name: value for name, value in config.options.items() if name in taken or name not in asked}
        return HeadConfig(config.name, {**found, **own})

    def _build_single_task(
        self, task: TaskData, model: Model, inputs: ModelInputs, rows: Ints
    ) -> SupervisedTask:
        config = task.config
        return SupervisedTask(
            model, _select_modalities(inputs, task.inputs), task.targets, rows, head=task.name,
            batch_size=config.batch_size,
            drop_modality=config.drop_modality, augment=build_augment(model.encoders, config.augment),
            perturb=_build_perturb(config.adversarial),
            context={"task": task.name} if model.core.task_embeddings else None,
        )  # fmt: skip

    def _build_weighting(self, names: Sequence[str]) -> TaskWeighting:
        if self.config.weighting == "fixed" and len(names) > 1:
            return FixedWeights({name: self.tasks[name].config.weight for name in names})
        return build_weighting(self.config.weighting if len(names) > 1 else "fixed", names)

    def _train(self, task: MultiTask, seed: int, name: str) -> History:
        history = train(
            task, self.config.training, seed=seed, folder=self.folder / f"seed-{seed}" / name,
            progress=self.progress, run_name=f"seed {seed}: {name}",
        )  # fmt: skip
        cast(Model, task.model).prune()  # heads whose gate training has closed; nothing that is said changes
        return history

    def _validation_metrics(self, task: MultiTask, parts: Parts) -> dict[str, float]:
        """Validation figures: the only ones that any choice sees. The first is the tasks' mean."""
        figures: dict[str, float] = {}
        good = []
        for name in task.tasks:
            data, rows = self.tasks[name], parts[name]["validation"]
            found = data.metrics.evaluate(
                self._predict(task, name, rows), [data.targets[row] for row in rows]
            )
            good.append(data.metrics.selection_score(found))
            figures |= {f"{name} {figure}": value for figure, value in found.items()}
        return {"score": float(np.mean(good)), **figures}

    # --- what comes out -------------------------------------------------------------------------

    def _predict(self, task: MultiTask, name: str, rows: Ints) -> list[Any]:
        single: SupervisedTask = task.tasks[name]
        return _align_predictions(
            self.tasks[name].kind, single.predict(rows), [single.targets[row] for row in rows]
        )

    def _perturbed_counts(
        self, task: MultiTask, name: str, seed: int
    ) -> Iterator[tuple[str, NDArray[np.float64]]]:
        """Counts of the test items with something taken away, with noise, with tokens that were pushed."""
        wanted, data = self.config.robustness, self.tasks[name]
        single: SupervisedTask = task.tasks[name]
        rows, true = data.parts["test"], data.part_targets("test")
        contents: dict[str, tuple[str, ...]] = {}
        for modality in data.inputs:
            source = self.config.sources[modality]
            contents[source] = (*contents.get(source, ()), modality)
        inputs = single.inputs.subset(torch.from_numpy(rows))
        for variant, left in ablations(
            inputs, contents, wanted.ablations, include_subsets=wanted.subsets, seed=seed
        ):
            other = SupervisedTask(
                single.model, left, true, range(len(true)), head=name, context=single.context
            )
            said = _align_predictions(data.kind, other.predict(range(len(true))), true)
            yield variant, data.metrics.counts(said, true)

        def count(said: list[Any], true: list[Any]) -> NDArray[np.float64]:
            return data.metrics.counts(_align_predictions(data.kind, said, true), true)

        if wanted.noise_levels:
            for part, found in evaluate_under_noise(
                single, rows, count, wanted.noise_levels, seed=seed
            ).items():
                yield from zip(
                    [f"noise {part} {level:g}" for level in wanted.noise_levels], found, strict=True
                )
        if wanted.attack_radii:
            found = evaluate_under_attack(single, rows, count, wanted.attack_radii)
            yield from zip([f"attack {radius:g}" for radius in wanted.attack_radii], found, strict=True)


def _align_predictions(kind: str, predictions: list[Any], targets: list[Any]) -> list[Any]:
    """Predictions as answers to these targets: boxes in pixels of the picture that the true ones are on; no
    more tags than the sentence has words, where it was given another one's."""
    if kind == "boxes":
        return [one.scaled(other.size) for one, other in zip(predictions, targets, strict=True)]
    if kind == "tags":
        return [one[: len(other)] for one, other in zip(predictions, targets, strict=True)]
    return predictions


def _select_modalities(inputs: ModelInputs, names: Sequence[str]) -> ModelInputs:
    """What a task may look at."""
    for name in inputs.modalities:
        if name not in names:
            inputs = inputs.without_modality(name)
    return inputs


def _build_perturb(config: AdversarialConfig | None) -> Perturb | None:
    if config is None:
        return None
    try:
        return {"fgm": FGM, "pgd": PGD}[config.name](**config.options)
    except TypeError as error:
        raise InputError(f"attack, {config.name}: {error}") from error
