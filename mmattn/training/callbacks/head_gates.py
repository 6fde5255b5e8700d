"""Penalty on open attention heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from mmattn.attention.layer.head_gates import gate_penalty, layers
from mmattn.errors import InputError
from mmattn.training.callbacks.base import Callback

if TYPE_CHECKING:
    from mmattn.training.state import TrainingState
    from mmattn.training.tasks.base import Task

__all__ = ["HeadGatePenalty"]


class HeadGatePenalty(Callback):
    """Add the expected number of open heads to the loss, for programs with a `head_gate`.

    Paper: Louizos et al., "Learning Sparse Neural Networks through L0 Regularization", 2018.

    Args:
        penalty: factor on the expected number of open heads, above 0.
        learning_rate: peak learning rate of the gates. A gate closes about five units from where it starts,
            further than weights usually move; 0 trains gates at the rate of the weights.

    Raises:
        InputError: the learning rate is negative.
    """

    def __init__(self, penalty: float, learning_rate: float = 0.1):
        if learning_rate < 0:
            raise InputError(f"gate_learning_rate: got {learning_rate}, expected a rate, or 0")
        self.penalty, self.learning_rate = penalty, learning_rate

    def learning_rates(self, task: Task) -> Mapping[str, float]:
        if not self.learning_rate:
            return {}
        names = {id(parameter): name for name, parameter in task.named_parameters()}
        return {
            names[id(gate)]: self.learning_rate
            for _, layer in layers(task)
            for gate in layer.gate_parameters().values()
        }

    def on_loss(self, state: TrainingState, loss: Tensor) -> Tensor:
        return loss + self.penalty * gate_penalty(state.task)
