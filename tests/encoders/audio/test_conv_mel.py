"""The packed convolutions: no clip sees another, and what comes out is what padding would give."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmattn.encoders.audio.conv_mel import ConvMel, PackedConvolution, _concatenate_clips
from mmattn.errors import InputError

LENGTHS = (1, 2, 3, 4, 5, 31, 47)


def clips(bands: int = 13) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(length, bands, generator=generator) for length in LENGTHS]


def test_in_a_batch_as_alone_after_training_steps() -> None:
    torch.manual_seed(0)
    encoder = ConvMel(dim=6, n_mels=13, channels=(3, 5, 7), dropout=0.3).train()
    for _ in range(3):
        encoder(clips()).values.sum().backward()
    encoder.eval()
    together = encoder(clips())
    assert together.length_list == [(length + 3) // 4 for length in LENGTHS]
    for number, clip in enumerate(clips()):
        alone = encoder([clip]).values
        torch.testing.assert_close(together.select([number]).values, alone, atol=1e-5, rtol=0)


def test_a_packed_convolution_is_the_plain_one_on_each_clip() -> None:
    torch.manual_seed(0)
    packed = PackedConvolution(1, 4, (2, 2)).eval()
    x_NFC, clip_N = _concatenate_clips(clips())
    y_NFC = packed(x_NFC, clip_N[::2])
    assert not y_NFC[clip_N[::2] < 0].any()
    for number, clip in enumerate(clips()):
        expected_CTF = packed.convolution(clip[None, None])[0]
        expected = nn.functional.relu(expected_CTF / (1 + packed.norm.eps) ** 0.5).permute(1, 2, 0)
        torch.testing.assert_close(y_NFC[clip_N[::2] == number], expected, atol=1e-5, rtol=0)


def test_gaps_take_no_part_in_the_statistics() -> None:
    torch.manual_seed(0)
    packed = PackedConvolution(1, 4)
    x_NFC, clip_N = _concatenate_clips([clip + 3 for clip in clips()])
    packed(x_NFC, clip_N)
    rows = [packed.convolution(clip[None, None] + 3)[0].permute(1, 2, 0).reshape(-1, 4) for clip in clips()]
    expected = 0.1 * torch.cat(rows).mean(0)  # momentum 0.1, from zero
    torch.testing.assert_close(packed.norm.running_mean, expected, atol=1e-5, rtol=0)


def test_whole_channels_of_a_clip_are_dropped() -> None:
    torch.manual_seed(0)
    encoder = ConvMel(dim=6, n_mels=13, channels=(50, 3), dropout=0.5).train()
    x_NFC, clip_N = _concatenate_clips(clips())
    y_NFC, clip_N = encoder.stages[0](x_NFC, clip_N)
    dropped_BC = torch.stack([~y_NFC[clip_N == number].any((0, 1)) for number in range(len(LENGTHS))])
    assert 0.35 < dropped_BC[3:].float().mean() < 0.65
    assert len({tuple(row) for row in dropped_BC.tolist()}) == len(LENGTHS)


def test_words_of_one_length_have_as_many_tokens() -> None:
    encoder = ConvMel(dim=6, channels=(3, 5), fixed_length=24, cache_as="samples").eval()
    tokens = encoder([torch.randn(3001), None, torch.randn(977)])
    assert tokens.length_list == [6, 0, 6]
    assert tokens.position.tolist() == [0, 1, 2, 3, 4, 5] * 2


@pytest.mark.parametrize("options", [{"channels": (3,)}, {"channels": (3, 0)}, {"depth": 0}])
def test_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match="conv-mel: got channels=.* expected two stages or more"):
        ConvMel(**options)  # type: ignore[arg-type]
