"""Losses and miners by name: which there are, what they compute, what is refused, and exact resumption."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from mmattn import InputError
from mmattn.heads.contrastive.alignment import AlignmentHead
from mmattn.heads.contrastive.metric_learning import (
    available_losses,
    available_miners,
    build_contrastive_loss,
)

WIDTH, CLASSES = 5, 4
NEEDED: dict[str, dict[str, Any]] = {
    "CrossBatchMemory": {"loss": "ContrastiveLoss", "memory_size": 31},
    "RankedListLoss": {"margin": 0.5, "Tn": 10},
    **{
        name: {"num_classes": CLASSES}
        for name in (
            "ArcFaceLoss", "CosFaceLoss", "LargeMarginSoftmaxLoss", "NormalizedSoftmaxLoss", "P2SGradLoss",
            "ProxyAnchorLoss", "ProxyNCALoss", "SoftTripleLoss", "SphereFaceLoss", "SubCenterArcFaceLoss",
        )
    },
}  # fmt: skip


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return F.normalize(torch.randn(20, WIDTH, generator=generator)).requires_grad_(), torch.arange(20) % 4


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
@pytest.mark.parametrize("name", sorted(available_losses()))
def test_every_loss_is_built_by_its_name_and_gives_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    vectors, group = batch()
    loss = build_contrastive_loss({"name": name, "options": NEEDED.get(name, {})}, None, WIDTH)(
        vectors, group
    )
    (gradient,) = torch.autograd.grad(loss, vectors)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", sorted(available_miners()))
def test_every_miner_narrows_what_a_loss_sees(name: str) -> None:
    vectors, group = batch()
    contrast = build_contrastive_loss("ContrastiveLoss", name, WIDTH)
    assert torch.isfinite(contrast(vectors, group))
    assert contrast.miner is not None


def test_options_by_hand() -> None:
    # Anchor (0, 0), its like at distance 1, another thing at distance 2: with margin 1.5, triplets cost
    # 1 - 2 + 1.5 = 0.5 seen from the anchor, and 1 - sqrt(5) + 1.5 from its like.
    vectors, group = torch.tensor([[0.0, 0.0], [0.0, 1.0], [2.0, 0.0]]), torch.tensor([0, 0, 1])
    distance = {"name": "LpDistance", "options": {"normalize_embeddings": False}}
    options = {"margin": 1.5, "distance": distance, "reducer": {"name": "MeanReducer"}}
    contrast = build_contrastive_loss({"name": "TripletMarginLoss", "options": options}, None, 2)
    assert contrast(vectors, group).item() == pytest.approx((0.5 + 2.5 - 5**0.5) / 2, abs=1e-5)
    # The miner keeps the triplets within its margin of 1.1: only the first, whose gap is 1.
    miner = {"name": "TripletMarginMiner", "options": {"margin": 1.1, "distance": distance}}
    mined = build_contrastive_loss({"name": "TripletMarginLoss", "options": options}, miner, 2)
    assert mined(vectors, group).item() == pytest.approx(0.5, abs=1e-5)


def test_a_memory_compares_with_earlier_batches_and_resumes() -> None:
    spec = {"name": "CrossBatchMemory", "options": {"loss": "ContrastiveLoss", "memory_size": 17}}
    head = AlignmentHead(dim=WIDTH, embedding_dim=3, loss=spec)
    batches = [F.normalize(torch.randn(7, 3)) for _ in range(4)]
    group = torch.arange(7) % 3
    for vectors in batches[:3]:  # 21 rows through a queue of 17
        head.contrastive_loss(vectors, group)
    again = AlignmentHead(dim=WIDTH, embedding_dim=3, loss=spec)
    alone = copy.deepcopy(again).contrastive_loss(batches[3], group)
    again.load_state_dict(head.state_dict())
    expected = head.contrastive_loss(batches[3], group)
    assert again.contrastive_loss(batches[3], group) == expected != alone
    with pytest.raises(InputError, match="got a batch of 19 views, expected at most its memory_size, 17"):
        head.contrastive_loss(torch.randn(19, 3), torch.arange(19))


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match=r"no miner 'MultiSimilarityMinr'.*Did you mean 'MultiSimilarity"):
        build_contrastive_loss("SupConLoss", "MultiSimilarityMinr", 3)
    for hidden in ("BaseMetricLossFunction", "VICRegLoss", "os"):
        with pytest.raises(InputError, match=f"no loss '{hidden}'"):
            build_contrastive_loss(hidden, None, 3)
    with pytest.raises(InputError, match="loss ArcFaceLoss: .*num_classes"):
        build_contrastive_loss("ArcFaceLoss", None, 3)
    with pytest.raises(InputError, match="loss SupConLoss: .*'temprature'"):
        build_contrastive_loss({"name": "SupConLoss", "options": {"temprature": 1.0}}, None, 3)
    with pytest.raises(InputError, match="expected a name, or the keys name and options"):
        build_contrastive_loss({"loss": "SupConLoss"}, None, 3)
    with pytest.raises(InputError, match="no distance 'LpDistanc'"):
        build_contrastive_loss({"name": "SupConLoss", "options": {"distance": "LpDistanc"}}, None, 3)
