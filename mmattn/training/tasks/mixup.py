"""Training on mixtures of two samples, for which the head must be as sure of both as they are mixed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmattn.errors import InputError
from mmattn.training.tasks.supervised import SupervisedTask
from mmattn.types import Fused

if TYPE_CHECKING:
    from mmattn.encoders.model_inputs import ModelInputs

__all__ = ["MixupTask"]


@dataclass(frozen=True)
class MixedTarget:
    """The targets of a mixture, and the share of the first."""

    first: Any
    second: Any
    first_weight: float


class MixupTask(SupervisedTask):
    """Samples mixed two by two, after they were augmented; the loss is mixed in the same shares.

    Each sample meets another one of its batch. A pair whose contents do not fit on each other (other
    shapes, or a modality that one of them lacks) is left alone: bring sounds to one length (`stretch` of
    the mel encoders) and pictures to one size.

    Paper: Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018.

    Args:
        *arguments: of `SupervisedTask`.
        alpha: of the distribution Beta(mixing, mixing) that a batch draws its share from: small values
            rarely mix much.
        **options: of `SupervisedTask`.

    Raises:
        InputError: `alpha` is not above 0, or some modality is of stored tokens, which cannot be mixed.
    """

    def __init__(self, *arguments: Any, alpha: float = 0.4, **options: Any):
        super().__init__(*arguments, **options)
        if not alpha > 0:
            raise InputError(f"task {self.head_name!r}: got mixing {alpha}, expected above 0")
        if self.inputs.tokens:
            raise InputError(
                f"task {self.head_name!r}: got stored tokens of {', '.join(self.inputs.tokens)}, expected "
                "contents, which can be mixed"
            )
        self.alpha = alpha

    def criterion(self, batch: ModelInputs, targets: Sequence[MixedTarget]) -> Callable[[Fused], Tensor]:
        """Return the function from fused samples to the loss of both targets, weighted.

        Args:
            batch: the mixed samples of one step.
            targets: one a sample.
        """
        firsts, seconds = [both.first for both in targets], [both.second for both in targets]
        share = targets[0].first_weight
        return lambda fused: (
            share * self.head.loss(fused, firsts) + (1 - share) * self.head.loss(fused, seconds)
        )

    def _load_batch(self, rows: Tensor) -> tuple[ModelInputs, list[Any]]:
        batch, targets = super()._load_batch(rows)
        share = float(torch.distributions.Beta(self.alpha, self.alpha).sample())
        partner = torch.randperm(len(rows)).tolist()
        for index, other in enumerate(partner):
            if not all(_can_mix(items[index], items[other]) for items in batch.contents.values()):
                partner[index] = index
        contents = {
            name: [_mix(items[row], items[other], share) for row, other in enumerate(partner)]
            for name, items in batch.contents.items()
        }
        both = [
            MixedTarget(target, targets[other], share) for target, other in zip(targets, partner, strict=True)
        ]
        return replace(batch, contents=contents), both


def _can_mix(first: Any, second: Any) -> bool:
    if first is None or second is None:
        return first is second
    return isinstance(first, Tensor) and isinstance(second, Tensor) and first.shape == second.shape


def _mix(first: Any, second: Any, first_weight: float) -> Any:
    return first if first is second else first_weight * first + (1 - first_weight) * second
