"""The item tower: what is absent stays absent, ids are optional, weights travel alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmattn.config import FusionConfig
from mmattn.encoders.model_inputs import ModelInputs
from mmattn.encoders.text.tiny_text import TinyText
from mmattn.errors import InputError
from mmattn.model.build import build_item_tower
from mmattn.model.item_tower import ItemTower
from mmattn.types import Tokens

FUSION = FusionConfig(dim=12, heads=2, dropout=0.0)


@pytest.fixture
def items() -> ModelInputs:
    """Item 0 has both, 1 a text only, 2 a picture only, 3 nothing, 4 both."""
    pictures = torch.tensor([3, 0, 2, 0, 1])
    return ModelInputs(
        tokens={"image": Tokens.from_lengths(torch.randn(6, 7), pictures, "image")},
        contents={"text": ["Heat", "Up (2009)", None, None, "Alien"]},
    )


@pytest.fixture
def tower() -> ItemTower:
    torch.manual_seed(3)
    return build_item_tower({"text": TinyText(dim=11), "image": 7}, FUSION, dim=5, num_ids=5).eval()


def test_the_catalogue_and_its_tokens_give_the_same_vectors(tower: ItemTower, items: ModelInputs) -> None:
    numbers = torch.tensor([4, 0, 2])
    by_number = tower(items, numbers)
    by_tokens = tower(tower.tokens(items, numbers))
    assert by_number.shape == (3, 5)
    assert torch.equal(by_number, by_tokens)
    assert torch.allclose(tower.vectors(items, batch_size=2)[numbers], by_number, atol=1e-6)


def test_an_item_s_vector_does_not_depend_on_who_is_asked_for_with_it(
    tower: ItemTower, items: ModelInputs
) -> None:
    alone = torch.cat([tower(items, torch.tensor([number])) for number in range(5)])
    assert torch.allclose(tower.vectors(items), alone, atol=1e-6)
    assert torch.equal(alone[3], torch.zeros(5)), "no content, no vector"
    assert alone[[0, 1, 2, 4]].norm(dim=1).min() > 0.01


def test_learned_vectors_are_added_to_known_items_only(tower: ItemTower, items: ModelInputs) -> None:
    content = tower.vectors(items)
    assert tower.id_embedding is not None
    with torch.no_grad():
        tower.id_embedding.weight.copy_(torch.arange(25.0).view(5, 5))
    assert torch.equal(tower.vectors(items), content)
    expected = content + torch.tensor([1, 1, 1, 0, 0.0])[:, None] * tower.id_embedding.weight
    assert torch.allclose(tower.vectors(items, known_ids=torch.tensor([2, 0, 1])), expected)


def test_learned_vectors_are_dropped_at_the_rate_asked_for(items: ModelInputs) -> None:
    tower = build_item_tower({"text": TinyText(dim=8), "image": 7}, FUSION, num_ids=5, id_dropout=0.3)
    assert tower.id_embedding is not None
    torch.nn.init.constant_(tower.id_embedding.weight, 100.0)
    torch.manual_seed(0)
    numbers = torch.full((2003,), 3)  # has no content: what comes is the learned vector or nothing
    kept = (tower(items, numbers)[:, 0] == 100).float().mean().item()
    assert kept == pytest.approx(0.7, abs=0.04)


def test_gradients_reach_encoder_core_and_ids(items: ModelInputs) -> None:
    tower = build_item_tower({"text": TinyText(dim=8), "image": 7}, FUSION, dim=5, num_ids=5, id_dropout=0.0)
    with torch.no_grad():  # the network after the attention starts at zero and would hide its own weights
        blocks: Any = tower.core.blocks
        for block in blocks:
            block.attention.o_proj.weight.normal_()
            block.feed_forward[-1].weight.normal_()
    tower(items, torch.arange(5)).square().sum().backward()
    without = {name for name, value in tower.named_parameters() if value.grad is None or not value.grad.any()}
    # A softmax does not move when all keys move together; one position's code is scaled by zero.
    assert without <= {"core.blocks.0.attention.k_proj.bias"}


def test_calibration_takes_stored_tokens_and_leaves_the_rest(items: ModelInputs) -> None:
    tower = build_item_tower({"text": TinyText(dim=8), "image": 7}, FUSION)
    projections: Any = tower.core.input_projection.projections
    tower.calibrate(items, torch.tensor([0, 2]))
    length = items.tokens["image"].select([0, 2]).values.norm(dim=1).mean()
    assert projections["image"].scale.item() == pytest.approx(1 / length.item(), rel=1e-5)
    assert projections["text"].scale.item() == 1.0


def test_wrong_numbers_are_named(tower: ItemTower, items: ModelInputs) -> None:
    with pytest.raises(InputError, match="got items -1 to 5, expected 0 to 4"):
        tower(items, torch.tensor([-1, 5]))
    with pytest.raises(InputError, match="catalogue without item numbers"):
        tower(items)


def test_its_weights_load_into_another(tower: ItemTower, items: ModelInputs) -> None:
    other = build_item_tower({"text": TinyText(dim=11), "image": 7}, FUSION, dim=5, num_ids=5).eval()
    assert not torch.allclose(other.vectors(items), tower.vectors(items))
    other.load_state_dict(tower.state_dict())
    assert torch.equal(other.vectors(items), tower.vectors(items))
