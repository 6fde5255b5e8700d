"""Any timm network as a feature pyramid for torchvision's detectors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import timm
from timm.layers import freeze_batch_norm_2d
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7

from mmattn.encoders.image.efficientnet_lite0 import EfficientNetLite0
from mmattn.errors import InputError

__all__ = ["LITE0", "ExtraLevels", "FeaturePyramid"]

LITE0 = "efficientnet-lite0"  # the registry's name: its bundled weights come along
ExtraLevels = Literal["none", "pool", "p6p7"]


class FeaturePyramid(nn.Module):
    """Feature maps of a timm network, brought to one width from the coarsest down.

    Paper: Lin et al. 2017, "Feature Pyramid Networks for Object Detection", arXiv:1612.03144.

    Args:
        backbone: name of a timm network that gives features, or "efficientnet-lite0" for that network with
            the weights that a package of the registry carries.
        levels: which of its feature maps, from the finest (stride 2) counted from 0.
        out_channels: channels of every map that goes out.
        extra_levels: coarser maps on top: "none"; "pool", one, by pooling; "p6p7", two, by convolutions.
        pretrained: True for the bundled weights of efficientnet-lite0 or those that timm fetches from its
            hub; a file of timm weights; False for random ones. None: True for efficientnet-lite0 alone.
        frozen_stages: stages of the network that are not trained, from the input; "all" for the whole
            network.
        norm: "frozen" keeps means and scales of batch norms as they are, as small batches want it; "batch"
            trains them; None: frozen for pretrained networks.

    Attributes:
        out_channels: the width, as torchvision looks for it.
        strides: pixels from one cell to the next, of each map that goes out.
        mean, std: of the channels, as the network wants its pictures normalised.

    Raises:
        InputError: an unknown network, levels or a number of frozen stages that it does not have.

    Example:
        >>> import torch
        >>> pyramid = FeaturePyramid("resnet10t", levels=(1, 2), out_channels=32)
        >>> {name: tuple(x.shape) for name, x in pyramid(torch.zeros(1, 3, 64, 96)).items()}
        {'0': (1, 32, 16, 24), '1': (1, 32, 8, 12)}
    """

    def __init__(
        self,
        backbone: str = LITE0,
        levels: Sequence[int] = (2, 3, 4),
        out_channels: int = 256,
        *,
        extra_levels: ExtraLevels = "none",
        pretrained: bool | str | Path | None = None,
        frozen_stages: int | Literal["all"] = 0,
        norm: Literal["frozen", "batch"] | None = None,
    ):
        super().__init__()
        pretrained = backbone == LITE0 if pretrained is None else pretrained
        self.network, self.mean, self.std = _create_backbone(backbone, tuple(levels), pretrained)
        _freeze_stages(self.network, frozen_stages, backbone)
        if norm == "frozen" or (norm is None and pretrained is not False):
            self.network = freeze_batch_norm_2d(self.network)
        self.channels: list[int] = self.network.feature_info.channels()
        self.fpn = FeaturePyramidNetwork(
            self.channels, out_channels, extra_blocks=_extra_block(extra_levels, out_channels)
        )
        self.out_channels = out_channels
        self.strides: list[int] = list(self.network.feature_info.reduction())
        for _ in range({"none": 0, "pool": 1, "p6p7": 2}[extra_levels]):
            self.strides.append(2 * self.strides[-1])

    @property
    def names(self) -> list[str]:
        """Of the maps that go out, the finest first."""
        return [str(number) for number in range(len(self.strides))]

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Maps [B, width, h, w] by name, from normalised pictures [B, 3, H, W].

        Args:
            images: [B, 3, H, W] normalized.
        """
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for number, (features, channels) in enumerate(zip(self.network(images), self.channels, strict=True)):
            # Some transformers give channels last.
            maps[str(number)] = features if features.shape[1] == channels else features.permute(0, 3, 1, 2)
        # The extra levels come back under torchvision's own names.
        return OrderedDict(zip(self.names, self.fpn(maps).values(), strict=True))


def _create_backbone(
    backbone: str, levels: tuple[int, ...], pretrained: bool | str | Path
) -> tuple[Any, list[float], list[float]]:
    """A network that gives the levels, and the mean and deviation that its pictures are to have."""
    name = "tf_efficientnet_lite0" if backbone == LITE0 else backbone
    if not timm.is_model(name):
        raise InputError(f"detector: timm has no network {name!r}; timm.list_models() names them")
    options: dict[str, Any] = {"features_only": True, "out_indices": levels}
    if backbone != LITE0 and pretrained is True:
        options["pretrained"] = True
    elif not isinstance(pretrained, bool):
        options |= {"pretrained": True, "pretrained_cfg_overlay": {"file": str(pretrained)}}
    try:
        network = timm.create_model(name, **options)
    except (IndexError, AssertionError, ValueError) as error:
        raise InputError(f"detector: {backbone} has not the feature levels {levels} ({error})") from error
    if backbone != LITE0:
        published: Any = timm.get_pretrained_cfg(name)
        known = timm.data.resolve_data_config(pretrained_cfg=published.to_dict())
        return network, list(known["mean"]), list(known["std"])
    if pretrained is True:
        # The encoder holds the whole network, of which the features are a part under the same names.
        whole = EfficientNetLite0(frozen=False).trained.state_dict()
        network.load_state_dict({key: whole[key] for key in network.state_dict()})
    return network, [0.5] * 3, [0.5] * 3


def _extra_block(extra_levels: ExtraLevels, out_channels: int) -> ExtraFPNBlock | None:
    if extra_levels == "none":
        return None
    return LastLevelMaxPool() if extra_levels == "pool" else LastLevelP6P7(out_channels, out_channels)


def _freeze_stages(network: Any, frozen_stages: int | str, backbone: str) -> None:
    """Stop training the network up to the end of a stage; its parameters come in the order of its layers."""
    if frozen_stages == "all":
        network.requires_grad_(False)
    if not frozen_stages or frozen_stages == "all":
        return
    stages = [stage["module"] for stage in network.feature_info.info]
    if not isinstance(frozen_stages, int) or not 0 < frozen_stages <= len(stages):
        raise InputError(
            f"detector: got frozen={frozen_stages!r}, expected 0 to {len(stages)} stages of {backbone}, or "
            f"'all'"
        )
    # timm flattens some names: layers.1 becomes layers_1.
    ends = tuple(stages[frozen_stages - 1].replace(".", mark) + "." for mark in "._")
    names = [name for name, _ in network.named_parameters()]
    last = max((index for index, name in enumerate(names) if name.startswith(ends)), default=None)
    if last is None:  # a stage without weights of its own (an activation) ends where the next one starts
        after = tuple(stages[frozen_stages].replace(".", mark) + "." for mark in "._")
        last = min(index for index, name in enumerate(names) if name.startswith(after)) - 1
    for _, parameter in list(network.named_parameters())[: last + 1]:
        parameter.requires_grad_(False)
