"""Labels of a sample, several at once: genres of a film, tags of a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn.errors import InputError
from mmattn.evaluation.tasks.classification import MultilabelMetrics
from mmattn.heads.base import SupervisedHead
from mmattn.heads.classification.classification import check_class_frequencies
from mmattn.heads.vocabulary import Vocabulary, count_names
from mmattn.types import Fused, Tokens

if TYPE_CHECKING:
    from mmattn.evaluation.tasks.task_metrics import TaskMetrics

__all__ = ["MultiLabelHead", "MultiLabelTarget"]

_WHERE = "labels head"

# The labels that are there, all others being absent; or label -> there or not, nobody knowing of the others.
MultiLabelTarget = Sequence[str] | Mapping[str, bool]


class MultiLabelHead(SupervisedHead):
    """Any number of the classes, from the joint vector; a label that nobody knows takes no part in the loss.

    Args:
        dim: width D of the fused vectors.
        labels: names of the labels L.
        label_frequencies: share of the training samples that has each label; only `balanced` asks for it.
        balanced: let presence and absence of a label count alike: presence weighs (1 - share) / share.
        threshold: probability from which on a label is predicted.
        dropout: probability on the joint vector.

    Raises:
        InputError: no label, one named twice, or an option out of range.

    Example:
        >>> head, fused, inputs = MultiLabelHead.example(dim=8)
        >>> head(fused).shape, head.loss(fused, **inputs).dim(), len(head.predict(fused))
        (torch.Size([4, 3]), 0, 4)
    """

    target_roles: ClassVar[tuple[str, ...]] = ("labels",)
    independent_labels: ClassVar[bool] = True

    def __init__(
        self,
        dim: int,
        labels: Sequence[str],
        *,
        label_frequencies: Sequence[float] | None = None,
        balanced: bool = False,
        threshold: float = 0.5,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.vocabulary = Vocabulary(labels, _WHERE, "label")
        if not 0 < threshold < 1:
            raise InputError(f"{_WHERE}: got threshold {threshold}, expected a probability between 0 and 1")
        self.threshold = threshold
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(dim, len(self.vocabulary))
        shares_L = check_class_frequencies(label_frequencies, self.vocabulary) if balanced else None
        self.positive_weights: Tensor | None
        self.register_buffer(
            "positive_weights", None if shares_L is None else (1 - shares_L) / shares_L, persistent=False
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels, in the order of the logits."""
        return self.vocabulary.names

    @classmethod
    def options_for(cls, targets: Sequence[Any]) -> Mapping[str, Any]:
        """Return the labels and their frequencies; an imbalance above ten to one is logged.

        Args:
            targets: training labels; None if unknown.

        Example:
            >>> MultiLabelHead.options_for([["drama", "crime"], None, ["drama"], []])["labels"]
            ['crime', 'drama']
        """
        known = [target for target in targets if target is not None]
        stated = [_parse_target(target) for target in known]
        count_names(
            [name for target in stated for name, is_true in target.items() if is_true], _WHERE, "label"
        )
        names = sorted({name for target in stated for name in target})
        shares_L = cls(1, names).target_matrix(known).nanmean(0)
        return {"labels": names, "label_frequencies": shares_L.tolist()}

    @classmethod
    def metrics(cls, targets: Sequence[Any], name: str = "") -> TaskMetrics:
        cls.check_metric(name)
        return MultilabelMetrics.from_targets(targets)

    def forward(self, fused: Fused) -> Tensor:
        """[B, L] logits.

        Args:
            fused: B samples.
        """
        return self.project(self.dropout(fused.pooled))

    def loss(self, fused: Fused, targets: Sequence[MultiLabelTarget | None]) -> Tensor:
        """Binary cross-entropy, the (weighted) mean over the labels that are known.

        Args:
            fused: B samples.
            targets: one a sample: the labels that are there, or label -> whether it is, where not all are
                known; None where nothing is.

        Raises:
            InputError: a label that the head does not know, or another number of targets.
        """
        logits_BL = self(fused).float()
        if len(targets) != len(logits_BL):
            raise InputError(f"{_WHERE}: got {len(targets)} targets, expected {len(logits_BL)}, one a sample")
        truth_BL = self.target_matrix(targets).to(logits_BL.device)
        known_BL = ~truth_BL.isnan()
        costs_BL = F.binary_cross_entropy_with_logits(
            logits_BL, truth_BL.nan_to_num(), pos_weight=self.positive_weights, reduction="none"
        )
        return (costs_BL * known_BL).sum() / known_BL.sum().clamp_min(1)

    def target_matrix(self, targets: Sequence[MultiLabelTarget | None]) -> Tensor:
        """[B, L] 1 where the label is there, 0 where it is not, NaN where nobody knows.

        Args:
            targets: [B] labels of each sample; None if unknown.
        """
        rows = torch.full((len(targets), len(self.vocabulary)), float("nan"))
        for row, target in zip(rows, targets, strict=True):
            if target is None:
                continue
            if not isinstance(target, Mapping):
                row.zero_()
            for name, is_true in _parse_target(target).items():
                row[self.vocabulary.index(name)] = float(is_true)
        return rows

    @torch.no_grad()
    def probabilities(self, fused: Fused) -> Tensor:
        """Return the probability of each label, [B, L]; labels are independent.

        Args:
            fused: B samples.
        """
        return self(fused).float().sigmoid()

    @torch.no_grad()
    def predict(self, fused: Fused) -> list[list[str]]:
        """The labels of each sample whose probability reaches the threshold, in the order of the classes.

        Args:
            fused: B samples.
        """
        return [
            [name for name, is_true in zip(self.labels, row, strict=True) if is_true]
            for row in (self.probabilities(fused) >= self.threshold).tolist()
        ]

    @classmethod
    def example(cls, dim: int) -> tuple[MultiLabelHead, Fused, dict[str, Any]]:
        """A head, fused samples and loss arguments, for `mmattn.testing.plugin_checks.check_head`.

        Args:
            dim: width D.
        """
        tokens = Tokens.from_lengths(torch.randn(7, dim), torch.tensor([2, 1, 3, 1]), "text")
        fused = Fused(tokens, torch.randn(4, dim), torch.randn(4, 1, dim), tokens.presence)
        targets = [["crime"], ["drama", "war"], {"drama": False, "war": True}, []]
        return cls(dim, ["crime", "drama", "war"]), fused, {"targets": targets}


def _parse_target(target: Any) -> dict[str, bool]:
    """What a target says of the labels that it names."""
    if isinstance(target, Mapping):
        return {name: bool(is_true) for name, is_true in target.items()}
    if isinstance(target, str) or not isinstance(target, Sequence):
        raise InputError(
            f"{_WHERE}: got {target!r} as target, expected a list of names, or name -> true/false"
        )
    return dict.fromkeys(target, True)
