"""Read images from files, bytes and arrays as upright RGB."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from mmattn.encoders.base import Unreadable

__all__ = ["MAX_PIXELS", "read_image", "read_square_image"]

MAX_PIXELS = 64_000_000  # 8,000 x 8,000: 190 MB decoded


def read_square_image(content: Any, size: int) -> Tensor:
    """Read an image and resize it to a square.

    It is not cropped, since a poster's title is at its edge.

    Args:
        content: a path, the bytes of a file, a PIL image, or an array, as in `read_image`; a tensor of the
            result's shape and dtype passes through.
        size: side in pixels.

    Returns:
        uint8 [3, size, size].

    Raises:
        Unreadable: the image cannot be read, or the tensor has another shape or dtype.
    """
    if isinstance(content, Tensor):
        if content.dtype != torch.uint8 or content.shape != (3, size, size):
            raise Unreadable(
                f"got a {content.dtype} tensor {tuple(content.shape)}, expected uint8 [3, {size}, {size}]"
            )
        return content
    image = read_image(content, min_size=size)
    square = image.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()


def read_image(content: Any, *, min_size: int = 0, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read an image as upright RGB with 8 bits; transparency becomes white.

    Args:
        content: a path, the bytes of a file, a PIL image, or an array [H, W] or [H, W, C] with C = 1, 3 or 4,
            of uint8, uint16, or floating point from 0 to 1.
        min_size: sufficient side in pixels: a larger JPEG is decoded at a fraction of its size.
        max_pixels: an image that declares more is refused before it is decoded.

    Returns:
        The image.

    Raises:
        Unreadable: the image cannot be read; the message is the reason in a few words.

    Example:
        >>> import numpy as np
        >>> read_image(np.zeros((5, 7), np.uint8)).size
        (7, 5)
    """
    if isinstance(content, np.ndarray):
        return _from_array(content)
    if isinstance(content, Image.Image):
        return _to_rgb(content)
    if not isinstance(content, (Path, bytes)):
        raise Unreadable(f"got {type(content).__name__}, expected a Path, bytes, a PIL image or an array")
    data = _bytes_of(content) if isinstance(content, Path) else content
    if not data:
        raise Unreadable("the file is empty")
    try:
        with warnings.catch_warnings():
            # Pillow warns at a limit of its own; `max_pixels` is checked after the header has been read.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
        if image.width * image.height > max_pixels:
            raise Unreadable(
                f"it declares {image.width} x {image.height} pixels, at most {max_pixels:,} are read"
            )
        if min_size:
            image.draft(None, (2 * min_size, 2 * min_size))  # twice: the rest is resized properly
        return _to_rgb(image)
    except Unreadable:
        raise
    except UnidentifiedImageError as error:
        raise Unreadable("not an image in any known format") from error
    except Image.DecompressionBombError as error:
        raise Unreadable(f"it declares far more than {max_pixels:,} pixels") from error
    except Exception as error:  # decoders can raise anything on damaged files
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise Unreadable(f"damaged: {reason}") from error


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unreadable(f"cannot open {path}: {error.strerror}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        return _from_array(np.asarray(image))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _from_array(array: np.ndarray) -> Image.Image:
    """Convert [H, W] or [H, W, C]; Pillow would clip 16-bit values instead of scaling them."""
    shape = array.shape
    if array.ndim == 3 and shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0 or array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] not in (3, 4)):
        raise Unreadable(f"got an array {shape}, expected [H, W] or [H, W, 3 or 4]")
    if array.dtype == np.uint8:
        return _to_rgb(Image.fromarray(array))
    maximum = 65535 if array.dtype.kind in "iu" else 1
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= maximum):  # also true for NaN
        raise Unreadable(f"got {array.dtype} values from {low:g} to {high:g}, expected 0 to {maximum}")
    return _to_rgb(Image.fromarray(np.round(array.astype(np.float64) * (255 / maximum)).astype(np.uint8)))
