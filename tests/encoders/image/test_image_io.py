from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmattn.encoders.base import Unreadable
from mmattn.encoders.image.image_io import read_image, read_square_image

# Left half red, right half blue, 20 wide and 10 high.
TWO = np.zeros((10, 20, 3), np.uint8)
TWO[:, :10, 0] = 255
TWO[:, 10:, 2] = 255


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png_declaring(width: int, height: int) -> bytes:
    """A PNG whose header is right and whose pixels would not fit into any memory."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 999))
        + chunk(b"IEND", b"")
    )


class TestRightColours:
    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK"])
    def test_modes_come_out_as_rgb(self, mode: str) -> None:
        kind = "TIFF" if mode == "CMYK" else "PNG"
        picture = read_image(encoded(Image.fromarray(TWO).convert(mode), kind))
        assert picture.mode == "RGB"
        assert picture.getpixel((2, 5)) == (255, 0, 0)
        assert picture.getpixel((17, 5)) == (0, 0, 255)

    def test_a_cmyk_jpeg(self) -> None:
        picture = read_image(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"))
        red, green, blue = picture.getpixel((8, 8))
        assert red > 240
        assert green < 15
        assert blue < 15

    def test_16_bits_are_scaled_not_clipped(self) -> None:
        wide = np.array([[0, 257 * 100, 65535]], np.uint16)
        expected = [(0, 0, 0), (100, 100, 100), (255, 255, 255)]
        from_file = read_image(encoded(Image.fromarray(wide), "PNG"))
        assert [from_file.getpixel((x, 0)) for x in range(3)] == expected
        from_array = read_image(wide)
        assert [from_array.getpixel((x, 0)) for x in range(3)] == expected

    def test_grey_becomes_three_equal_channels(self) -> None:
        assert read_image(np.full((3, 5), 77, np.uint8)).getpixel((4, 2)) == (77, 77, 77)
        assert read_image(np.full((3, 5, 1), 77, np.uint8)).getpixel((4, 2)) == (77, 77, 77)

    def test_transparency_lies_on_white(self) -> None:
        clear = np.zeros((2, 2, 4), np.uint8)
        clear[:, 1] = (10, 20, 30, 255)
        picture = read_image(encoded(Image.fromarray(clear), "PNG"))
        assert picture.getpixel((0, 0)) == (255, 255, 255)
        assert picture.getpixel((1, 0)) == (10, 20, 30)

    def test_exif_rotation_is_undone(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6  # the camera lay on its side: turn a quarter clockwise
        picture = read_image(encoded(Image.fromarray(TWO), "PNG", exif=exif))
        assert picture.size == (10, 20)
        assert picture.getpixel((5, 2)) == (255, 0, 0)
        assert picture.getpixel((5, 17)) == (0, 0, 255)

    def test_floats_from_0_to_1(self) -> None:
        assert read_image(np.array([[0.0, 0.5, 1.0]])).tobytes()[::3] == bytes([0, 128, 255])

    def test_a_large_jpeg_is_decoded_small_and_looks_the_same(self) -> None:
        ramp = np.tile(np.linspace(0, 255, 1024, dtype=np.uint8), (768, 1))
        data = encoded(Image.fromarray(ramp), "JPEG", quality=95)
        assert read_image(data, min_size=64).size == (256, 192)  # an eighth would be less than twice 64
        assert read_image(data).size == (1024, 768)
        exact = read_square_image(np.asarray(read_image(data)), 64).int()
        assert (read_square_image(data, 64).int() - exact).abs().max() <= 3


class TestRefused:
    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "the file is empty"),
            (b"This is a letter, not a picture.", "not an image in any known format"),
            (png_declaring(40_000, 40_000), "pixels"),
            (png_declaring(9_000, 9_000), "it declares 9000 x 9000 pixels, at most 64,000,000"),
            (encoded(Image.fromarray(TWO.repeat(9, 0)), "JPEG")[:-200], "damaged: .*truncated"),
            (encoded(Image.fromarray(TWO), "PNG")[:60], "damaged|not an image"),
            ("poster.jpg", "got str, expected a Path"),
            (np.zeros((0, 5), np.uint8), r"got an array \(0, 5\)"),
            (np.zeros((5, 5, 2), np.uint8), r"got an array \(5, 5, 2\)"),
            (np.full((5, 5), np.nan), "expected 0 to 1"),
            (np.full((5, 5), 255.0), "from 255 to 255, expected 0 to 1"),
            (np.full((5, 5), -1), "from -1 to -1, expected 0 to 65535"),
            (torch.zeros(3, 5, 7, dtype=torch.uint8), r"expected uint8 \[3, 16, 16\]"),
        ],
    )
    def test_with_the_reason(self, content: Any, reason: str) -> None:
        with pytest.raises(Unreadable, match=reason):
            read_square_image(content, 16)

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(Unreadable, match=r"cannot open .*x\.jpg: No such file"):
            read_image(tmp_path / "x.jpg")

    def test_a_bomb_costs_no_memory(self) -> None:
        import tracemalloc

        data = png_declaring(40_000, 40_000)
        tracemalloc.start()
        with pytest.raises(Unreadable):
            read_image(data)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1_000_000


def test_the_square_holds_the_whole_picture() -> None:
    pixels = read_square_image(TWO, 16)
    assert pixels.shape == (3, 16, 16)
    assert pixels.dtype == torch.uint8
    assert pixels[:, 8, 1].tolist() == [255, 0, 0]
    assert pixels[:, 8, 14].tolist() == [0, 0, 255]
    assert read_square_image(pixels, 16) is pixels
