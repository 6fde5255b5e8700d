"""torchvision's detectors step by step, with room for tokens between the steps.

Their own `forward` has no place for them. The steps are the networks' own methods, in the same order: with
nothing to condition on, the results are theirs to the bit (a test holds it).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torchvision.models.detection import FCOS
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import fastrcnn_loss

__all__ = ["Detections", "Losses", "RegionFn", "run_one_stage", "run_two_stage"]

Detections = list[dict[str, Tensor]]  # boxes, scores and labels of each picture, in the network's own pixels
Losses = dict[str, Tensor]
RegionFn = Callable[[Tensor, list[int]], Tensor]  # vectors of all regions and how many each picture has


def run_one_stage(
    network: Any, images: ImageList, maps: OrderedDict[str, Tensor], targets: Detections | None
) -> tuple[Losses, Detections]:
    """Run FCOS or RetinaNet after the backbone: losses in training, detections in evaluation.

    Args:
        network: the torchvision detector.
        images: as its transform returned them.
        maps: feature maps by name.
        targets: for training; None in evaluation.
    """
    features = list(maps.values())
    outputs = network.head(features)
    anchors = network.anchor_generator(images, features)
    cells = [feature.shape[2] * feature.shape[3] for feature in features]
    per_level = [network.anchor_generator.num_anchors_per_location()[0] * count for count in cells]
    if network.training:
        # Only FCOS wants to know where a level ends: each is for boxes of some sizes.
        levels = (per_level,) if isinstance(network, FCOS) else ()
        return network.compute_loss(targets, outputs, anchors, *levels), []
    split = {name: list(output.split(per_level, dim=1)) for name, output in outputs.items()}
    split_anchors = [list(anchor.split(per_level)) for anchor in anchors]
    return {}, network.postprocess_detections(split, split_anchors, images.image_sizes)


def run_two_stage(
    network: Any,
    images: ImageList,
    maps: OrderedDict[str, Tensor],
    targets: Detections | None,
    region_fn: RegionFn | None,
) -> tuple[Losses, Detections]:
    """Run Faster R-CNN after the backbone: losses in training, detections in evaluation.

    Args:
        network: the torchvision detector.
        images: as its transform returned them.
        maps: feature maps by name.
        targets: for training; None in evaluation.
        region_fn: changes the regions' vectors before they are classified; None leaves them.
    """
    proposals, losses = network.rpn(images, maps, targets)
    heads = network.roi_heads
    if network.training:
        proposals, _, labels, offsets = heads.select_training_samples(proposals, targets)
    vectors_RD = heads.box_head(heads.box_roi_pool(maps, proposals, images.image_sizes))
    if region_fn is not None:
        vectors_RD = region_fn(vectors_RD, [len(boxes) for boxes in proposals])
    logits, moves = heads.box_predictor(vectors_RD)
    if network.training:
        loss_classifier, loss_box = fastrcnn_loss(logits, moves, labels, offsets)
        return {"loss_classifier": loss_classifier, "loss_box_reg": loss_box, **losses}, []
    result = heads.postprocess_detections(logits, moves, proposals, images.image_sizes)
    return {}, [
        {"boxes": boxes, "scores": scores, "labels": labels}
        for boxes, scores, labels in zip(*result, strict=True)
    ]
