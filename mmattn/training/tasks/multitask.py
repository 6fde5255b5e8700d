"""Several tasks on one model: each step takes a batch of every task, and weighs their losses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmattn.errors import InputError
from mmattn.training.tasks.base import Task
from mmattn.training.tasks.task_weighting import FixedWeights, TaskWeighting

__all__ = ["MultiTask"]


class MultiTask(Task):
    """Tasks that share a model, trained together by `mmattn.training.loop.train` like any one of them.

    The first task leads, unless something else is said: its batches make an epoch, and its first validation
    figure decides which epoch is kept. A task with fewer batches begins anew, one with more goes on with
    others in the next epoch.

    Args:
        tasks: name -> task; each has the same model as `model`.
        weighting: makes one loss of theirs; left out, their sum.
        steps_per_epoch: steps an epoch; 0 takes as many as the first task has batches.
        validate_fn: validation figures of all tasks, the first of which decides; left out, the tasks' own.

    Raises:
        InputError: no task, tasks with different models, or a number of steps below 0.

    Example:
        >>> from torch import nn
        >>> class Constant(Task):
        ...     def __init__(self, model, target):
        ...         super().__init__()
        ...         self.model, self.target = model, target
        ...     def batches(self, epoch, generator):
        ...         yield from torch.rand(3, 2, 1, generator=generator)
        ...     def forward(self, batch):
        ...         return (self.model(batch) - self.target).square().mean()
        ...     def validate(self):
        ...         return {"score": -self(torch.ones(1, 1)).item()}
        >>> model = nn.Linear(1, 1)
        >>> together = MultiTask({"one": Constant(model, 1.0), "two": Constant(model, 2.0)})
        >>> list(together.validate())
        ['score', 'two score']
    """

    def __init__(
        self,
        tasks: Mapping[str, Task],
        weighting: TaskWeighting | None = None,
        *,
        steps_per_epoch: int = 0,
        validate_fn: Callable[[], dict[str, float]] | None = None,
    ):
        super().__init__()
        if steps_per_epoch < 0:
            raise InputError(
                f"multitask: got {steps_per_epoch} steps, expected some, or 0 for the first task's own"
            )
        self.steps_per_epoch, self.validate_fn = steps_per_epoch, validate_fn
        models = {name: getattr(task, "model", None) for name, task in tasks.items()}
        if not models or len({id(model) for model in models.values()}) > 1 or None in models.values():
            model_types = {name: type(model).__name__ for name, model in models.items()}
            raise InputError(f"multitask: got {model_types}, expected tasks that share one model")
        self.model: nn.Module = next(model for model in models.values() if model is not None)
        self.tasks: Any = nn.ModuleDict(tasks)  # name -> Task
        self.main_task = next(iter(tasks))
        self.weighting = weighting or FixedWeights()
        # Kept with the weights, so that a resumed epoch reports the mean loss of all its batches.
        self.loss_sums: Tensor
        self.register_buffer("loss_sums", torch.zeros(len(tasks) + 1, dtype=torch.float64))
        self.register_state_dict_post_hook(_drop_shared_model)
        self.register_load_state_dict_post_hook(_ignore_shared_model)

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[dict[str, Any]]:
        """One batch of each task a step.

        Args:
            epoch: its number, from 1.
            generator: source of randomness.
        """
        # A generator for each, so that no task's draws depend on how many another one makes.
        seeds = torch.randint(2**62, (len(self.tasks),), generator=generator).tolist()
        drawn = {
            name: self._cycle_batches(name, epoch, torch.Generator().manual_seed(seed))
            for (name, seed) in zip(self.tasks, seeds, strict=True)
        }
        for _ in range(self.num_batches(epoch)):
            yield {name: next(batches) for name, batches in drawn.items()}

    def _cycle_batches(self, name: str, epoch: int, generator: torch.Generator) -> Iterator[Any]:
        """The batches of a task, again and again."""
        while True:
            batches: Iterable[Any] = self.tasks[name].batches(epoch, generator)
            count = 0
            for count, batch in enumerate(batches, start=1):  # noqa: B007
                yield batch
            if not count:
                raise InputError(f"multitask: task {name!r} gave no batch in epoch {epoch}")

    def num_batches(self, epoch: int) -> int:
        """The steps that were asked for, or as many as the first task has batches.

        Args:
            epoch: its number, from 1.
        """
        return self.steps_per_epoch or self.tasks[self.main_task].num_batches(epoch)

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        """Return the weighted loss of one batch of each task.

        Args:
            batch: task -> its batch.
        """
        losses = {name: task(batch[name]) for name, task in self.tasks.items()}
        if self.training:
            values = torch.stack([loss.detach().double() for loss in losses.values()])
            self.loss_sums += torch.cat([values, values.new_ones(1)])
        shared = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return self.weighting(losses, shared)

    def validate(self) -> dict[str, float]:
        """The first task's figures under their own names, those of the others behind the task's name;
        or what `judge` says."""
        if self.validate_fn is not None:
            return self.validate_fn()
        figures = self.tasks[self.main_task].validate()
        if not figures:  # nothing is held out: nor may another task's figure choose the epoch
            return {}
        others = [name for name in self.tasks if name != self.main_task]
        return dict(figures) | {
            f"{name} {figure}": value
            for name in others
            for figure, value in self.tasks[name].validate().items()
        }

    def extra_metrics(self) -> dict[str, float]:
        """The mean training loss of each task since the last report."""
        *sums, count = self.loss_sums.tolist()
        self.loss_sums.zero_()
        return {f"loss {name}": total / max(count, 1) for name, total in zip(self.tasks, sums, strict=True)}


def _shared_model_prefixes(module: nn.Module, prefix: str) -> tuple[str, ...]:
    """Where the tasks hold the model, which is in the state already, as `model`."""
    tasks: Any = module.tasks
    return tuple(f"{prefix}tasks.{name}.model." for name in tasks)


def _drop_shared_model(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for name in [name for name in state if name.startswith(_shared_model_prefixes(module, prefix))]:
        del state[name]


def _ignore_shared_model(module: nn.Module, incompatible: Any) -> None:
    copies = _shared_model_prefixes(module, "")
    missing = [name for name in incompatible.missing_keys if not name.startswith(copies)]
    incompatible.missing_keys[:] = missing
