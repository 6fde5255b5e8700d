"""Running a schedule: bring the tokens into its order, run every step, bring the results back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from mmattn.attention.execution.schedule import Schedule, Step

__all__ = ["run_steps"]


def run_steps(
    schedule: Schedule, q: Tensor, k: Tensor, v: Tensor, one: Callable[[Step, Tensor, Tensor, Tensor], Tensor]
) -> Tensor:
    """Attended values [Nq, H, K'].

    Args:
        schedule: what to run.
        q, k, v: [N, H, K'].
        one: (step, q [G, H, Q, K'], k [G, H, K, K'], v) -> [G, H, Q, K']; called for steps with keys.
    """
    steps = schedule.steps
    if len(steps) == 1 and schedule.q_order.index is None and steps[0].ranges == ((0, len(k)),):
        return _one(steps[0], q, k, v, one)  # nothing to cut and nothing to move
    if not steps:
        return torch.zeros_like(q)
    ranges = [stretch for step in steps for stretch in step.ranges]
    ends = list(accumulate((step.rows * step.queries for step in steps), initial=0))
    q_steps = schedule.q_order.stretches(q, list(pairwise(ends)))
    apart = any(len(step.ranges) > 1 for step in steps)
    keys, values = (schedule.k_order.stretches(x, ranges, apart) for x in (k, v))
    return schedule.q_order.unpack(
        _one(step, q_step, _joined(keys, step), _joined(values, step), one)
        for step, q_step in zip(steps, q_steps, strict=True)
    )


def _joined(parts_of_all: Iterator[Tensor], step: Step) -> Tensor | None:
    """The step's keys or values, None where it has none."""
    parts = [next(parts_of_all) for _ in step.ranges]
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _one(
    step: Step,
    q: Tensor,
    k: Tensor | None,
    v: Tensor | None,
    one: Callable[[Step, Tensor, Tensor, Tensor], Tensor],
) -> Tensor:
    """[G * Q, H, K'] results of one step; zeros where it has no keys."""
    if k is None or v is None or not step.keys:
        return torch.zeros_like(q)
    # Views: `unflatten` takes several times as long, and small calls are made of such microseconds.
    q, k, v = (x.view(step.rows, -1, *x.shape[1:]).transpose(1, 2) for x in (q, k, v))
    return one(step, q, k, v).transpose(1, 2).flatten(0, 1)
