"""The experiment of tasks: heads that learn from targets, trained together and alone, scored, disturbed."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, cast

import numpy as np
import torch
from tqdm import tqdm

from mmattn.array_types import Floats, Ints
from mmattn.config import HeadConfig
from mmattn.encoders.base import Encoder
from mmattn.encoders.model_inputs import ModelInputs
from mmattn.errors import InputError
from mmattn.experiments.ablation import ablations
from mmattn.experiments.config import AdversarialConfig, DistillationConfig
from mmattn.experiments.experiment import Experiment, Stopwatch, encoder_summaries
from mmattn.experiments.seed_result import FULL, SINGLE_TASK, SeedResult, TaskResult
from mmattn.experiments.supervised.data import TaskData, read_task_data
from mmattn.experiments.supervised.robustness import evaluate_under_attack, evaluate_under_noise
from mmattn.experiments.supervised.summary import summarize_tasks
from mmattn.model.model import Model
from mmattn.reports.results import Report
from mmattn.training.augmentation.augment import build_augment
from mmattn.training.loop import History
from mmattn.training.tasks.adversarial import FGM, PGD
from mmattn.training.tasks.distillation import DistillationTask
from mmattn.training.tasks.mixup import MixupTask
from mmattn.training.tasks.multitask import MultiTask
from mmattn.training.tasks.supervised import Perturb, SupervisedTask
from mmattn.training.tasks.task_weighting import FixedWeights, TaskWeighting, build_weighting

__all__ = ["SupervisedExperiment"]

log = logging.getLogger(__name__)
Parts = Mapping[str, Mapping[str, Ints]]  # task -> part -> rows


class SupervisedExperiment(Experiment):
    """Heads that learn from target columns, on one core, measured on test items.

    Attributes:
        data: the items of all cards, and what each task learns from.
    """

    def read_data(self) -> None:
        build_weighting(self.config.weighting, tuple(self.config.tasks))  # a mistake is reported first
        for name, task in self.config.tasks.items():
            if task.distillation is not None and not (task.distillation.teacher / "config.json").is_file():
                raise InputError(
                    f"tasks.{name}.distillation.teacher: got {task.distillation.teacher}, expected the "
                    "folder of a saved model, such as runs/NAME/seed-0/model"
                )
        self.data = read_task_data(self.config)

    @property
    def tasks(self) -> Mapping[str, TaskData]:
        """Name -> what a task learns from."""
        return self.data.tasks

    def run_seed(self, seed: int) -> SeedResult | None:
        clock = Stopwatch()
        fraction = self.config.protocol.validation
        parts = {name: task.seed_split(seed, fraction) for name, task in self.tasks.items()}
        with self.processes.main_process_first():  # it fills the feature store, the others read
            encoders = self._new_encoders(parts, seed)
            inputs = self.prepare_inputs(self.data.samples, encoders)
        clock.mark("features")
        joint = self._build_tasks(tuple(self.tasks), encoders, inputs, parts, seed)
        history = self._train(joint, seed, "together")
        clock.mark("training")
        alone: dict[str, tuple[list[Any], History]] = {}
        for name in self.tasks if len(self.tasks) > 1 and self.config.single_task_baselines else ():
            single = self._build_tasks((name,), self._new_encoders(parts, seed), inputs, parts, seed)
            single_history = self._train(single, seed, f"alone-{name}")
            alone[name] = self._predict(single, name, parts[name]["test"]), single_history
            clock.mark(f"training {name} alone")
        if not self.processes.is_main_process:
            return None
        predictions = {name: self._predict(joint, name, parts[name]["test"]) for name in self.tasks}
        clock.mark("test")
        results = {}
        for name, task in self.tasks.items():
            targets = task.part_targets("test")
            counts = {FULL: task.metrics.counts(predictions[name], targets)}
            if name in alone:
                counts[SINGLE_TASK] = task.metrics.counts(alone[name][0], targets)
            bar = tqdm(
                self._perturbed_counts(joint, name, seed), desc=f"seed {seed}: {name}, perturbed",
                disable=not self.progress, leave=False, delay=1.0,
            )  # fmt: skip
            counts |= dict(bar)
            results[name] = TaskResult(
                counts=counts,
                predictions=[task.head.prediction_to_json(prediction) for prediction in predictions[name]],
                single_task_history=alone[name][1] if name in alone else None,
            )
        clock.mark("ablations and noise")
        cast(Model, joint.model).save_pretrained(self.seed_folder(seed) / "model")
        sizes = {name: {part: len(rows) for part, rows in split.items()} for name, split in parts.items()}
        return SeedResult(
            seed, history, clock.seconds, sizes,
            encoders=encoder_summaries(encoders), num_rejected=len(inputs.rejected), tasks=results,
        )  # fmt: skip

    def report(self, results: Sequence[SeedResult]) -> Report:
        return summarize_tasks(self.config, self.data, results, self.device)

    # --- training -------------------------------------------------------------------------------

    def _new_encoders(self, parts: Parts, seed: int) -> dict[str, Encoder]:
        torch.manual_seed(seed)
        known = chain.from_iterable(split["train"] for split in parts.values())
        return self.build_encoders(self.data.samples, known)

    def _build_tasks(
        self,
        names: Sequence[str],
        encoders: Mapping[str, Encoder],
        inputs: ModelInputs,
        parts: Parts,
        seed: int,
    ) -> MultiTask:
        """Build a new model with a head for each of the tasks, and its training."""
        torch.manual_seed(seed)
        heads = {name: self._head_config(self.tasks[name], parts[name]["train"]) for name in names}
        learned = np.unique(np.concatenate([parts[name]["train"] for name in names]))
        model = self.build_model(self.config.model_config(heads), encoders, inputs, learned)
        tasks = {
            name: self._build_task(self.tasks[name], model, inputs, parts[name]["train"]) for name in names
        }
        # Alone or together, a task takes as many steps: those of the largest task of the run.
        steps = self.config.training.steps_per_epoch or max(
            -(-len(parts[name]["train"]) // task.config.batch_size) for name, task in self.tasks.items()
        )
        joint = MultiTask(tasks, self._build_weighting(names), steps_per_epoch=steps)
        joint.validate_fn = partial(self._validation_metrics, joint, parts)
        return joint

    def _head_config(self, task: TaskData, rows: Ints) -> HeadConfig:
        """Return the head with what follows from the training targets; the file's own options come first.

        Options of the file may also say how something follows, the unit of a vocabulary, for example.
        """
        config, head = task.config.head, task.head
        followed, taken = (inspect.signature(function).parameters for function in (head.options_for, head))
        how = {name: value for name, value in config.options.items() if name in followed}
        derived = head.options_for([task.targets[row] for row in rows], **how)
        explicit = {
            name: value for name, value in config.options.items() if name in taken or name not in followed
        }
        return HeadConfig(config.name, {**derived, **explicit})

    def _build_task(self, task: TaskData, model: Model, inputs: ModelInputs, rows: Ints) -> SupervisedTask:
        config = task.config
        kind, options = task.head.task(), {}
        if config.mixup:
            kind, options = MixupTask, {"alpha": config.mixup}
        if config.distillation is not None:
            kind, options = DistillationTask, _distillation_options(config.distillation)
        built: SupervisedTask = kind(
            model, _select_modalities(inputs, task.inputs), task.targets, rows, head=task.name,
            batch_size=config.batch_size, drop_modality=config.drop_modality,
            augment=build_augment(model.encoders, config.augment), perturb=_build_perturb(config.adversarial),
            context={"task": task.name} if model.core.task_embeddings else None, **options,
        )  # fmt: skip
        return built

    def _build_weighting(self, names: Sequence[str]) -> TaskWeighting:
        if self.config.weighting == "fixed" and len(names) > 1:
            return FixedWeights({name: self.tasks[name].config.weight for name in names})
        return build_weighting(self.config.weighting if len(names) > 1 else "fixed", names)

    def _train(self, task: MultiTask, seed: int, name: str) -> History:
        history = self.train(task, seed, name)
        cast(Model, task.model).prune()  # heads whose gate training has closed; the outputs do not change
        return history

    def _validation_metrics(self, joint: MultiTask, parts: Parts) -> dict[str, float]:
        """The only metrics that any choice sees; the first is the mean score of the tasks."""
        metrics: dict[str, float] = {}
        scores = []
        for name in joint.tasks:
            task, rows = self.tasks[name], parts[name]["validation"]
            values = task.metrics.evaluate(
                self._predict(joint, name, rows), [task.targets[row] for row in rows]
            )
            scores.append(task.metrics.selection_score(values))
            metrics |= {f"{name} {metric}": value for metric, value in values.items()}
        return {"score": float(np.mean(scores)), **metrics}

    # --- evaluation -----------------------------------------------------------------------------

    def _predict(self, joint: MultiTask, name: str, rows: Ints) -> list[Any]:
        task: SupervisedTask = joint.tasks[name]
        return self.tasks[name].head.align(task.predict(rows), [task.targets[row] for row in rows])

    def _perturbed_counts(self, joint: MultiTask, name: str, seed: int) -> Iterator[tuple[str, Floats]]:
        """Count on the test items with something taken away, with noise, and under attack."""
        wanted, data = self.config.evaluation, self.tasks[name]
        task: SupervisedTask = joint.tasks[name]
        rows, targets = data.parts["test"], data.part_targets("test")

        def count(predictions: list[Any], targets: list[Any]) -> Floats:
            return data.metrics.counts(data.head.align(predictions, targets), targets)

        inputs = task.inputs.subset(torch.from_numpy(rows))
        variants = ablations(
            inputs, self.config.modalities_by_source(data.inputs), wanted.ablations,
            include_encoders=wanted.ablate_encoders, include_subsets=wanted.subsets, seed=seed,
        )  # fmt: skip
        for variant, changed in variants:
            other = SupervisedTask(
                task.model, changed, targets, range(len(targets)), head=name, context=task.context
            )
            yield variant, count(other.predict(range(len(targets))), targets)
        if wanted.noise_levels:
            noisy = evaluate_under_noise(task, rows, count, wanted.noise_levels, seed=seed)
            for part, counts in noisy.items():
                yield from zip(
                    [f"noise {part} {level:g}" for level in wanted.noise_levels], counts, strict=True
                )
        if wanted.attack_radii:
            counts = evaluate_under_attack(task, rows, count, wanted.attack_radii)
            yield from zip([f"attack {radius:g}" for radius in wanted.attack_radii], counts, strict=True)


def _select_modalities(inputs: ModelInputs, names: Sequence[str]) -> ModelInputs:
    """The inputs that a task may read."""
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
        raise InputError(f"adversarial, {config.name}: {error}") from error


def _distillation_options(config: DistillationConfig) -> dict[str, Any]:
    return {
        "teacher": Model.from_pretrained(config.teacher),
        "temperature": config.temperature,
        "teacher_weight": config.teacher_weight,
        "hint_weight": config.hint_weight,
    }
