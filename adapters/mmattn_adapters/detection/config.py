"""What a detector may be asked to be: everything but its weights and what makes its tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from mmattn.errors import InputError
from mmattn_adapters.detection.pyramid import LITE0, ExtraLevels

__all__ = ["DetectorConfig", "Kind"]

Kind = Literal["faster-rcnn", "retinanet", "fcos"]


@dataclass(frozen=True)
class DetectorConfig:
    """A detector of torchvision around a timm network.

    Args:
        kind: which detector.
        classes: names; the single class "asked for" where the tokens say what is looked for.
        backbone: name of a timm network, or "efficientnet-lite0" (see `Pyramid`).
        levels: its feature maps, from stride 2 counted from 0; none: those of torchvision's own models.
        extra_levels: coarser maps on top of them, "none", "pool" or "p6p7"; left out, as in torchvision's own
            models.
        fpn_channels: channels of the pyramid.
        frozen_stages: stages of the network that are not trained, from the input; or "all".
        norm: are means and scales of batch norms trained ("batch") or not ("frozen")? Left out: frozen
            where the network's weights were trained before.
        min_size: pixels that the shorter side of a picture is brought to; left out, pictures stay as they
            are.
        max_size: pixels of the longer side, at most, where there is a size.
        num_convs: in each head of FCOS.
        representation_size: width of a region's vector in Faster R-CNN.
        program: attention from cells (modality "cell") and regions ("region") to tokens, as text.
        heads: of that attention.
        share_levels: one conditioning for all levels, or one each.
        image_key: key of `Sample.content` that holds the picture.
        options: further keyword arguments of torchvision's class (score_thresh, nms_thresh, ...).

    Raises:
        InputError: no class, or one that is named twice.
    """

    kind: Kind
    classes: tuple[str, ...]
    backbone: str = LITE0
    levels: tuple[int, ...] = ()
    extra_levels: ExtraLevels | None = None
    fpn_channels: int = 256
    frozen_stages: int | Literal["all"] = 0
    norm: Literal["frozen", "batch"] | None = None
    min_size: int | None = None
    max_size: int = 1333
    num_convs: int = 4
    representation_size: int = 1024
    program: str = "Program()"
    heads: int = 4
    share_levels: bool = True
    image_key: str = "image"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise InputError(f"got classes {list(self.classes)}, expected different names, at least one")
