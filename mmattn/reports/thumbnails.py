"""Thumbnails as data URIs, so that a page carries its pictures in itself."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image, ImageOps

__all__ = ["thumbnail"]


def thumbnail(
    source: Path | bytes | Image.Image | None, width: int = 120, height: int = 180, quality: int = 72
) -> str | None:
    """A small JPEG as a data URI.

    Args:
        source: a path, encoded bytes, a PIL image, or None.
        width: the most it may be wide, in pixels; the shape of the picture is kept.
        height: the most it may be high.
        quality: of the JPEG.

    Returns:
        None where there is no picture, or none that can be read: a page shows a placeholder then, for
        whoever encodes the pictures reports what is broken.

    Example:
        >>> thumbnail(Image.new("RGB", (400, 600)))[:23], thumbnail(b"no picture")
        ('data:image/jpeg;base64,', None)
    """
    if source is None:
        return None
    try:
        if isinstance(source, Image.Image):
            image = source.copy()
        else:
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
                opened.draft("RGB", (2 * width, 2 * height))  # a JPEG is then decoded at reduced size
                image = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    image.thumbnail((width, height))
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
