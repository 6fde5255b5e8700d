"""Audio through any Hugging Face speech model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmattn.encoders.audio.audio_io import read_clip
from mmattn.encoders.base import Unreadable
from mmattn.encoders.huggingface import HuggingFaceEncoder
from mmattn.encoders.pretrained import import_optional
from mmattn.errors import InputError, did_you_mean
from mmattn.types import Tokens

__all__ = ["HuggingFaceAudio"]

_MIN_SECONDS = 0.025  # one window of all usual speech models


class HuggingFaceAudio(HuggingFaceEncoder):
    """Tokens from the last hidden layer of a Hugging Face speech model: wav2vec 2.0, HuBERT, WavLM, Whisper.

    Only clips of equal length share a batch: the output of some of these models depends on padding.

    Args:
        model: a local folder, or a name on the Hugging Face hub, from which it is downloaded.
        pool: "frames": one token per frame, with its middle as `time`, in seconds from the start of the clip;
            "all": one token, the mean over the frames.
        batch_size: clips per batch of the network.
        max_seconds: the rest of a longer clip is ignored (Whisper itself stops at 30).
        revision: branch, tag or commit on the hub.
        frozen: False to fine-tune the model as `encoder.trained`.
        modality: name of the modality in the tokens.

    Raises:
        InputError: the model cannot be loaded, or an option is out of range.
        MissingDependency: transformers is not installed.
    """

    name = "hf-audio"
    pools = ("frames", "all")

    def __init__(
        self,
        model: str | Path,
        *,
        pool: str = "frames",
        batch_size: int = 16,
        max_seconds: float = 30.0,
        revision: str | None = None,
        frozen: bool = True,
        modality: str = "audio",
    ):
        if pool not in self.pools:
            raise InputError(f"hf-audio: got pool={pool!r}.{did_you_mean(pool, self.pools)}")
        super().__init__(
            model,
            revision=revision,
            tower="audio_model",  # of CLAP
            frozen=frozen,
            batch_size=batch_size,
            modality=modality,
        )
        self.pool = pool
        self.max_seconds = max_seconds

    @cached_property
    def feature_extractor(self) -> Any:
        """The model's feature extractor, which has its sample rate."""
        transformers = import_optional("transformers", "hf")
        return transformers.AutoFeatureExtractor.from_pretrained(self.model, revision=self.revision)

    def preprocessing(self) -> Mapping[str, Any]:
        return {"pool": self.pool, "max_seconds": self.max_seconds, "extractor": self.processor_hash}

    def options(self) -> dict[str, Any]:
        return {**super().options(), "pool": self.pool, "max_seconds": self.max_seconds}

    def read(self, content: Any) -> Tensor:
        """Read a clip at the model's sample rate.

        Args:
            content: as in `mmattn.encoders.audio.audio_io.read_clip`, or samples [n], which pass through.

        Returns:
            Samples [n].

        Raises:
            Unreadable: the clip cannot be read, is silent or shorter than 25 ms, or the tensor is not [n].
        """
        if isinstance(content, Tensor):
            if content.dim() != 1:
                raise Unreadable(f"got a tensor {tuple(content.shape)}, expected samples [n]")
            return content
        samples = read_clip(content, self.feature_extractor.sampling_rate, max_seconds=self.max_seconds)
        if len(samples) < _MIN_SECONDS * self.feature_extractor.sampling_rate:
            raise Unreadable(f"the clip is shorter than {_MIN_SECONDS} s")
        return samples

    def encode(self, contents: Sequence[Any]) -> Tokens:
        clips = {index: self.read(content) for index, content in enumerate(contents) if content is not None}
        rows: list[Tensor | None] = [None] * len(contents)
        times: list[Tensor | None] = [None] * len(contents)
        by_length = sorted(clips, key=lambda index: len(clips[index]))
        for length, group in groupby(by_length, key=lambda index: len(clips[index])):
            same_length = list(group)
            for start in range(0, len(same_length), self.batch_size):
                batch = same_length[start : start + self.batch_size]
                for index, row in zip(batch, self._hidden([clips[index] for index in batch]), strict=True):
                    seconds = length / self.feature_extractor.sampling_rate
                    rows[index] = row if self.pool == "frames" else row.mean(0, keepdim=True)
                    frame_T = torch.arange(len(row), device=self.device)
                    times[index] = (frame_T + 0.5) * (seconds / len(row))
        return self.pack(rows, times=times if self.pool == "frames" else None)

    def _hidden(self, clips: list[Tensor]) -> Tensor:
        """The last hidden layer [B, T, D] of clips of equal length, without padding frames."""
        features = self.feature_extractor(
            [clip.cpu().numpy() for clip in clips],
            sampling_rate=self.feature_extractor.sampling_rate,
            return_tensors="pt",
        )
        network = self.network
        inputs = features[network.main_input_name].to(self.device)
        with self.grad_context():
            hidden_BTD: Tensor = network(inputs).last_hidden_state
        padded_samples = getattr(self.feature_extractor, "n_samples", None)  # Whisper pads clips to 30 s
        if padded_samples:
            hidden_BTD = hidden_BTD[:, : math.ceil(hidden_BTD.shape[1] * len(clips[0]) / padded_samples)]
        return hidden_BTD
