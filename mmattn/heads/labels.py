"""Labels of a sample, several at once: genres of a film, tags of a picture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn.errors import InputError
from mmattn.types import Fused, Tokens

__all__ = ["LabelsHead"]


class LabelsHead(nn.Module):
    """One logit a label, from the joint vector; a label that nobody knows takes no part in the loss.

    Args:
        dim: width D of the fused vectors.
        labels: how many labels L.

    Example:
        >>> head, fused, inputs = LabelsHead.example(dim=8)
        >>> head(fused).shape, head.loss(fused, **inputs).dim()
        (torch.Size([4, 3]), 0)
    """

    def __init__(self, dim: int, labels: int):
        super().__init__()
        if labels < 1:
            raise InputError(f"labels head: got {labels} labels, expected at least 1")
        self.project = nn.Linear(dim, labels)

    def forward(self, fused: Fused) -> Tensor:
        """[B, L] logits."""
        return self.project(fused.pooled)

    def loss(self, fused: Fused, labels: Tensor) -> Tensor:
        """Binary cross-entropy, the mean over the labels that are known.

        Args:
            fused: B samples.
            labels: [B, L] 1 where the label is there, 0 where it is not, NaN where nobody knows.
        """
        logits_BL = self(fused)
        if labels.shape != logits_BL.shape:
            raise InputError(
                f"labels head: got labels {tuple(labels.shape)}, expected {tuple(logits_BL.shape)}"
            )
        known_BL = ~labels.isnan()
        costs_BL = F.binary_cross_entropy_with_logits(
            logits_BL.float(), labels.nan_to_num().float(), reduction="none"
        )
        return (costs_BL * known_BL).sum() / known_BL.sum().clamp_min(1)

    @classmethod
    def example(cls, dim: int) -> tuple[LabelsHead, Fused, dict[str, Any]]:
        """A head, fused samples and loss arguments, for `mmattn.testing.check_head`."""
        tokens = Tokens.from_lengths(torch.randn(7, dim), torch.tensor([2, 1, 3, 1]), "text")
        fused = Fused(tokens, torch.randn(4, dim), torch.randn(4, 1, dim), tokens.presence)
        known = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [float("nan"), 0.0, 1.0], [0.0, 0.0, 0.0]])
        return cls(dim, labels=3), fused, {"labels": known}
