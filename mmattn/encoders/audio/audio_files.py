"""Read audio files of any length in blocks, and detect truncated ones."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mmattn.encoders.base import Unreadable

__all__ = ["AudioReader"]

# The note of libsndfile on a chunk with fewer samples than its header declares.
_TRUNCATION_NOTE = re.compile(r"^ *(?:data|SSND|Data Size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
_SIZE_UNKNOWN = 0x7FFF0000  # a writer into a pipe cannot know the size and declares the largest
_OGG_PAGE = 65536  # maximum bytes of a page
_OGG_HEADER, _OGG_FLAGS, _OGG_LAST = 27, 5, 4  # bytes of a page's header, its flags, and the last page's flag


class AudioReader:
    """Read a WAV, FLAC, OGG, MP3, AIFF or AU file in blocks.

    Args:
        content: a path or the file's bytes.

    Raises:
        Unreadable: the file cannot be opened, is empty, or is no audio in a known format.

    Example:
        >>> import io, numpy, soundfile
        >>> file = io.BytesIO()
        >>> soundfile.write(file, numpy.zeros((700, 2)), 8000, format="FLAC")
        >>> with AudioReader(file.getvalue()) as audio:
        ...     audio.sample_rate, [block.shape for block in audio.blocks(500)]
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
            raise Unreadable("not an audio file in a known format, or damaged") from error
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
        """Read the file in blocks.

        Args:
            block_frames: frames per block.
            max_frames: maximum frames in all; the rest is not read.

        Yields:
            float32 [T, channels], from -1 to 1; the last block may be shorter.

        Raises:
            Unreadable: the part that is read is damaged or truncated.
        """
        import soundfile

        frames_read = 0
        while frames_read < max_frames:
            size = int(min(block_frames, max_frames - frames_read))
            try:
                block = self._file.read(size, dtype="float32", always_2d=True)
            except (soundfile.SoundFileError, RuntimeError) as error:
                raise Unreadable(
                    f"damaged or cut off after {frames_read / self.sample_rate:.3g} s"
                ) from error
            frames_read += len(block)
            if len(block):
                yield block
            if len(block) < size:
                return self._check_complete(frames_read)
        return None

    def _check_complete(self, frames_read: int) -> None:
        """Compare the frames read up to the end of the file with what its header declares."""
        declared_frames = self._file.frames
        for declared, actual in _TRUNCATION_NOTE.findall(self._file.extra_info):
            if int(actual) < int(declared) < _SIZE_UNKNOWN:
                frames = round(frames_read * int(declared) / max(int(actual), 1))
                declared_frames = max(declared_frames, frames)
        if frames_read < declared_frames:
            raise Unreadable(
                f"cut off: it ends after {frames_read / self.sample_rate:.3g} s, "
                f"expected {declared_frames / self.sample_rate:.3g} s"
            )
        if self._file.format == "OGG" and not self._has_last_page():
            raise Unreadable(
                f"cut off: it ends after {frames_read / self.sample_rate:.3g} s without a last page"
            )

    def _has_last_page(self) -> bool:
        """Whether the last page of an OGG stream is present and complete."""
        size = self._handle.seek(0, io.SEEK_END)
        self._handle.seek(max(0, size - _OGG_PAGE))
        tail = self._handle.read()
        page = tail[max(0, tail.rfind(b"OggS")) :]
        table = page[_OGG_HEADER : _OGG_HEADER + page[_OGG_HEADER - 1]] if len(page) > _OGG_HEADER else b""
        complete = bool(table) and len(page) >= _OGG_HEADER + len(table) + sum(table)
        return complete and bool(page[_OGG_FLAGS] & _OGG_LAST)
