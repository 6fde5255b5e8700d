"""Streaming speech recognition, with the same result as for the whole clip."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmattn.encoders.audio.audio_io import iter_clip
from mmattn.errors import InputError
from mmattn.heads.speech.ctc import CTCHead
from mmattn.heads.speech.decoding.search import StreamingDecoder

if TYPE_CHECKING:
    from mmattn.attention.layer.kv_cache import Cache
    from mmattn.model.model import Model

__all__ = ["StreamingRecognizer"]


class StreamingRecognizer:
    """Streaming recognizer of one utterance or one endless stream.

    Encoder, core and decoder process each chunk once. If all attention programs have a bounded window, memory
    is constant apart from the text. The text does not depend on how the audio is cut: it is the text that the
    model gives for the whole clip.

    Args:
        model: with an encoder that can continue from a state (`causal-log-mel`), programs that look back only
            (`causal & window(64)`), and a CTC head. It is put into evaluation mode.
        head: name of the head.
        search_factory: creates a decoder over the head's symbols; None means
            the head's own (`CTCHead.build_decoder`).

    Raises:
        InputError: the encoder cannot stream, a program may look ahead, or the head is not a CTC head.

    Example:
        >>> from mmattn.model.build import build_encoders, build_model
        >>> from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
        >>> config = ModelConfig(
        ...     {"audio": EncoderConfig("causal-log-mel", {"dim": 16, "sample_rate": 8000},
        ...     positional_encoding=False)},
        ...     FusionConfig(dim=16, heads=2, program="Program(mask=causal & window(16))"),
        ...     {"ctc": HeadConfig("ctc", {"vocabulary": "ab "})},
        ... )
        >>> listener = StreamingRecognizer(build_model(build_encoders(config.encoders), config))
        >>> for piece in torch.randn(8000).split(1000):
        ...     text = listener.feed(piece)
        >>> isinstance(listener.finish(), str), listener.seconds
        (True, 1.0)
    """

    def __init__(
        self, model: Model, head: str = "ctc", search_factory: Callable[[], StreamingDecoder] | None = None
    ):
        self.model = model.eval()
        self.head: CTCHead = model.head(head)
        if not isinstance(self.head, CTCHead):
            raise InputError(f"recogniser: head {head!r} is {type(self.head).__name__}, expected a CTC head")
        modality = self.head.modality
        if modality not in model.encoders:
            raise InputError(
                f"recogniser: head {head!r} reads {modality!r}, of which the model has no encoder"
            )
        self.encoder = model.encoders[modality]
        if not hasattr(self.encoder, "step"):
            raise InputError(
                f"recogniser: encoder {self.encoder.name!r} looks at whole clips, expected one that can go "
                "on, such as 'causal-log-mel'"
            )
        self.search = (search_factory or self.head.build_decoder)()
        self.num_samples = 0
        self._state: Any = None
        self._caches: tuple[Cache, ...] = ()
        self._finished = False
        self.feed(torch.zeros(0))  # raises now, not in mid-stream, if a program looks ahead

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz that `feed` expects."""
        return int(self.encoder.sample_rate)

    @property
    def seconds(self) -> float:
        """Duration of the audio processed so far."""
        return self.num_samples / self.sample_rate

    @property
    def text(self) -> str:
        """Best text so far; a beam search may still change it."""
        return self.search.text

    def feed(self, samples: Tensor | NDArray[np.floating]) -> str:
        """Process the next chunk of audio.

        Args:
            samples: [n] floating point at `sample_rate` (see `mmattn.encoders.audio.audio_io.Resampler` for
                other rates); n may be 0. A chunk is processed at once, so cut long audio to fit into memory.

        Returns:
            The text so far.

        Raises:
            InputError: the samples are not [n] floats, not finite, or the utterance was finished.
        """
        self._process(samples, last=False)
        return self.search.text

    def finish(self) -> str:
        """End the utterance.

        Returns:
            The final text.
        """
        self._process(torch.zeros(0), last=True)
        self._finished = True
        return self.search.finish()

    def transcribe(self, content: Any, chunk_seconds: float = 1.0) -> Iterator[str]:
        """Transcribe a clip of any length from a file, in constant memory.

        Args:
            content: as in `mmattn.encoders.audio.audio_io.read_clip`.
            chunk_seconds: seconds of audio per chunk.

        Yields:
            The text after each chunk, and at the end the final text.

        Raises:
            Unreadable: the content cannot be read.
        """
        for piece in iter_clip(content, self.sample_rate, chunk_seconds=chunk_seconds):
            yield self.feed(piece)
        yield self.finish()

    @torch.no_grad()
    def _process(self, samples: Tensor | NDArray[np.floating], last: bool) -> None:
        if self._finished:
            raise InputError("recogniser: the utterance is over, expected a new recogniser for another one")
        heard = torch.as_tensor(samples)
        if heard.dim() != 1 or not heard.is_floating_point() or not bool(heard.isfinite().all()):
            raise InputError(
                f"recogniser: got samples {tuple(heard.shape)} {heard.dtype}, expected finite floats [n]"
            )
        tokens, self._state = self.encoder.step(heard.float(), self._state, last=last)
        fused, self._caches = self.model.core.decode({self.head.modality: tokens}, self._caches)
        self.search.feed(self.head.emissions(fused).values.cpu().numpy())
        self.num_samples += len(heard)
