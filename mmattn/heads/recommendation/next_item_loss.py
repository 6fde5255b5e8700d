"""Losses of next-item prediction: full softmax, or sampled with a correction for what is drawn more often."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from mmattn.errors import InputError, did_you_mean

__all__ = ["LOSS_NAMES", "LossName", "full_softmax", "sample_negatives", "sampled_softmax"]

LossName = Literal["full", "uniform", "popularity"]
LOSS_NAMES: tuple[str, ...] = get_args(LossName)


def full_softmax(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Cross-entropy over all candidates.

    Args:
        logits: [N, C].
        target: [N] int64, the column that is right; -1 where a row has none and does not count.
        weight: [N] what each row counts; None for all alike.

    Example:
        >>> full_softmax(torch.zeros(2, 4), torch.tensor([1, -1])).exp().round().item()
        4.0
    """
    surprise_N = F.cross_entropy(logits.float(), target, ignore_index=-1, reduction="none")
    return _weighted_mean(surprise_N, target >= 0, weight)


def sampled_softmax(
    positive_scores: Tensor,
    negative_scores: Tensor,
    expected_counts: Tensor,
    is_target: Tensor,
    weight: Tensor | None = None,
) -> Tensor:
    """Cross-entropy against drawn negatives, as nearly that over all candidates as their number allows.

    The target is always among the candidates, a negative only if it is drawn. So a negative's exponential is
    divided by how often it was expected to be drawn, the target's is not, and a target that was drawn too
    counts once: the sum in the denominator is then right on average.

    Papers: Bengio and Senecal, "Adaptive Importance Sampling to Accelerate Training of a Neural Probabilistic
    Language Model", 2008; Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
    Recommendations", 2019 (the correction by log Q for recommenders).

    Args:
        positive_scores: [N] scores of the targets.
        negative_scores: [N, S] scores of the negatives.
        expected_counts: [S] how often each negative's item was expected among the S draws.
        is_target: [N, S] True where the negative is the target itself.
        weight: [N] what each row counts; None for all alike.

    Example:
        >>> hit = torch.tensor([[False, True]])
        >>> sampled_softmax(torch.zeros(1), torch.zeros(1, 2), torch.tensor([0.5, 0.5]), hit).exp().item()
        3.0
    """
    corrected_NS = (negative_scores.float() - expected_counts.log()).masked_fill(is_target, -torch.inf)
    positive_scores = positive_scores.float()
    surprise_N = torch.cat([positive_scores[:, None], corrected_NS], 1).logsumexp(1) - positive_scores
    return _weighted_mean(surprise_N, torch.ones_like(positive_scores, dtype=torch.bool), weight)


def sample_negatives(
    loss: str, counts: Tensor, num_negatives: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Negatives for a batch, drawn with replacement.

    Args:
        loss: "uniform", or "popularity": in proportion to how often an item was chosen.
        counts: [C] how often each candidate was chosen.
        num_negatives: S, how many to draw.
        generator: on the CPU.

    Returns:
        [S] int64 places among the candidates, and [S] how often each was expected.

    Raises:
        InputError: another name, or nothing to draw from.

    Example:
        >>> sample_negatives("popularity", torch.tensor([0, 2, 0]), 3)
        (tensor([1, 1, 1]), tensor([3., 3., 3.]))
    """
    draws: dict[str, Callable[[], Tensor]] = {
        "uniform": lambda: torch.ones(len(counts), dtype=torch.float64),
        "popularity": lambda: counts.double(),
    }
    if loss not in draws:
        raise InputError(
            f"negatives: got {loss!r}, expected one of {list(draws)}.{did_you_mean(loss, draws)}"
        )
    mass_C = draws[loss]()
    if num_negatives < 1 or not bool(mass_C.sum() > 0):
        raise InputError(
            f"negatives: got {num_negatives} to draw from {int((mass_C > 0).sum())} items, expected some of "
            f"both"
        )
    share_C = mass_C / mass_C.sum()
    drawn_S = torch.multinomial(share_C, num_negatives, replacement=True, generator=generator)
    return drawn_S, (share_C[drawn_S] * num_negatives).float()


def _weighted_mean(surprise_N: Tensor, is_counted_N: Tensor, weight: Tensor | None) -> Tensor:
    weight_N = is_counted_N.to(surprise_N.dtype) if weight is None else weight * is_counted_N
    return (surprise_N * weight_N).sum() / weight_N.sum().clamp_min(1e-9)
