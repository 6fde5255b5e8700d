"""One class a sample: which digit, which word, which mood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn.errors import InputError
from mmattn.evaluation.tasks.classification import ClassificationMetrics
from mmattn.heads.base import SupervisedHead
from mmattn.heads.vocabulary import Vocabulary, count_names
from mmattn.types import Fused, Tokens

if TYPE_CHECKING:
    from mmattn.evaluation.tasks.task_metrics import TaskMetrics

__all__ = ["ClassificationHead", "check_class_frequencies"]

_WHERE = "classification head"


class ClassificationHead(SupervisedHead):
    """One of several classes, from the joint vector. `MultiLabelHead` is for samples of several classes at
    once.

    Paper: Szegedy et al., "Rethinking the Inception Architecture", 2016 (label smoothing).

    Args:
        dim: width D of the fused vectors.
        classes: names of the classes C.
        class_frequencies: share of the training samples that each class has; only `balanced` asks for it.
        balanced: let every class count alike in the loss: a sample of class c weighs 1 / (C * shares[c]).
        label_smoothing: share of the target that is spread over all classes, from 0 to below 1.
        dropout: probability on the joint vector.

    Raises:
        InputError: no class, one named twice, or an option out of range.

    Example:
        >>> head, fused, inputs = ClassificationHead.example(dim=8)
        >>> head(fused).shape, head.loss(fused, **inputs).dim(), len(head.predict(fused))
        (torch.Size([4, 3]), 0, 4)
    """

    target_roles: ClassVar[tuple[str, ...]] = ("label",)

    def __init__(
        self,
        dim: int,
        classes: Sequence[str],
        *,
        class_frequencies: Sequence[float] | None = None,
        balanced: bool = False,
        label_smoothing: float = 0.0,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.vocabulary = Vocabulary(classes, _WHERE, "class")
        if not 0 <= label_smoothing < 1:
            raise InputError(f"{_WHERE}: got smoothing {label_smoothing}, expected a share from 0 to below 1")
        self.label_smoothing = label_smoothing
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(dim, len(self.vocabulary))
        shares_C = check_class_frequencies(class_frequencies, self.vocabulary) if balanced else None
        self.class_weights: Tensor | None
        self.register_buffer(
            "class_weights", None if shares_C is None else 1 / (len(shares_C) * shares_C), persistent=False
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return self.vocabulary.names

    @classmethod
    def options_for(cls, targets: Sequence[Any]) -> Mapping[str, Any]:
        """Return the classes and their frequencies; an imbalance above ten to one is logged.

        Args:
            targets: training classes; None if unknown.

        Example:
            >>> options = ClassificationHead.options_for(["cat", "dog", None, "cat", "cat"])
            >>> options["classes"], options["class_frequencies"]
            (['cat', 'dog'], [0.75, 0.25])
        """
        counts = count_names([target for target in targets if target is not None], _WHERE, "class")
        total = sum(counts.values())
        return {"classes": list(counts), "class_frequencies": [count / total for count in counts.values()]}

    @classmethod
    def metrics(cls, targets: Sequence[Any], name: str = "") -> TaskMetrics:
        cls.check_metric(name)
        return ClassificationMetrics.from_targets(targets)

    @classmethod
    def unseen_targets(cls, train: Sequence[Any], test: Sequence[Any]) -> Sequence[str]:
        return sorted(set(test) - set(train))

    def forward(self, fused: Fused) -> Tensor:
        """[B, C] logits.

        Args:
            fused: B samples.
        """
        return self.project(self.dropout(fused.pooled))

    def loss(self, fused: Fused, targets: Sequence[str | None]) -> Tensor:
        """Cross-entropy, the (weighted) mean over the samples whose class is known.

        Args:
            fused: B samples.
            targets: [B] classes; None if unknown.

        Raises:
            InputError: a class that the head does not know, or another number of targets.
        """
        logits_BC = self(fused).float()
        if len(targets) != len(logits_BC):
            raise InputError(f"{_WHERE}: got {len(targets)} targets, expected {len(logits_BC)}, one a sample")
        known = [row for row, target in enumerate(targets) if target is not None]
        if not known:
            return logits_BC.sum() * 0.0
        numbers = [self.vocabulary.index(targets[row]) for row in known]
        return F.cross_entropy(
            logits_BC[known],
            torch.tensor(numbers, device=logits_BC.device),
            weight=self.class_weights,
            label_smoothing=self.label_smoothing,
        )

    @torch.no_grad()
    def probabilities(self, fused: Fused) -> Tensor:
        """[B, C], adding up to one in each sample.

        Args:
            fused: B samples.
        """
        return self(fused).float().softmax(1)

    @torch.no_grad()
    def predict(self, fused: Fused) -> list[str]:
        """The likeliest class of each sample.

        Args:
            fused: B samples.
        """
        return [self.classes[number] for number in self(fused).argmax(1).tolist()]

    @classmethod
    def example(cls, dim: int) -> tuple[ClassificationHead, Fused, dict[str, Any]]:
        """A head, fused samples and loss arguments, for `mmattn.testing.plugin_checks.check_head`.

        Args:
            dim: width D.
        """
        tokens = Tokens.from_lengths(torch.randn(7, dim), torch.tensor([2, 1, 3, 1]), "text")
        fused = Fused(tokens, torch.randn(4, dim), torch.randn(4, 1, dim), tokens.presence)
        return cls(dim, ["bird", "cat", "dog"]), fused, {"targets": ["dog", None, "bird", "cat"]}


def check_class_frequencies(frequencies: Sequence[float] | None, vocabulary: Vocabulary) -> Tensor:
    """Check the frequencies of the classes in training, [C] float32.

    Args:
        frequencies: fraction of the training samples of each class.
        vocabulary: names of the classes.

    Raises:
        InputError: there are none, not one a class, or one that is not above 0 and at most 1.
    """
    if frequencies is None or len(frequencies) != len(vocabulary):
        got = "none" if frequencies is None else str(len(frequencies))
        raise InputError(
            f"{vocabulary.where}: balanced, but got {got} shares, expected {len(vocabulary)}, "
            f"one a {vocabulary.name_kind}"
        )
    if wrong := [share for share in frequencies if not 0 < share <= 1]:
        raise InputError(f"{vocabulary.where}: got the share {wrong[0]}, expected above 0 and at most 1")
    return torch.tensor(list(frequencies), dtype=torch.float32)
