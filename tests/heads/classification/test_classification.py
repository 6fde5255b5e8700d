"""One class or several labels a sample: losses by hand, against PyTorch's own, and what is refused."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from torch.nn import functional as F

from mmattn import InputError
from mmattn.heads.classification.classification import ClassificationHead
from mmattn.heads.classification.multi_label import MultiLabelHead
from mmattn.testing.plugin_checks import check_head
from mmattn.types import Fused, Tokens

DIM = 7
NAMES = ["bird", "cat", "dog"]


def fused_of(pooled: torch.Tensor) -> Fused:
    tokens = Tokens.from_lengths(pooled, torch.ones(len(pooled), dtype=torch.int64), "text")
    return Fused(tokens, pooled, pooled[:, None], tokens.presence)


def says(head: ClassificationHead | MultiLabelHead, logits: list[list[float]]) -> Fused:
    """Fused samples of which the head says these logits."""
    with torch.no_grad():
        head.project.weight.copy_(torch.eye(len(head.vocabulary), head.project.in_features))
        head.project.bias.zero_()
    return fused_of(F.pad(torch.tensor(logits), (0, head.project.in_features - len(head.vocabulary))))


@pytest.mark.parametrize("head", ["classification", "labels"])
def test_the_heads_keep_their_contract(head: str) -> None:
    check_head(head)


def test_cross_entropy_by_hand_and_unknown_samples_take_no_part() -> None:
    head = ClassificationHead(DIM, NAMES)
    fused = says(head, [[math.log(2), 0.0, 0.0], [5.0, 1.0, 3.0], [0.0, 0.0, math.log(6)]])
    # Probabilities of the truth: 2/4 and 6/8.
    expected = -(math.log(0.5) + math.log(0.75)) / 2
    assert head.loss(fused, ["bird", None, "dog"]).item() == pytest.approx(expected, rel=1e-6)
    assert head.probabilities(fused)[0].tolist() == pytest.approx([0.5, 0.25, 0.25])
    assert head.predict(fused) == ["bird", "bird", "dog"]
    nothing = head.loss(fused, [None, None, None])
    assert nothing.item() == 0
    assert nothing.requires_grad


def test_balanced_classes_count_alike_whatever_their_number() -> None:
    targets = ["cat"] * 9 + ["dog"]
    options = ClassificationHead.options_for(targets)
    assert options == {"classes": ["cat", "dog"], "class_frequencies": [0.9, 0.1]}
    head = ClassificationHead(DIM, **options, balanced=True)
    fused = says(head, [[1.0, 0.0]] * 10)
    right, wrong = (-math.log(1 / (1 + math.exp(sign))) for sign in (-1.0, 1.0))
    assert head.loss(fused, targets).item() == pytest.approx((right + wrong) / 2, rel=1e-6)


def test_smoothing_is_pytorch_s() -> None:
    head = ClassificationHead(DIM, NAMES, label_smoothing=0.3)
    fused = fused_of(torch.randn(5, DIM))
    expected = F.cross_entropy(head(fused), torch.tensor([0, 1, 2, 2, 0]), label_smoothing=0.3)
    torch.testing.assert_close(head.loss(fused, ["bird", "cat", "dog", "dog", "bird"]), expected)


def test_labels_that_nobody_knows_take_no_part() -> None:
    head = MultiLabelHead(DIM, NAMES)
    fused = fused_of(torch.randn(4, DIM))
    targets = [["bird"], {"cat": True, "dog": False}, None, []]
    p = head(fused).sigmoid()
    costs = [
        *-p[0, :1].log(),
        *-(1 - p[0, 1:]).log(),
        -p[1, 1].log(),
        -(1 - p[1, 2]).log(),
        *-(1 - p[3]).log(),
    ]
    torch.testing.assert_close(head.loss(fused, targets), torch.stack(costs).mean())
    assert head.loss(fused, [None] * 4).item() == 0


def test_labels_above_the_threshold_are_predicted() -> None:
    head = MultiLabelHead(DIM, NAMES, threshold=0.8)
    assert head.predict(says(head, [[2.0, 1.0, 3.0], [0.0, 0.0, 0.0]])) == [["bird", "dog"], []]


def test_rare_labels_that_are_there_weigh_what_their_absence_weighs() -> None:
    targets = [["war"], [], [], [], {"drama": True}]
    options = MultiLabelHead.options_for(targets)
    assert options["labels"] == ["drama", "war"]
    assert options["label_frequencies"] == pytest.approx([1 / 5, 1 / 4])  # of those of whom it is known
    head = MultiLabelHead(DIM, **options, balanced=True)
    fused = says(head, [[0.0, 0.0]])
    assert head.loss(fused, [["war"]]).item() == pytest.approx((1 + 3) * math.log(2) / 2)


def test_unbalanced_classes_are_said_to_be(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        ClassificationHead.options_for(["cat"] * 20 + ["dog"] * 2)
        assert not caplog.records
        ClassificationHead.options_for(["cat"] * 21 + ["dog"] * 2)
    assert "class 'cat' is there 21 times, 'dog' 2 times" in caplog.text


def test_what_they_refuse() -> None:
    head, labels = ClassificationHead(DIM, NAMES), MultiLabelHead(DIM, NAMES)
    fused = fused_of(torch.randn(2, DIM))
    with pytest.raises(InputError, match="classification head: no class 'brid'. Did you mean 'bird'?"):
        head.loss(fused, ["brid", "cat"])
    with pytest.raises(InputError, match=r"got 3 \(int\) as class, expected a name"):
        head.loss(fused, [3, "cat"])  # type: ignore[list-item]
    with pytest.raises(InputError, match="got 1 targets, expected 2"):
        head.loss(fused, ["cat"])
    with pytest.raises(InputError, match="labels head: no label 'cow'"):
        labels.loss(fused, [["cow"], None])
    with pytest.raises(InputError, match="got 'cat' as target, expected a list of names"):
        labels.loss(fused, ["cat", None])
    with pytest.raises(InputError, match="got class 'cat' twice"):
        ClassificationHead(DIM, ["cat", "dog", "cat"])
    with pytest.raises(InputError, match="expected at least one class name"):
        ClassificationHead.options_for([None, None])
    with pytest.raises(InputError, match="balanced, but got none shares, expected 3"):
        ClassificationHead(DIM, NAMES, balanced=True)
    with pytest.raises(InputError, match="got the share 0.0, expected above 0"):
        MultiLabelHead(DIM, NAMES, balanced=True, label_frequencies=[0.0, 0.5, 0.5])
    with pytest.raises(InputError, match="got smoothing 1"):
        ClassificationHead(DIM, NAMES, label_smoothing=1)
    with pytest.raises(InputError, match="got threshold 0"):
        MultiLabelHead(DIM, NAMES, threshold=0)
