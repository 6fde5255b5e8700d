"""A clip to see and to hear on a page: its spectrogram as a picture, its samples as a player's source."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from mmattn.encoders.audio.audio_io import mel_power, read_clip

__all__ = ["AudioClip", "render_clip"]

MAX_BYTES = 1_500_000  # of a clip inside a page
_RATE, _BANDS, _HOP, _WINDOW = 16000, 64, 0.010, 0.025
_DYNAMIC_RANGE_DB = 70.0  # decibels below the loudest that are still drawn


@dataclass(frozen=True)
class AudioClip:
    """A clip for a page.

    Args:
        duration: how long it is, as far as the encoder reads.
        spectrogram: a PNG as a data URI; time from left to right, low tones at the bottom.
        audio_uri: a WAV as a data URI, None where it would be too large for a page.
    """

    duration: float
    spectrogram: str
    audio_uri: str | None


def render_clip(content: Any, encoder: Any = None) -> AudioClip:
    """What there is to see and to hear of a clip.

    Args:
        content: a path, bytes, or (samples, rate), as `mmattn.encoders.audio.audio_io.read_clip` takes it.
        encoder: whose rate and longest clip are taken, where it has them.

    Raises:
        Unreadable: no clip, or one that cannot be read.

    Example:
        >>> sound = render_clip((np.sin(np.arange(8000) * 0.3).astype(np.float32), 8000))
        >>> sound.duration, sound.spectrogram[:22], sound.audio_uri[:22]
        (1.0, 'data:image/png;base64,', 'data:audio/wav;base64,')
    """
    import soundfile

    rate = int(getattr(encoder, "sample_rate", _RATE))
    samples = read_clip(content, rate, max_seconds=float(getattr(encoder, "max_seconds", 30.0)))
    power_TF = mel_power(samples, rate, n_mels=_BANDS, hop=_HOP, window=_WINDOW).numpy()
    decibels_TF = 10 * np.log10(power_TF + 1e-12)
    shade_TF = np.clip((decibels_TF - decibels_TF.max() + _DYNAMIC_RANGE_DB) / _DYNAMIC_RANGE_DB, 0, 1)
    picture = Image.fromarray(np.round(255 * shade_TF.T[::-1]).astype(np.uint8))
    drawn = io.BytesIO()
    picture.save(drawn, "PNG", optimize=True)
    player = None
    if 2 * len(samples) <= MAX_BYTES:
        written = io.BytesIO()
        soundfile.write(written, samples.numpy(), rate, format="WAV", subtype="PCM_16")
        player = _data_uri("audio/wav", written)
    return AudioClip(len(samples) / rate, _data_uri("image/png", drawn), player)


def _data_uri(kind: str, buffer: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
