"""Augmentation as a configuration names it: encoder -> how what it reads is changed, anew in each epoch."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from mmattn.boxes import Boxes
from mmattn.encoders.base import Encoder
from mmattn.errors import InputError, did_you_mean
from mmattn.training.augmentation.box_augment import BoxAugment
from mmattn.training.augmentation.speech_augment import speech_augment
from mmattn.training.tasks.supervised import Augment

__all__ = ["build_augment", "image_augment"]


def build_augment(encoders: Mapping[str, Encoder], spec: Mapping[str, Mapping[str, Any]]) -> Augment | None:
    """The augmentation of several modalities, one after the other; None where none is asked for.

    Args:
        encoders: modality -> encoder, which must be trained along: stored tokens cannot be changed.
        spec: modality -> options, of `mmattn.training.augmentation.speech_augment.speech_augment` for sound,
            of `image_augment` for pictures, or of `mmattn.training.augmentation.box_augment.BoxAugment` for
            pictures whose boxes move along (flips, turns, zoom, crop, ...).

    Raises:
        InputError: no such encoder, a frozen one, one whose contents cannot be changed, or options that do
            not exist.

    Example:
        >>> from mmattn.encoders.image.tiny_image import TinyImage
        >>> augment = build_augment({"image": TinyImage(dim=8, size=16)}, {"image": {"shift": 2}})
        >>> augment({"image": torch.zeros(3, 16, 16, dtype=torch.uint8)}, "seven")[1]
        'seven'
    """
    steps = [_build_step(name, encoders, dict(options)) for name, options in spec.items()]
    if not steps:
        return None

    def augment(contents: dict[str, Any], target: Any) -> tuple[dict[str, Any], Any]:
        for step in steps:
            contents, target = step(contents, target)
        return contents, target

    return augment


def _build_step(name: str, encoders: Mapping[str, Encoder], options: dict[str, Any]) -> Augment:
    if name not in encoders:
        raise InputError(f"augment: no encoder {name!r}.{did_you_mean(name, encoders)}")
    encoder = encoders[name]
    if encoder.frozen:
        raise InputError(f"augment.{name}: the encoder is frozen, expected one that is trained along")
    try:
        if hasattr(encoder, "frames"):
            return speech_augment(encoder, **options)
        if hasattr(encoder, "size"):
            return _image_augment_from_options(name, options)
    except TypeError as error:
        raise InputError(f"augment.{name}: {error}") from error
    raise InputError(f"augment.{name}: nothing is known for the encoder {encoder.describe().name!r}")


def _image_augment_from_options(name: str, options: dict[str, Any]) -> Augment:
    """By what the options are called: both kinds shift, in pixels or as a share of the sides."""
    if not options.keys() & {*signature(BoxAugment).parameters} - {*signature(image_augment).parameters}:
        return image_augment(name, **options)
    return BoxAugment(**options).for_modality(name)


def image_augment(modality: str, *, shift: int = 2, contrast: float = 0.2) -> Augment:
    """Pictures moved a little, and a little lighter or darker. What is said of them does not change.

    Args:
        modality: whose contents are pictures, uint8 [3, H, W].
        shift: pixels, at most, in each direction; what is uncovered repeats the edge.
        contrast: the distance from the middle grey is multiplied by 1 - contrast to 1 + contrast.

    Raises:
        InputError: an argument out of range; on use, boxes as target, which would have to move along.
    """
    if shift < 0 or not 0 <= contrast < 1:
        raise InputError(
            f"augment.{modality}: got shift {shift} and contrast {contrast}, expected pixels from 0 and a "
            "share below 1"
        )

    def augment(contents: dict[str, Any], target: Any) -> tuple[dict[str, Any], Any]:
        picture = contents.get(modality)
        if picture is None:
            return contents, target
        if isinstance(target, Boxes) and shift:
            raise InputError(
                f"augment.{modality}: got a shift for a task with boxes; with zoom or flips they move along"
            )
        return {**contents, modality: _shift_and_contrast(picture, shift, contrast)}, target

    return augment


def _shift_and_contrast(image: Tensor, shift: int, contrast: float) -> Tensor:
    down, across = torch.randint(0, 2 * shift + 1, (2,)).tolist()
    height, width = image.shape[1:]
    padded = v2.functional.pad(image, [shift] * 4, padding_mode="edge")
    moved = v2.functional.crop(padded, down, across, height, width).float()
    factor = 1 + contrast * (2 * torch.rand(()) - 1)
    # torchvision's adjust_contrast keeps the mean of each image; here the middle grey stays.
    return ((moved - 127.5) * factor + 127.5).round().clamp(0, 255).to(torch.uint8)
