"""How the contents of each encoder become padded tensors, and these the encoder's tokens.

A form is named in the exported file. Its `collate` needs no weights; its `forward` is what is exported.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn.attention.execution.padded import PaddedTokens
from mmattn.encoders.audio.log_mel import LogMel
from mmattn.encoders.base import Encoder
from mmattn.encoders.image.image_io import read_square_image
from mmattn.encoders.image.patch_encoder import PatchEncoder
from mmattn.encoders.image.tiny_image import TinyImage
from mmattn.encoders.text.tiny_text import HashedText, TinyText
from mmattn.errors import InputError

__all__ = ["PADDED_ENCODERS", "PaddedEncoder", "padded_encoder_for"]


class PaddedEncoder(nn.Module, ABC):
    """The padded form of one encoder.

    Args:
        encoder: the trained encoder.

    Attributes:
        name: under which an exported file names it.
        encoder_type: the encoders that it is the form of.
        dynamic_dims: input -> its dimensions of any length, beside the first, the samples.
    """

    name: ClassVar[str]
    encoder_type: ClassVar[type[Encoder]]
    dynamic_dims: ClassVar[Mapping[str, tuple[int, ...]]]

    def __init__(self, encoder: Any):
        super().__init__()
        self.encoder = encoder

    def settings(self) -> dict[str, Any]:
        """JSON values from which `reader` is made."""
        return self.encoder.options()

    @staticmethod
    @abstractmethod
    def reader(settings: Mapping[str, Any]) -> Any:
        """What reads contents as the encoder does, and has none of its weights.

        Args:
            settings: what the description of the exported model holds of the encoder.
        """

    @staticmethod
    @abstractmethod
    def collate(reader: Any, contents: Sequence[Any], min_length: int) -> dict[str, Tensor]:
        """Tensors of what `reader.read` gave, None where a content is absent.

        Args:
            reader: as `reader` makes it.
            contents: one a sample.
            min_length: the shortest rectangle.
        """

    @abstractmethod
    def forward(self, **inputs: Tensor) -> PaddedTokens:
        """The tokens.

        Args:
            **inputs: padded contents by name, as `inputs` of the encoder describes them.
        """

    def tokens(
        self, values: Tensor, mask: Tensor, position: Tensor, time: Tensor | None = None
    ) -> PaddedTokens:
        """Tokens of the encoder's one modality.

        Args:
            values: [B, T, D].
            mask: [B, T] whether a token is present.
            position: [B, T] int64 positions.
            time: [B, T] seconds; None without times.
        """
        return PaddedTokens(
            values, mask, torch.zeros_like(position), position, (self.encoder.modality,), time
        )


class PaddedTextEncoder(PaddedEncoder):
    """Words as rows of hashed n-grams, -1 where a row or a text is shorter."""

    name = "words"
    encoder_type = TinyText
    dynamic_dims: ClassVar = {"ngrams": (1, 2), "position": (1,)}

    @staticmethod
    def reader(settings: Mapping[str, Any]) -> TinyText:
        return TinyText(**{**settings, "dim": 1, "layers": 0})

    @staticmethod
    def collate(
        reader: TinyText, contents: Sequence[HashedText | None], min_length: int
    ) -> dict[str, Tensor]:
        read = [HashedText((), (), ()) if content is None else content for content in contents]
        most = max([min_length, *(len(words.ngram_counts) for words in read)])
        longest = max([min_length, *(count for words in read for count in words.ngram_counts)])
        grams_BTG = torch.full((len(read), most, longest), -1)
        place_BT = torch.full((len(read), most), -1)
        for sample, words in enumerate(read):
            place_BT[sample, : len(words.position)] = torch.tensor(words.position).long()
            rows = torch.tensor(words.ngrams).long().split(list(words.ngram_counts))
            for word, row in enumerate(rows if words.ngram_counts else ()):
                grams_BTG[sample, word, : len(row)] = row
        return {"ngrams": grams_BTG, "position": place_BT}

    def forward(self, ngrams: Tensor, position: Tensor) -> PaddedTokens:  # type: ignore[override]
        encoder: TinyText = self.encoder
        there_BTG = ngrams >= 0
        summed_BTD = (
            F.embedding(ngrams.clamp(min=0), encoder.ngram_embedding.weight) * there_BTG[..., None]
        ).sum(2)
        x_BTD = summed_BTD / there_BTG.sum(2, keepdim=True).clamp(min=1)
        # Word i + 1 follows word i in one field of one text.
        field_BT = position // _FIELD_STRIDE
        follows_BT1 = ((field_BT[:, 1:] == field_BT[:, :-1]) & (position[:, 1:] >= 0))[:, :, None]
        for mixer, norm in zip(encoder.mixers, encoder.norms, strict=True):
            y_BTD = norm(x_BTD)
            before_BTD = F.pad(y_BTD[:, :-1] * follows_BT1, (0, 0, 1, 0))
            after_BTD = F.pad(y_BTD[:, 1:] * follows_BT1, (0, 0, 0, 1))
            x_BTD = x_BTD + F.gelu(mixer(torch.cat([before_BTD, y_BTD, after_BTD], dim=2)))
        return self.tokens(x_BTD, position >= 0, position.clamp(min=0))


@dataclass(frozen=True)
class SquareImageReader:
    """Reads pictures as squares of `size` pixels."""

    size: int

    def read(self, content: Any) -> Tensor:
        """uint8 [3, size, size].

        Args:
            content: anything that the encoder reads as an image.
        """
        return read_square_image(content, self.size)


class PaddedImageEncoder(PaddedEncoder):
    """Squares of pixels, and which samples have one."""

    name = "pixels"
    encoder_type: ClassVar[type[Encoder]] = TinyImage
    dynamic_dims: ClassVar = {"pixels": (), "present": ()}

    def settings(self) -> dict[str, Any]:
        return {"size": self.encoder.size}

    @staticmethod
    def reader(settings: Mapping[str, Any]) -> SquareImageReader:
        return SquareImageReader(settings["size"])

    @staticmethod
    def collate(
        reader: SquareImageReader, contents: Sequence[Tensor | None], min_length: int
    ) -> dict[str, Tensor]:
        none = torch.zeros(3, reader.size, reader.size, dtype=torch.uint8)
        presence = torch.tensor([content is not None for content in contents])
        return {"pixels": torch.stack([none if c is None else c for c in contents]), "present": presence}

    def forward(self, pixels: Tensor, present: Tensor) -> PaddedTokens:  # type: ignore[override]
        patches_BTD = self.patches(pixels)
        mask_BT = present[:, None].expand(-1, patches_BTD.shape[1])
        position_T = torch.arange(patches_BTD.shape[1], device=pixels.device)
        return self.tokens(patches_BTD, mask_BT, position_T.expand(pixels.shape[0], -1))

    def patches(self, pixels: Tensor) -> Tensor:
        """[B, grid * grid, D].

        Args:
            pixels: [B, 3, size, size] uint8 images.
        """
        encoder: TinyImage = self.encoder
        return (
            encoder.network(pixels.float() / 127.5 - 1).flatten(2).transpose(1, 2)
            + encoder.position_embedding
        )


class PaddedPatchEncoder(PaddedImageEncoder):
    """Squares of pixels through a pretrained network.

    Args:
        encoder: the trained encoder.
    """

    name = "patches"
    encoder_type = PatchEncoder

    def __init__(self, encoder: PatchEncoder):
        super().__init__(encoder)
        self.network = encoder.network  # which a frozen encoder hides from its parameters

    def patches(self, pixels: Tensor) -> Tensor:
        patches_BTD: Tensor = self.encoder.encode_pixels(pixels)
        return patches_BTD


class PaddedMelEncoder(PaddedEncoder):
    """Log-mel frames, and how many of each clip; 0 where there is no clip."""

    name = "frames"
    encoder_type = LogMel
    dynamic_dims: ClassVar = {"frames": (1,), "length": ()}

    @staticmethod
    def reader(settings: Mapping[str, Any]) -> LogMel:
        return LogMel(**{**settings, "dim": settings["heads"], "layers": 0})

    @staticmethod
    def collate(reader: LogMel, contents: Sequence[Tensor | None], min_length: int) -> dict[str, Tensor]:
        read = iter(reader.batch_frames([content for content in contents if content is not None]))
        frames = [
            torch.zeros(0, reader.mel.n_mels) if content is None else next(read) for content in contents
        ]
        length_B = torch.tensor([len(frames_TF) for frames_TF in frames])
        # Two halvings leave `least` tokens of four times as many frames.
        longest = max(4 * min_length, int(length_B.max()))
        padded = [F.pad(frames_TF, (0, 0, 0, longest - len(frames_TF))) for frames_TF in frames]
        return {"frames": torch.stack(padded), "length": length_B}

    def forward(self, frames: Tensor, length: Tensor) -> PaddedTokens:  # type: ignore[override]
        encoder: LogMel = self.encoder
        x_BTD, length_B = frames, length
        for halving in encoder.stem:
            x_BTD, length_B = halving(x_BTD, length_B)
        position_T = torch.arange(x_BTD.shape[1], device=frames.device)
        # Where there is no clip one frame of nothing is attended to: a softmax over nothing is NaN.
        absent_BT = position_T >= length_B.clamp(min=1)[:, None]
        x_BTD = x_BTD + encoder.position_convolution(x_BTD.transpose(1, 2)).transpose(1, 2)
        for layer in encoder.layers:
            x_BTD = layer(x_BTD, src_key_padding_mask=absent_BT)
        position_BT = position_T.expand(frames.shape[0], -1)
        time_BT = position_BT * (4 * encoder.mel.hop)
        return self.tokens(encoder.norm(x_BTD), position_BT < length_B[:, None], position_BT, time_BT)


_FIELD_STRIDE = 256  # positions of one field of a text

PADDED_ENCODERS: dict[str, type[PaddedEncoder]] = {
    form.name: form for form in (PaddedTextEncoder, PaddedImageEncoder, PaddedPatchEncoder, PaddedMelEncoder)
}


def padded_encoder_for(encoder: Encoder) -> PaddedEncoder:
    """The form of an encoder.

    Args:
        encoder: the trained encoder.

    Raises:
        InputError: it has none; those that have one are named.
        InputError: the encoder has no padded form.
    """
    for form in PADDED_ENCODERS.values():
        if isinstance(encoder, form.encoder_type):
            return form(encoder)
    able = ", ".join(sorted(form.encoder_type.__name__ for form in PADDED_ENCODERS.values()))
    raise InputError(
        f"export: the encoder {encoder.name!r} of {encoder.modality!r} has no padded form; "
        f"those with one: {able}"
    )
