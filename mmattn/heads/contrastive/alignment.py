"""Alignment: what is said, shown and heard of one thing gets vectors that lie close together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn import registry
from mmattn.errors import InputError
from mmattn.heads.base import Head
from mmattn.types import Fused, Tokens

__all__ = ["AlignmentHead", "single_modality_views"]


class AlignmentHead(Head):
    """Unit vectors for retrieval across modalities, trained by a contrastive loss.

    The rows of the batch are *views*: the same thing seen through different modalities, each row
    holding the tokens of its own modality only (`single_modality_views`), so nothing leaks from one
    to the other. Rows of one group attract each other, all others are pushed apart.

    Paper: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
    2021; any loss of pytorch-metric-learning serves, by default the one of Khosla et al., "Supervised
    Contrastive Learning", 2020, whose cost grows with the square of the batch only (NTXentLoss needs
    a row of all negatives for each positive pair, and runs out of memory where groups are large).

    Args:
        dim: width D of the fused vectors.
        embedding_dim: width of the vectors that come out.
        loss: class name in `pytorch_metric_learning.losses`, or {"name": ..., "options": {...}}; see
            `mmattn.heads.contrastive.metric_learning`.
        loss_options: its keyword arguments, where `loss` is a name only.
        miner: class name in `pytorch_metric_learning.miners`, or the same with options; None takes all
            pairs.

    Raises:
        InputError: no such loss or miner, or options that it does not take.

    Example:
        >>> head, fused, inputs = AlignmentHead.example(dim=8)
        >>> head(fused).norm(dim=1).round().tolist()
        [1.0, 1.0, 1.0, 1.0]
        >>> head.loss(fused, **inputs).dim()
        0
    """

    needs_modality_views = True  # what its loss compares: each modality by itself, not the samples

    def __init__(
        self,
        dim: int,
        embedding_dim: int = 64,
        loss: str | Mapping[str, Any] = "SupConLoss",
        loss_options: dict[str, Any] | None = None,
        miner: str | Mapping[str, Any] | None = None,
    ):
        super().__init__()
        from mmattn.heads.contrastive.metric_learning import build_contrastive_loss

        self.project = nn.Linear(dim, embedding_dim)
        spec = {"name": loss, "options": loss_options or {}} if isinstance(loss, str) else loss
        self.contrastive_loss = build_contrastive_loss(spec, miner, embedding_dim)

    @classmethod
    def task(cls) -> Any:
        """Return the task that trains it."""
        return registry.tasks.load("alignment")

    def forward(self, fused: Fused) -> Tensor:
        """[B, out] unit vectors of the joint vectors.

        Args:
            fused: B samples.
        """
        return F.normalize(self.project(fused.pooled), dim=1)

    def loss(self, fused: Fused, group: Tensor) -> Tensor:
        """The contrastive loss.

        Args:
            fused: B views.
            group: [B] int64, equal for views of the same thing.
        """
        return self.contrastive_loss(self(fused), group)

    @classmethod
    def example(cls, dim: int) -> tuple[AlignmentHead, Fused, dict[str, Any]]:
        """A head, fused samples and loss arguments, for `mmattn.testing.plugin_checks.check_head`.

        Args:
            dim: width D.
        """
        tokens = Tokens.from_lengths(torch.randn(7, dim), torch.tensor([2, 1, 3, 1]), "text")
        fused = Fused(tokens, torch.randn(4, dim), torch.randn(4, 1, dim), tokens.presence)
        return cls(dim, embedding_dim=5), fused, {"group": torch.tensor([0, 0, 1, 1])}


def single_modality_views(tokens_by_modality: dict[str, Tokens]) -> tuple[dict[str, Tokens], Tensor]:
    """Split each sample into one view a modality that it has.

    Args:
        tokens_by_modality: modality -> tokens, all of the same B samples.

    Returns:
        Parts of V views, each with tokens of one modality only, and [V] int64, the sample that each
        view shows. A sample without any token has no view.

    Raises:
        InputError: no modality.

    Example:
        >>> text = Tokens.from_sequences([torch.ones(2, 3), torch.ones(0, 3)], "text")
        >>> image = Tokens.from_sequences([torch.ones(1, 5), torch.ones(4, 5)], "image")
        >>> views, sample = single_modality_views({"text": text, "image": image})
        >>> sample.tolist(), views["text"].length_list, views["image"].length_list
        ([0, 0, 1], [2, 0, 0], [0, 1, 4])
    """
    if not tokens_by_modality:
        raise InputError("views: got no tokens of any modality, expected at least one")
    there_BM = torch.stack([tokens.lengths > 0 for tokens in tokens_by_modality.values()], dim=1)
    sample, modality = there_BM.nonzero(as_tuple=True)
    views = {}
    for index, (name, tokens) in enumerate(tokens_by_modality.items()):
        repeated = tokens.select(sample)
        views[name] = repeated.filter((modality == index)[repeated.sample])
    return views, sample
