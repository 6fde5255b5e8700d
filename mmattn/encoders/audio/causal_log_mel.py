"""Log-mel frames through causal convolutions: a clip can be encoded in chunks, as it is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from mmattn.encoders.audio.causal_convolution import CausalBlock, CausalHalving
from mmattn.encoders.audio.mel_encoder import MelEncoder
from mmattn.encoders.audio.mel_options import MelOptions
from mmattn.encoders.base import EncoderCard
from mmattn.errors import InputError
from mmattn.types import Tokens

__all__ = ["CausalLogMel", "CausalState"]

# Typical log power of speech: a stream cannot be normalised with the statistics of its whole clip.
_MEAN, _DEVIATION = -7.0, 4.0


@dataclass(frozen=True, eq=False)
class CausalState:
    """State of `CausalLogMel.step` between two chunks of a clip.

    Args:
        samples: [n] samples that the next frame still needs.
        convolution_states: state of each convolution, [1, T, channels].
        num_tokens: tokens so far.
    """

    samples: Tensor
    convolution_states: tuple[Tensor | None, ...]
    num_tokens: int = 0


class CausalLogMel(MelEncoder):
    """Encode log-mel frames with causal convolutions; trained with the model.

    Convolutions that halve the frame rate, then residual blocks of a depthwise convolution and a token-wise
    network. No token depends on later samples and loudness is not normalised over the clip, so `step` can
    encode a stream: any division into chunks gives the tokens of the whole clip. A token's `time` is the
    middle of its newest samples, in seconds.

    A causal network recognises a word some time after it was spoken: `tail_seconds` of silence after the clip
    let it emit the last one.

    Paper: Pratap et al. 2020, "Scaling Up Online Speech Recognition Using ConvNets", arXiv:2001.09727.

    Args:
        dim: width D of the tokens.
        num_halvings: convolutions that halve the frame rate; with 2 there is a token every 4 hops.
        layers: residual blocks.
        kernel_size: tokens that a block's convolution looks at.
        dropout: dropout probability in the blocks.
        tail_seconds: seconds of silence appended to a clip.
        modality: name of the modality in the tokens.
        **mel: options of the frames, see `mmattn.encoders.audio.mel_options.MelOptions`; a stream may be
            longer than `max_seconds`.

    Raises:
        InputError: an option is unknown or out of range.

    Example:
        >>> encoder = CausalLogMel(dim=16, sample_rate=8000, tail_seconds=0.0).eval()
        >>> tone = torch.sin(torch.arange(4001) * 0.3)
        >>> complete = encoder([tone])
        >>> first, state = encoder.step(tone[:1234])
        >>> second, state = encoder.step(tone[1234:], state)
        >>> complete.length_list, first.length_list, second.length_list, second.position[:2].tolist()
        ([12], [3], [9], [3, 4])
        >>> torch.allclose(complete.values, torch.cat([first.values, second.values]), atol=1e-5)
        True
    """

    name = "causal-log-mel"

    def __init__(
        self,
        *,
        dim: int = 128,
        num_halvings: int = 2,
        layers: int = 3,
        kernel_size: int = 9,
        dropout: float = 0.1,
        tail_seconds: float = 0.24,
        modality: str = "audio",
        **mel: Any,
    ):
        super().__init__(dim, MelOptions.from_keywords(self.name, mel), modality)
        if num_halvings < 1 or layers < 0 or kernel_size < 1 or tail_seconds < 0:
            raise InputError(
                f"causal-log-mel: got num_halvings={num_halvings}, layers={layers}, "
                f"kernel_size={kernel_size}, tail_seconds={tail_seconds}, "
                "expected num_halvings >= 1, layers >= 0, kernel_size >= 1, tail_seconds >= 0"
            )
        self.kernel_size, self.dropout, self.tail_seconds = kernel_size, dropout, tail_seconds
        self.stem = nn.ModuleList(
            CausalHalving(dim if index else self.mel.n_mels, dim) for index in range(num_halvings)
        )
        self.layers = nn.ModuleList(CausalBlock(dim, kernel_size, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def describe(self) -> EncoderCard:
        card = super().describe()
        return replace(card, preprocessing={**card.preprocessing, "tail_seconds": self.tail_seconds})

    def options(self) -> dict[str, Any]:
        network = {
            "num_halvings": len(self.stem),
            "layers": len(self.layers),
            "kernel_size": self.kernel_size,
            "dropout": self.dropout,
            "tail_seconds": self.tail_seconds,
        }
        return {**super().options(), **network}

    @property
    def token_seconds(self) -> float:
        """Seconds from one token to the next."""
        return self.mel.hop * 2 ** len(self.stem)

    @property
    def min_samples(self) -> float:
        """Samples of the shortest clip that, with its tail, gives one token."""
        return self.token_seconds * self.mel.sample_rate - self._tail_samples

    def frames(self, samples: Tensor) -> Tensor:
        """Compute the log-mel frames of a clip and of the silence after it.

        Args:
            samples: [n] at `sample_rate`.

        Returns:
            [T, n_mels].
        """
        return self._frames(F.pad(samples, (self._overlap_samples, self._tail_samples)))

    def encode(self, contents: Sequence[Any]) -> Tokens:
        clips = [self.read(content).to(self.device) for content in contents if content is not None]
        if not clips:
            return self.pack([None] * len(contents), times=[None] * len(contents))
        frames = [clip if clip.dim() == 2 else self.frames(clip) for clip in clips]
        x_BTD, _ = self._run_layers(
            pad_sequence(frames, batch_first=True), (None,) * len(self._causal_layers)
        )
        counts = [len(frames_TF) >> len(self.stem) for frames_TF in frames]  # padding comes later: no effect
        rows = iter([row[:count] for row, count in zip(x_BTD, counts, strict=True)])
        sequences = [None if content is None else next(rows) for content in contents]
        times = [None if row is None else self._token_times(0, len(row)) for row in sequences]
        return self.pack(sequences, times=times)

    @torch.no_grad()
    def step(
        self, samples: Tensor, state: CausalState | None = None, *, last: bool = False
    ) -> tuple[Tokens, CausalState]:
        """Encode the next chunk of one clip; positions and times continue from the previous chunk.

        Args:
            samples: [n] at `sample_rate`; n may be 0.
            state: state from the previous chunk; None at the start of the clip.
            last: True for the last chunk of the clip.

        Returns:
            Tokens of one sample, those that the chunk completes (perhaps none), and the state for the next
            chunk.
        """
        if state is None:
            state = CausalState(torch.zeros(self._overlap_samples), (None,) * len(self._causal_layers))
        samples = torch.cat([state.samples.to(self.device), samples.to(self.device)])
        if last:
            samples = F.pad(samples, (0, self._tail_samples))
        frames_TF = self._frames(samples)
        x_BTD, convolution_states = self._run_layers(frames_TF[None], state.convolution_states)
        start, count = state.num_tokens, x_BTD.shape[1]
        tokens = self.pack([x_BTD[0]], times=[self._token_times(start, count)])
        rest = samples[len(frames_TF) * self._hop_samples :]
        state = CausalState(rest, convolution_states, start + count)
        return replace(tokens, position=tokens.position + start), state

    def _run_layers(
        self, x_BTD: Tensor, states: Sequence[Tensor | None]
    ) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        new_states = []
        for layer, state in zip(self._causal_layers, states, strict=True):
            x_BTD, new_state = layer(x_BTD, state)
            new_states.append(new_state)
        return self.norm(x_BTD), tuple(new_states)

    def _frames(self, samples: Tensor) -> Tensor:
        """Frames of all complete windows, one per hop."""
        mel = self.mel
        window_samples = self._overlap_samples + self._hop_samples
        if len(samples) < window_samples:
            return samples.new_zeros(0, mel.n_mels)
        spectrum = _mel_spectrogram(mel.sample_rate, mel.n_mels, self._hop_samples, window_samples)
        power_TF = spectrum.to(samples.device)(samples).T
        return ((power_TF + 1e-6).log() - _MEAN) / _DEVIATION

    def _token_times(self, start: int, count: int) -> Tensor:
        return (torch.arange(start, start + count, device=self.device) + 0.5) * self.token_seconds

    @property
    def _causal_layers(self) -> list[Any]:
        return [*self.stem, *self.layers]

    @property
    def _hop_samples(self) -> int:
        return round(self.mel.hop * self.mel.sample_rate)

    @property
    def _overlap_samples(self) -> int:
        """Samples that a frame shares with the frames before; zeros before the start of a clip."""
        return round(self.mel.window * self.mel.sample_rate) - self._hop_samples

    @property
    def _tail_samples(self) -> int:
        return round(self.tail_seconds * self.mel.sample_rate)


@lru_cache(maxsize=8)
def _mel_spectrogram(sample_rate: int, n_mels: int, hop: int, window: int) -> Any:
    """Mel power of complete windows only, without padding."""
    from torchaudio.transforms import MelSpectrogram

    return MelSpectrogram(
        sample_rate,
        n_fft=window,
        hop_length=hop,
        n_mels=n_mels,
        norm="slaney",
        mel_scale="slaney",
        center=False,
    )
