"""torchvision's detectors around a pyramid of any width and any number of levels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign

from mmattn.errors import InputError, did_you_mean
from mmattn_adapters.detection.config import DetectorConfig, Kind
from mmattn_adapters.detection.pyramid import ExtraLevels, FeaturePyramid

__all__ = ["DEFAULT_EXTRA_LEVELS", "DEFAULT_LEVELS", "FIRST_CLASS_ID", "DetectorTransform", "build_network"]

# The levels of a timm network and what comes on top of them, where nothing is said: as torchvision's own.
DEFAULT_LEVELS: Mapping[Kind, tuple[int, ...]] = {
    "faster-rcnn": (1, 2, 3, 4),
    "retinanet": (2, 3, 4),
    "fcos": (2, 3, 4),
}
DEFAULT_EXTRA_LEVELS: Mapping[Kind, ExtraLevels] = {
    "faster-rcnn": "pool",
    "retinanet": "p6p7",
    "fcos": "p6p7",
}
# The number of the first class: in Faster R-CNN, 0 is the background.
FIRST_CLASS_ID: Mapping[Kind, int] = {"faster-rcnn": 1, "retinanet": 0, "fcos": 0}

_DETECTOR_CLASSES: Mapping[Kind, type[nn.Module]] = {
    "faster-rcnn": FasterRCNN,
    "retinanet": RetinaNet,
    "fcos": FCOS,
}
_ASPECT_RATIOS = (0.5, 1.0, 2.0)  # of an anchor's sides
_ROI_SIZE = 7  # cells a side of a pooled region


def build_network(pyramid: FeaturePyramid, config: DetectorConfig) -> Any:
    """A torchvision detector around the pyramid.

    Args:
        pyramid: of the detector.
        config: of the detector.

    Raises:
        InputError: an option that torchvision's class does not take, or a width that FCOS cannot have.
    """
    kind, made = config.kind, _DETECTOR_CLASSES[config.kind]
    parts = _faster_rcnn(pyramid, config) if kind == "faster-rcnn" else _one_stage(pyramid, config)
    _check_options(made, config.options, parts)
    network = made(pyramid, **config.options, **parts)
    # torchvision swallows `transform=` without a word (vision#8840): it is put in place afterwards.
    network.transform = DetectorTransform(pyramid, config.min_size, config.max_size)
    return network


def _faster_rcnn(pyramid: FeaturePyramid, config: DetectorConfig) -> dict[str, Any]:
    sizes = tuple((8 * stride,) for stride in pyramid.strides)
    return {
        "rpn_anchor_generator": AnchorGenerator(sizes, (_ASPECT_RATIOS,) * len(sizes)),
        # The coarsest level, pooled, is for proposals alone, as in torchvision's own models.
        "box_roi_pool": MultiScaleRoIAlign(pyramid.names[: len(pyramid.channels)], _ROI_SIZE, 2),
        "box_head": TwoMLPHead(pyramid.out_channels * _ROI_SIZE**2, config.representation_size),
        "box_predictor": FastRCNNPredictor(config.representation_size, len(config.classes) + 1),
    }


def _one_stage(pyramid: FeaturePyramid, config: DetectorConfig) -> dict[str, Any]:
    options: dict[str, Any] = {"num_classes": len(config.classes)}
    if config.kind == "retinanet":
        sizes = tuple(
            tuple(4 * stride * 2 ** (third / 3) for third in range(3)) for stride in pyramid.strides
        )
        return options | {"anchor_generator": AnchorGenerator(sizes, (_ASPECT_RATIOS,) * len(sizes))}
    if pyramid.out_channels % 32:
        raise InputError(
            f"detector: got width {pyramid.out_channels}, expected a multiple of 32: FCOS norms groups"
        )
    points = AnchorGenerator(tuple((stride,) for stride in pyramid.strides), ((1.0,),) * len(pyramid.strides))
    head = FCOSHead(pyramid.out_channels, 1, len(config.classes), config.num_convs)
    return options | {"anchor_generator": points, "head": head}


class DetectorTransform(GeneralizedRCNNTransform):
    """torchvision's way to a batch; pictures stay as they are where no size is given.

    Args:
        pyramid: says how pictures are normalised, and what their sides are padded to a multiple of.
        min_size: pixels of the shorter side, or None.
        max_size: pixels of the longer side, at most.
    """

    def __init__(self, pyramid: FeaturePyramid, min_size: int | None, max_size: int):
        divisible = pyramid.strides[len(pyramid.channels) - 1]
        super().__init__(min_size or max_size, max_size, pyramid.mean, pyramid.std, size_divisible=divisible)
        self.resizes = min_size is not None

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        if self.resizes:
            return super().resize(image, target)
        return image, target


def _check_options(
    detector_class: type[nn.Module], options: Mapping[str, Any], reserved: Mapping[str, Any]
) -> None:
    """Refuse what the class does not name (it would swallow it), and what is made here."""
    code = detector_class.__init__.__code__
    names = sorted({*code.co_varnames[2 : code.co_argcount]} - {*reserved, "min_size", "max_size"})
    for name in options:
        if name not in names:
            raise InputError(
                f"detector: {detector_class.__name__} takes no {name!r} here.{did_you_mean(name, names)}"
            )
