"""Who speaks: one vector a recording, near those of the same voice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn.errors import InputError
from mmattn.evaluation.tasks.examples import PredictedItem, TaskExamples
from mmattn.evaluation.tasks.speaker_verification import SpeakerVerificationMetrics
from mmattn.fusion.pool import segment_softmax
from mmattn.heads.base import SupervisedHead
from mmattn.heads.contrastive.metric_learning import LossSpec, build_contrastive_loss
from mmattn.heads.vocabulary import Vocabulary
from mmattn.types import Fused, Tokens

if TYPE_CHECKING:
    from mmattn.evaluation.tasks.task_metrics import TaskMetrics

__all__ = ["AttentiveStatisticsPooling", "SpeakerHead"]

_WHERE = "speaker head"
_MIN_VARIANCE = 1e-8  # spread that counts as none


class SpeakerHead(SupervisedHead):
    """A vector of length 1 for each sample, of the fused tokens of one modality.

    It is trained to be near to vectors of the same speaker and far from others' by any loss of
    pytorch-metric-learning, and used for speakers that were never heard: compare vectors by their dot
    product (`mmattn.evaluation.tasks.verification`).

    Paper: Okabe et al., "Attentive Statistics Pooling for Deep Speaker Embedding", 2018.

    Args:
        dim: width D of the fused tokens.
        speakers: names of the speakers in training.
        embedding_dim: width K of the vectors.
        modality: whose tokens are pooled.
        loss: a loss of pytorch-metric-learning, by name or with options
            (`mmattn.heads.contrastive.metric_learning`); those
            that have a class each, as "ArcFaceLoss", get the number of speakers.
        miner: a miner of pytorch-metric-learning; None takes all pairs.
        dropout: probability on the pooled statistics.

    Raises:
        InputError: no speaker, one named twice, or a loss or miner that is not known.

    Example:
        >>> head, fused, inputs = SpeakerHead.example(dim=8)
        >>> head(fused).shape, head.loss(fused, **inputs).dim()
        (torch.Size([4, 16]), 0)
    """

    target_roles: ClassVar[tuple[str, ...]] = ("label",)

    def __init__(
        self,
        dim: int,
        speakers: Sequence[str],
        *,
        embedding_dim: int = 64,
        modality: str = "audio",
        loss: LossSpec = "SupConLoss",
        miner: LossSpec | None = None,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.vocabulary = Vocabulary(speakers, _WHERE, "speaker")
        self.modality = modality
        self.pool = AttentiveStatisticsPooling(dim)
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(2 * dim, embedding_dim)
        self.contrastive_loss = build_contrastive_loss(loss, miner, embedding_dim, len(self.vocabulary))

    @property
    def speakers(self) -> tuple[str, ...]:
        """Names of the speakers in training."""
        return self.vocabulary.names

    @classmethod
    def options_for(cls, targets: Sequence[Any]) -> Mapping[str, Any]:
        """Return the names of the speakers.

        Args:
            targets: training speakers; None if unknown.

        Example:
            >>> SpeakerHead.options_for(["bob", None, "ann", "bob"])
            {'speakers': ['ann', 'bob']}
        """
        return {"speakers": sorted({target for target in targets if target is not None})}

    @classmethod
    def metrics(cls, targets: Sequence[Any], name: str = "") -> TaskMetrics:
        cls.check_metric(name)
        return SpeakerVerificationMetrics()

    @classmethod
    def examples(cls, items: Sequence[PredictedItem]) -> TaskExamples:
        """Return no examples: a vector shows nothing by itself.

        Args:
            items: all test items of the first seed.
        """
        return TaskExamples()

    def forward(self, fused: Fused) -> Tensor:
        """[B, K] vectors of length 1; zeros for a sample without tokens of the modality.

        Args:
            fused: B samples.
        """
        tokens = fused.tokens.select_modalities(self.modality)
        vectors_BK = F.normalize(self.project(self.dropout(self.pool(tokens))).float(), dim=1)
        return vectors_BK * (tokens.lengths > 0)[:, None]

    def loss(self, fused: Fused, targets: Sequence[str | None]) -> Tensor:
        """The metric loss over the samples that have sound and a speaker.

        Args:
            fused: B samples.
            targets: [B] speakers; None if unknown.

        Raises:
            InputError: a speaker who is not among those in training, or another number of targets.
        """
        vectors_BK = self(fused)
        if len(targets) != len(vectors_BK):
            raise InputError(f"{_WHERE}: got {len(targets)} targets, expected {len(vectors_BK)}")
        there_B = (fused.tokens.select_modalities(self.modality).lengths > 0).tolist()
        known = [row for row, target in enumerate(targets) if target is not None and there_B[row]]
        if not known:
            return vectors_BK.sum() * 0.0
        numbers = [self.vocabulary.index(targets[row]) for row in known]
        return self.contrastive_loss(vectors_BK[known], torch.tensor(numbers, device=vectors_BK.device))

    @torch.no_grad()
    def predict(self, fused: Fused) -> list[Tensor | None]:
        """The vector [K] of each sample; None where it has no sound.

        Args:
            fused: B samples.
        """
        there_B = (fused.tokens.select_modalities(self.modality).lengths > 0).tolist()
        return [
            vector if is_present else None for vector, is_present in zip(self(fused), there_B, strict=True)
        ]

    @classmethod
    def example(cls, dim: int) -> tuple[SpeakerHead, Fused, dict[str, Any]]:
        """A head, fused samples and loss arguments, for `mmattn.testing.plugin_checks.check_head`.

        Args:
            dim: width D.
        """
        tokens = Tokens.from_lengths(torch.randn(11, dim), torch.tensor([3, 2, 5, 1]), "audio")
        fused = Fused(tokens, torch.randn(4, dim), torch.randn(4, 1, dim), tokens.presence)
        return cls(dim, ["ann", "bob"], embedding_dim=16), fused, {"targets": ["bob", "ann", "bob", "ann"]}


class AttentiveStatisticsPooling(nn.Module):
    """Weighted mean and deviation of each sample's tokens; the weights are learned and start equal.

    Args:
        dim: width D of the tokens.
        hidden_dim: width of the layer that the weights come from.

    Example:
        >>> tokens = Tokens.from_sequences([torch.tensor([[1.0], [3.0]]), torch.zeros(0, 1)], "audio")
        >>> AttentiveStatisticsPooling(1)(tokens).round(decimals=2).tolist()
        [[2.0, 1.0], [0.0, 0.0]]
    """

    def __init__(self, dim: int, hidden_dim: int = 64):
        super().__init__()
        self.score = nn.Sequential(nn.Linear(dim, hidden_dim), nn.Tanh(), nn.Linear(hidden_dim, dim))
        nn.init.zeros_(self.score[2].weight)  # type: ignore[arg-type]

    def forward(self, tokens: Tokens) -> Tensor:
        """Tokens of N rows -> [B, 2 * D]: means, then deviations; zeros where there are no tokens.

        Args:
            tokens: of B samples.
        """
        x_ND, sample_N, samples = tokens.values, tokens.sample, len(tokens)
        weights_ND = segment_softmax(self.score(x_ND), sample_N, samples)
        empty_BD = x_ND.new_zeros(samples, tokens.dim)
        mean_BD = empty_BD.index_add(0, sample_N, weights_ND * x_ND)
        spread_BD = empty_BD.index_add(0, sample_N, weights_ND * (x_ND - mean_BD[sample_N]).square())
        # A lone token has no deviation, and the root no gradient at zero.
        deviation_BD = torch.where(spread_BD > _MIN_VARIANCE, spread_BD.clamp_min(_MIN_VARIANCE).sqrt(), 0.0)
        return torch.cat([mean_BD, deviation_BD], 1)
