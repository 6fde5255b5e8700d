"""Streams: any pieces give the text of the whole, with bounded memory; and when words were said."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.errors import InputError
from mmattn.heads.speech.decoding.prefix_beam import PrefixBeamDecoder
from mmattn.heads.speech.decoding.search import transcribe
from mmattn.model.build import build_encoders, build_model
from mmattn.model.model import Model
from mmattn.serving.streaming_asr import StreamingRecognizer

RATE = 8000
PROGRAM = 'Program(score=dot() >> relative("r", 8), mask=causal & window(7))'


def built(program: str = PROGRAM, encoder: str = "causal-log-mel", width: int = 0, heads: int = 2) -> Model:
    """A small model whose weights are all at work; its guesses change often."""
    torch.manual_seed(3)
    config = ModelConfig(
        {"audio": EncoderConfig(encoder, {"dim": 12, "sample_rate": RATE}, positional_encoding=False)},
        FusionConfig(dim=16, layers=2, heads=heads, width=width, program=program),
        {"ctc": HeadConfig("ctc", {"vocabulary": "abcdef "})},
    )
    model = build_model(build_encoders(config.encoders), config).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.startswith("core") or name.startswith("heads"):
                value.add_(torch.randn_like(value))
    return model


MODEL = built()


def tones(length: int) -> torch.Tensor:
    """Another tone every tenth of a second, louder and louder, in some noise."""
    generator = torch.Generator().manual_seed(1)
    pitch = torch.rand(length // 800 + 1, generator=generator).repeat_interleave(800)[:length] * 1.5
    return (pitch.cumsum(0).sin() + 0.1 * torch.randn(length, generator=generator)) * torch.linspace(
        0.01, 1, length
    )


SOUND = tones(11003)


def offline(model: Model, sound: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        fused = model.fuse({"audio": model.encoders["audio"]([sound])})
        return model.head("ctc")(fused).values


def text_of(model: Model, sound: torch.Tensor) -> str:
    with torch.no_grad():
        return model.head("ctc").predict(model.fuse({"audio": model.encoders["audio"]([sound])}))[0]


def pieces(sound: torch.Tensor, sizes: list[int]) -> list[torch.Tensor]:
    """Cut again and again by these sizes."""
    cut, index = [], 0
    for size in itertools.cycle(sizes):
        if index >= len(sound):
            return cut
        cut.append(sound[index : index + size])
        index += size
    return cut


def heard(model: Model, parts: list[torch.Tensor], **options: object) -> str:
    listener = StreamingRecognizer(model, **options)  # type: ignore[arg-type]
    for part in parts:
        listener.feed(part)
    return listener.finish()


WHOLE = text_of(MODEL, SOUND)


def test_there_is_something_to_compare() -> None:
    assert len(WHOLE) > 4
    assert len(set(WHOLE)) > 2


@pytest.mark.parametrize("sizes", [[80], [7], [997], [1, 313], [11003], [10, 0, 2003]], ids=str)
def test_any_pieces_give_the_text_of_the_whole(sizes: list[int]) -> None:
    sound = SOUND if min(sizes) > 7 or len(sizes) > 1 else SOUND[:2003]
    assert heard(MODEL, pieces(sound, sizes)) == text_of(MODEL, sound)


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=6), st.integers(0, 9000))
def test_random_pieces_of_random_clips_too(sizes: list[int], length: int) -> None:
    sound = SOUND[:length]
    assert heard(MODEL, pieces(sound, sizes)) == text_of(MODEL, sound)


@pytest.mark.parametrize(
    "model",
    [
        MODEL,
        built(width=8),
        built("Program(score=dot() >> alibi, mask=causal & dilated(12, 3))"),
        built("heads({(0, 1): Program(mask=causal & window(3)), (1, 2): Program(mask=causal)})"),
    ],
    ids=["window", "narrow", "dilated", "heads"],
)
def test_the_very_probabilities_are_the_same(model: Model) -> None:
    listener, fed = StreamingRecognizer(model), []
    listener.search.feed = fed.append  # type: ignore[method-assign, assignment]
    for part in pieces(SOUND, [513]):
        listener.feed(part)
    listener._process(torch.zeros(0), last=True)
    torch.testing.assert_close(
        torch.from_numpy(np.concatenate(fed)), offline(model, SOUND), atol=1e-4, rtol=1e-4
    )


def test_with_a_beam_as_well() -> None:
    alphabet = MODEL.head("ctc").tokenizer
    with torch.no_grad():
        tokens = MODEL.head("ctc")(MODEL.fuse({"audio": MODEL.encoders["audio"]([SOUND])}))
    expected = transcribe(tokens, lambda: PrefixBeamDecoder(alphabet, 8))[0]
    assert (
        heard(MODEL, pieces(SOUND, [331]), search_factory=lambda: PrefixBeamDecoder(alphabet, 8)) == expected
    )


def test_what_is_kept_does_not_grow_with_the_sound() -> None:
    listener = StreamingRecognizer(MODEL)
    sizes = []
    for part in torch.randn(RATE * 40).split(RATE):
        listener.feed(part)
        sizes.append((len(listener._state.samples), *(len(cache) for cache in listener._caches)))
    assert set(sizes) == {(120, 7, 7)}  # 15 ms that the next frame overlaps, and the window
    assert listener.seconds == 40.0


def test_a_file_is_followed_at_any_rate(tmp_path: Path) -> None:
    path = tmp_path / "talk.wav"
    soundfile.write(path, SOUND.numpy() * 0.2, RATE, subtype="FLOAT")
    texts = list(StreamingRecognizer(MODEL).transcribe(path, chunk_seconds=0.25))
    assert len(texts) == 6 + 1
    assert texts[-1] == text_of(MODEL, SOUND * 0.2)
    stereo = np.stack([SOUND.numpy()] * 2, axis=1)
    doubled = np.repeat(stereo, 2, axis=0) * 0.2
    assert list(StreamingRecognizer(MODEL).transcribe((doubled, 2 * RATE)))[-1]


def test_silence_and_nothing_are_heard_out() -> None:
    assert heard(MODEL, []) == text_of(MODEL, torch.zeros(0))
    assert heard(MODEL, [torch.zeros(5000)]) == text_of(MODEL, torch.zeros(5000))


def test_what_cannot_follow_a_stream() -> None:
    with pytest.raises(InputError, match=r"the mask window\(7\) may look ahead"):
        StreamingRecognizer(built("Program(mask=window(7))"))
    with pytest.raises(InputError, match="encoder 'log-mel' looks at whole clips"):
        StreamingRecognizer(built(encoder="log-mel"))
    with pytest.raises(InputError, match="no head 'ctx'"):
        StreamingRecognizer(MODEL, head="ctx")
    listener = StreamingRecognizer(MODEL)
    with pytest.raises(InputError, match=r"got samples \(2, 5\) torch.float32, expected finite floats"):
        listener.feed(torch.zeros(2, 5))
    with pytest.raises(InputError, match="expected finite floats"):
        listener.feed(torch.tensor([float("nan")]))
    listener.finish()
    with pytest.raises(InputError, match="the utterance is over"):
        listener.feed(torch.zeros(5))
