"""Sound files a block at a time, whatever their length; one that ends too early is noticed."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mmattn.encoders.base import Unreadable

__all__ = ["AudioReader"]

# What libsndfile notes of samples that are fewer than their chunk's header says.
_TRUNCATION_NOTE = re.compile(r"^ *(?:data|SSND|Data Size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
_SIZE_UNKNOWN = 0x7FFF0000  # who writes into a pipe cannot know the size, and puts down the largest
_OGG_PAGE = 65536  # bytes of a page, at most
_OGG_HEADER, _OGG_FLAGS, _OGG_LAST = 27, 5, 4  # bytes of a page's header, its flags, and the last page's flag


class AudioReader:
    """A WAV, FLAC, OGG, MP3, AIFF or AU file that is read a block at a time.

    Args:
        content: a path or the file's bytes.

    Raises:
        Unreadable: it cannot be opened, is empty, or is no sound in a known format.

    Example:
        >>> import io, numpy, soundfile
        >>> file = io.BytesIO()
        >>> soundfile.write(file, numpy.zeros((700, 2)), 8000, format="FLAC")
        >>> with AudioReader(file.getvalue()) as sound:
        ...     sound.sample_rate, [block.shape for block in sound.blocks(500)]
        (8000, [(500, 2), (200, 2)])
    """

    def __init__(self, content: Path | bytes):
        import soundfile

        try:
            self._handle: BinaryIO = content.open("rb") if isinstance(content, Path) else io.BytesIO(content)
        except OSError as error:
            raise Unreadable(f"cannot open {str(content)!r}: {error.strerror}") from error
        try:
            if not self._handle.read(1):
                raise Unreadable("the file is empty")
            self._handle.seek(0)
            self._file = soundfile.SoundFile(self._handle)
        except (soundfile.SoundFileError, RuntimeError) as error:
            self._handle.close()
            raise Unreadable("not a sound file in a known format, or damaged") from error
        except Unreadable:
            self._handle.close()
            raise
        self.sample_rate: int = self._file.samplerate

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()
        self._handle.close()

    def blocks(self, block_frames: int, max_frames: float = float("inf")) -> Iterator[np.ndarray]:
        """Blocks [T, channels] of float32, from -1 to 1, in their order; the last may be shorter.

        Args:
            block_frames: of a block.
            max_frames: frames in all; what comes later is not read.

        Raises:
            Unreadable: the file is damaged, or ends before its header says, within what is read.
        """
        import soundfile

        taken = 0
        while taken < max_frames:
            wanted = int(min(block_frames, max_frames - taken))
            try:
                block = self._file.read(wanted, dtype="float32", always_2d=True)
            except (soundfile.SoundFileError, RuntimeError) as error:
                raise Unreadable(f"damaged or cut off after {taken / self.sample_rate:.3g} s") from error
            taken += len(block)
            if len(block):
                yield block
            if len(block) < wanted:
                return self._check_complete(taken)
        return None

    def _check_complete(self, frames_read: int) -> None:
        """The end of the file was reached: was it meant to be there?"""
        header = self._file.frames
        for said, found in _TRUNCATION_NOTE.findall(self._file.extra_info):
            if int(found) < int(said) < _SIZE_UNKNOWN:
                header = max(header, round(frames_read * int(said) / max(int(found), 1)))
        if frames_read < header:
            raise Unreadable(
                f"cut off: it ends after {frames_read / self.sample_rate:.3g} s, expected {header / self.sample_rate:.3g} s"
            )
        if self._file.format == "OGG" and not self._has_last_page():
            raise Unreadable(
                f"cut off: it ends after {frames_read / self.sample_rate:.3g} s without a last page"
            )

    def _has_last_page(self) -> bool:
        """Whether the last page of an OGG stream is there, and all of it."""
        size = self._handle.seek(0, io.SEEK_END)
        self._handle.seek(max(0, size - _OGG_PAGE))
        tail = self._handle.read()
        page = tail[max(0, tail.rfind(b"OggS")) :]
        table = page[_OGG_HEADER : _OGG_HEADER + page[_OGG_HEADER - 1]] if len(page) > _OGG_HEADER else b""
        whole = bool(table) and len(page) >= _OGG_HEADER + len(table) + sum(table)
        return whole and bool(page[_OGG_FLAGS] & _OGG_LAST)
