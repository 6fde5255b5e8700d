"""The causal encoder: no token depends on what comes later, and pieces give the tokens of the whole."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmattn.encoders.audio.causal_convolution import CausalConvolution
from mmattn.encoders.audio.causal_log_mel import CausalLogMel
from mmattn.encoders.base import Unreadable
from mmattn.errors import InputError

RATE = 8000
SOUND = torch.randn(9001, generator=torch.Generator().manual_seed(0)) * 0.1


def encoder(**options: object) -> CausalLogMel:
    torch.manual_seed(1)
    return CausalLogMel(**{"dim": 10, "sample_rate": RATE, "n_mels": 11, "kernel_size": 5, **options}).eval()  # type: ignore[arg-type]


MADE = encoder()


@torch.no_grad()
def test_a_token_knows_nothing_of_what_comes_later() -> None:
    made = encoder(tail_seconds=0.0)
    whole = made([SOUND])
    changed = SOUND.clone()
    changed[5000:] = torch.randn(4001)
    other = made([changed])
    # 40 ms a token, 320 samples: the first 15 tokens are made of samples before 4,800.
    assert torch.equal(whole.values[:15], other.values[:15])
    assert (whole.values[16:] != other.values[16:]).any(1).all()


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 2500), min_size=1, max_size=12))
@torch.no_grad()
def test_pieces_give_the_tokens_of_the_whole(sizes: list[int]) -> None:
    sound = SOUND[: sum(sizes)]
    whole, state, parts = MADE([sound]), None, []
    for piece in sound.split(sizes) if sum(sizes) <= len(SOUND) else sound.split(997):
        tokens, state = MADE.step(piece, state)
        parts.append(tokens)
    parts.append(MADE.step(torch.zeros(0), state, last=True)[0])
    torch.testing.assert_close(torch.cat([part.values for part in parts]), whole.values, atol=1e-5, rtol=1e-4)
    assert torch.equal(torch.cat([part.position for part in parts]), whole.position)
    times = torch.cat([part.time for part in parts if part.time is not None])
    torch.testing.assert_close(times, whole.time)


@torch.no_grad()
def test_tokens_and_times_by_hand() -> None:
    # 9,001 samples and 1,920 of tail: 136 whole frames of 80, 34 tokens of four.
    tokens = MADE([SOUND])
    assert tokens.length_list == [34]
    assert tokens.time is not None
    assert tokens.time[:3].tolist() == pytest.approx([0.02, 0.06, 0.10])
    assert encoder(num_halvings=1, tail_seconds=0.0)([SOUND]).length_list == [112 // 2]


@torch.no_grad()
def test_kept_samples_and_kept_frames_give_the_same() -> None:
    clip = (SOUND.numpy(), RATE)
    frames, samples = encoder(cache_as="frames").read(clip), encoder(cache_as="samples").read(clip)
    assert (frames.dim(), samples.dim()) == (2, 1)
    torch.testing.assert_close(MADE([frames]).values, MADE([samples]).values)


def test_a_convolution_looks_at_its_kernel_and_no_further() -> None:
    layer = CausalConvolution(1, 1, kernel_size=3, stride=1)
    with torch.no_grad():
        layer.convolution.weight.copy_(torch.tensor([[[1.0, 10.0, 100.0]]]))
        layer.convolution.bias.zero_()  # type: ignore[union-attr]
        out, left = layer(torch.tensor([[[1.0], [2.0], [3.0]]]))
    assert out[0, :, 0].tolist() == [100.0, 210.0, 321.0]
    assert left[0, :, 0].tolist() == [2.0, 3.0]


def test_what_it_refuses() -> None:
    with pytest.raises(InputError, match="got cache_as='sample'. Did you mean 'samples'"):
        encoder(cache_as="sample")
    with pytest.raises(InputError, match="num_halvings=0"):
        encoder(num_halvings=0)
    with pytest.raises(InputError, match="n_mels=0"):
        encoder(n_mels=0)
    with pytest.raises(Unreadable, match="the clip is shorter than 0.04 s"):
        encoder(tail_seconds=0.0).read((SOUND.numpy()[:300], RATE))
    with pytest.raises(Unreadable, match="expected \\[n\\] or \\[T, 11\\]"):
        MADE.read(torch.zeros(5, 7))
