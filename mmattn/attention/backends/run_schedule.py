"""Running a schedule: bring the tokens into its order, run every step, bring the results back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from mmattn.attention.execution.schedule import Schedule, Step

__all__ = ["run_schedule"]


def run_schedule(
    schedule: Schedule,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    run_step: Callable[[Step, Tensor, Tensor, Tensor], Tensor],
) -> Tensor:
    """Attended values [Nq, H, K'].

    Args:
        schedule: what to run.
        q: [N, H, K'] queries.
        k: [N, H, K'] keys.
        v: [N, H, K'] values.
        run_step: (step, q [G, H, Q, K'], k [G, H, K, K'], v) -> [G, H, Q, K']; called for steps with keys.
    """
    steps = schedule.steps
    if len(steps) == 1 and schedule.q_order.index is None and steps[0].key_ranges == ((0, len(k)),):
        return _run_step(steps[0], q, k, v, run_step)  # nothing to cut and nothing to move
    if not steps:
        return torch.zeros_like(q)
    ranges = [stretch for step in steps for stretch in step.key_ranges]
    ends = list(accumulate((step.num_rows * step.num_queries for step in steps), initial=0))
    q_steps = schedule.q_order.slices(q, list(pairwise(ends)))
    apart = any(len(step.key_ranges) > 1 for step in steps)
    keys, values = (schedule.k_order.slices(x, ranges, apart) for x in (k, v))
    return schedule.q_order.unpack(
        _run_step(step, q_step, _take_ranges(keys, step), _take_ranges(values, step), run_step)
        for step, q_step in zip(steps, q_steps, strict=True)
    )


def _take_ranges(step_tensors: Iterator[Tensor], step: Step) -> Tensor | None:
    """The step's keys or values, None where it has none."""
    parts = [next(step_tensors) for _ in step.key_ranges]
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _run_step(
    step: Step,
    q: Tensor,
    k: Tensor | None,
    v: Tensor | None,
    run_step: Callable[[Step, Tensor, Tensor, Tensor], Tensor],
) -> Tensor:
    """[G * Q, H, K'] results of one step; zeros where it has no keys."""
    if k is None or v is None or not step.num_keys:
        return torch.zeros_like(q)
    # Views: `unflatten` takes several times as long, and small calls are made of such microseconds.
    q, k, v = (x.view(step.num_rows, -1, *x.shape[1:]).transpose(1, 2) for x in (q, k, v))
    return run_step(step, q, k, v).transpose(1, 2).flatten(0, 1)
