"""Log-mel frames through convolutions that look back only: a clip in pieces gives the tokens of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from mmattn.attention.layer.linear import Linear
from mmattn.encoders.audio.audio_io import read_clip
from mmattn.encoders.base import Encoder, EncoderCard, Unreadable
from mmattn.errors import InputError, did_you_mean
from mmattn.types import Tokens

__all__ = ["CausalConvolution", "CausalLogMel", "CausalState"]

_CACHE_AS = ("frames", "samples")
# Log power of speech, about: there is no looking at the whole clip for its own.
_MEAN, _DEVIATION = -7.0, 4.0


@dataclass(frozen=True, eq=False)
class CausalState:
    """What the next piece of a clip needs of the pieces before.

    Args:
        samples: those that the next frame still looks at.
        convolution_states: what each convolution still looks at, [1, T, channels].
        num_tokens: how many there were.
    """

    samples: Tensor
    convolution_states: tuple[Tensor | None, ...]
    num_tokens: int = 0


class CausalLogMel(Encoder):
    """Log-mel frames through convolutions over what has been heard; trained with the rest.

    Convolutions that halve the rate, then residual blocks of a depthwise convolution and a token-wise
    network. No token depends on what comes after it, and loudness is not normalised over the clip, so
    `step` can follow a stream: any pieces give the tokens of the whole. A token's `time` is the middle of
    the newest sound in it, in seconds.

    A causal network hears a word before it says so: `tail_seconds` seconds of silence after the end give it the
    time to say the last one.

    Paper: Pratap et al., "Scaling Up Online Speech Recognition Using ConvNets", 2020.

    Args:
        dim: width D of the tokens.
        sample_rate: samples a second that clips are brought to.
        n_mels: mel bands.
        hop: seconds from one frame to the next.
        window: seconds that a frame looks at.
        num_halvings: convolutions that halve the rate; with 2 there is a token every 4 hops.
        layers: residual blocks.
        kernel_size: tokens that a block's convolution looks at.
        dropout: in the blocks.
        tail_seconds: seconds of silence that are heard after the end of a clip.
        max_seconds: what comes later in a clip is left out; a stream has no end.
        cache_as: what `read` leaves: "frames" [T, bands], made once; or "samples" [n] at `sample_rate`, of which
            `encode` makes frames anew each time, for augmentation of waveforms.
        modality: name of the modality in the tokens.

    Raises:
        InputError: an option is out of range.
        Unreadable: a clip cannot be read, is silent, or is shorter than one token with its tail.

    Example:
        >>> encoder = CausalLogMel(dim=16, sample_rate=8000, tail_seconds=0.0).eval()
        >>> tone = torch.sin(torch.arange(4001) * 0.3)
        >>> whole = encoder([tone])
        >>> first, state = encoder.step(tone[:1234])
        >>> second, state = encoder.step(tone[1234:], state)
        >>> whole.length_list, first.length_list, second.length_list, second.position[:2].tolist()
        ([12], [3], [9], [3, 4])
        >>> torch.allclose(whole.values, torch.cat([first.values, second.values]), atol=1e-5)
        True
    """

    name = "causal-log-mel"

    def __init__(
        self,
        *,
        dim: int = 128,
        sample_rate: int = 16000,
        n_mels: int = 40,
        hop: float = 0.010,
        window: float = 0.025,
        num_halvings: int = 2,
        layers: int = 3,
        kernel_size: int = 9,
        dropout: float = 0.1,
        tail_seconds: float = 0.24,
        max_seconds: float = 30.0,
        cache_as: str = "frames",
        modality: str = "audio",
    ):
        super().__init__()
        if not 0 < hop <= window or n_mels < 1 or sample_rate < 1000:
            raise InputError(
                f"causal-log-mel: got sample_rate={sample_rate}, n_mels={n_mels}, hop={hop}, window={window}, "
                "expected sample_rate >= 1000, n_mels >= 1, 0 < hop <= window"
            )
        if num_halvings < 1 or layers < 0 or kernel_size < 1 or tail_seconds < 0:
            raise InputError(
                f"causal-log-mel: got num_halvings={num_halvings}, layers={layers}, kernel_size={kernel_size}, "
                f"tail_seconds={tail_seconds}, expected num_halvings >= 1, layers >= 0, kernel_size >= 1, "
                "tail_seconds >= 0"
            )
        if cache_as not in _CACHE_AS:
            raise InputError(f"causal-log-mel: got cache_as={cache_as!r}.{did_you_mean(cache_as, _CACHE_AS)}")
        self.dim = dim
        self.sample_rate, self.n_mels, self.hop, self.window = sample_rate, n_mels, hop, window
        self.kernel_size, self.dropout, self.tail_seconds = kernel_size, dropout, tail_seconds
        self.max_seconds, self.cache_as, self.modality = max_seconds, cache_as, modality
        self.stem = nn.ModuleList(_Halving(dim if place else n_mels, dim) for place in range(num_halvings))
        self.layers = nn.ModuleList(_Block(dim, kernel_size, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def describe(self) -> EncoderCard:
        heard = ("sample_rate", "n_mels", "hop", "window", "tail_seconds", "max_seconds")
        preprocessing = {name: getattr(self, name) for name in heard}
        return EncoderCard(self.name, self.modality, self.dim, revision="1", preprocessing=preprocessing)

    def options(self) -> dict[str, Any]:
        same = (
            "dim", "sample_rate", "n_mels", "hop", "window", "kernel_size", "dropout", "tail_seconds", "max_seconds",
            "cache_as", "modality",
        )  # fmt: skip
        options = {name: getattr(self, name) for name in same}
        return options | {"num_halvings": len(self.stem), "layers": len(self.layers)}

    @property
    def token_seconds(self) -> float:
        """From one token to the next."""
        return self.hop * 2 ** len(self.stem)

    def read(self, content: Any) -> Tensor:
        """Samples [n] at `rate` or log-mel frames [T, bands] on the CPU, as `keep` says."""
        if isinstance(content, Tensor):
            if content.dim() != 1 and (content.dim() != 2 or content.shape[1] != self.n_mels):
                raise Unreadable(f"got a tensor {tuple(content.shape)}, expected [n] or [T, {self.n_mels}]")
            return content
        samples = read_clip(content, self.sample_rate, max_seconds=self.max_seconds)
        if len(samples) + self._tail_samples < self.token_seconds * self.sample_rate:
            raise Unreadable(f"the clip is shorter than {self.token_seconds:g} s, one token")
        return samples if self.cache_as == "samples" else self.frames(samples)

    def frames(self, samples: Tensor) -> Tensor:
        """Log-mel frames [T, bands] of a whole clip [n] at `rate`, the silence after it among them."""
        return self._frames(F.pad(samples, (self._overlap_samples, self._tail_samples)))

    def size_hint(self, content: Any) -> int:
        return len(content) if isinstance(content, Tensor) else 0

    def encode(self, contents: Sequence[Any]) -> Tokens:
        there = [self.read(content).to(self.device) for content in contents if content is not None]
        if not there:
            return self.pack([None] * len(contents), times=[None] * len(contents))
        frames = [content if content.dim() == 2 else self.frames(content) for content in there]
        x_BTD, _ = self._run_layers(
            pad_sequence(frames, batch_first=True), (None,) * len(self._causal_layers)
        )
        counts = [len(one) >> len(self.stem) for one in frames]  # what comes after a clip is not seen by it
        rows = iter([row[:count] for row, count in zip(x_BTD, counts, strict=True)])
        sequences = [None if content is None else next(rows) for content in contents]
        return self.pack(
            sequences, times=[None if row is None else self._token_times(0, len(row)) for row in sequences]
        )

    @torch.no_grad()
    def step(
        self, samples: Tensor, state: CausalState | None = None, *, last: bool = False
    ) -> tuple[Tokens, CausalState]:
        """The tokens that a further piece of one clip completes, which go on counting positions and time.

        Args:
            samples: [n] at `rate`; n may be 0.
            state: what the call before returned; left out, the clip begins.
            last: the clip ends here.

        Returns:
            Tokens of one sample, perhaps none, and the state for the next piece.
        """
        before = state or CausalState(torch.zeros(self._overlap_samples), (None,) * len(self._causal_layers))
        samples = torch.cat([before.samples.to(self.device), samples.to(self.device)])
        if last:
            samples = F.pad(samples, (0, self._tail_samples))
        frames_TF = self._frames(samples)
        x_BTD, left = self._run_layers(frames_TF[None], before.convolution_states)
        count = x_BTD.shape[1]
        tokens = self.pack([x_BTD[0]], times=[self._token_times(before.num_tokens, count)])
        state = CausalState(samples[len(frames_TF) * self._hop_samples :], left, before.num_tokens + count)
        return replace(tokens, position=tokens.position + before.num_tokens), state

    def _run_layers(
        self, x_BTD: Tensor, states: Sequence[Tensor | None]
    ) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        kept = []
        for layer, before in zip(self._causal_layers, states, strict=True):
            x_BTD, after = layer(x_BTD, before)
            kept.append(after)
        return self.norm(x_BTD), tuple(kept)

    def _frames(self, samples: Tensor) -> Tensor:
        """Frames of all whole windows, one a hop."""
        if len(samples) < self._overlap_samples + self._hop_samples:
            return samples.new_zeros(0, self.n_mels)
        spectrum = _mel_spectrogram(
            self.sample_rate, self.n_mels, self._hop_samples, self._overlap_samples + self._hop_samples
        )
        power_TF = spectrum.to(samples.device)(samples).T
        return ((power_TF + 1e-6).log() - _MEAN) / _DEVIATION

    def _token_times(self, first: int, count: int) -> Tensor:
        return (torch.arange(first, first + count, device=self.device) + 0.5) * self.token_seconds

    @property
    def _causal_layers(self) -> list[Any]:
        return [*self.stem, *self.layers]

    @property
    def _hop_samples(self) -> int:
        return round(self.hop * self.sample_rate)

    @property
    def _overlap_samples(self) -> int:
        """Samples that a frame shares with the ones before; silence before the beginning."""
        return round(self.window * self.sample_rate) - self._hop_samples

    @property
    def _tail_samples(self) -> int:
        return round(self.tail_seconds * self.sample_rate)


class CausalConvolution(nn.Module):
    """A convolution over time, silence before the beginning, that can go on where it stopped.

    Args:
        channels: coming in.
        dim: going out.
        kernel_size: steps of time that it looks at.
        stride: steps from one result to the next, at most the kernel.
        groups: as in `nn.Conv1d`.

    Example:
        >>> layer, x = CausalConvolution(3, 5, kernel_size=4, stride=2), torch.randn(1, 7, 3)
        >>> whole, _ = layer(x)
        >>> one, left = layer(x[:, :3])
        >>> two, left = layer(x[:, 3:], left)
        >>> whole.shape, torch.allclose(whole, torch.cat([one, two], 1), atol=1e-6)
        (torch.Size([1, 3, 5]), True)
    """

    def __init__(self, channels: int, dim: int, kernel_size: int, stride: int = 1, groups: int = 1):
        super().__init__()
        self.convolution = nn.Conv1d(channels, dim, kernel_size, stride=stride, groups=groups)
        self.kernel_size, self.stride = kernel_size, stride

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Results [B, T', dim] that x [B, T, channels] completes, and what the next call needs.

        Args:
            x: T may be 0.
            state: what the call before returned; left out, this is the beginning.
        """
        if state is None:
            state = x.new_zeros(len(x), self.kernel_size - self.stride, x.shape[2])
        x = torch.cat([state, x], dim=1)
        count = max(0, (x.shape[1] - self.kernel_size) // self.stride + 1)
        rest = x[:, count * self.stride :]
        if not count:
            return x.new_zeros(len(x), 0, self.convolution.out_channels), rest
        return self.convolution(x.transpose(1, 2)).transpose(1, 2), rest


class _Halving(nn.Module):
    def __init__(self, channels: int, dim: int):
        super().__init__()
        self.convolution = CausalConvolution(channels, dim, kernel_size=5, stride=2)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        x, state = self.convolution(x, state)
        return F.gelu(self.norm(x)), state


class _Block(nn.Module):
    """A depthwise convolution, then a token-wise network, on a residual (ConvNeXt, Liu et al., 2022)."""

    def __init__(self, dim: int, kernel_size: int, dropout: float):
        super().__init__()
        self.convolution = CausalConvolution(dim, dim, kernel_size, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.network = nn.Sequential(Linear(dim, 2 * dim), nn.GELU(), Linear(2 * dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        heard, state = self.convolution(x, state)
        changed_ND = self.network(self.norm(heard).flatten(0, 1))
        return x + self.dropout(changed_ND).view_as(x), state


@lru_cache(maxsize=8)
def _mel_spectrogram(sample_rate: int, n_mels: int, hop: int, window: int) -> Any:
    """Mel power of whole windows only: nothing is imagined around the samples."""
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
