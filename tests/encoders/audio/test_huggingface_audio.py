from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmattn.encoders.audio.huggingface_audio import HuggingFaceAudio
from mmattn.encoders.audio.log_mel import LogMel
from mmattn.encoders.audio.resemblyzer import Resemblyzer
from mmattn.encoders.base import Unreadable
from mmattn.errors import InputError


def noise(seconds: float, rate: int = 16000, seed: int = 0) -> tuple[np.ndarray, int]:
    return (np.random.default_rng(seed).normal(size=round(seconds * rate)) * 0.1).astype(np.float32), rate


class TestLogMel:
    def test_a_token_every_four_hops_at_its_time(self) -> None:
        encoder = LogMel(dim=12, sample_rate=8000, n_mels=17, heads=3).eval()
        tokens = encoder([None, noise(1.0, 8000)])
        frames = 1 + 8000 // 80
        assert tokens.lengths.tolist() == [0, math.ceil(math.ceil(frames / 2) / 2)]
        assert tokens.time is not None
        assert tokens.time[:3].tolist() == pytest.approx([0.0, 0.04, 0.08])

    def test_a_click_moves_the_token_of_its_time_most(self) -> None:
        torch.manual_seed(0)
        encoder = LogMel(dim=12, sample_rate=8000, n_mels=17, heads=3, layers=0).eval()
        samples, rate = noise(1.0, 8000)
        clicked = samples.copy()
        clicked[4800:4840] += 3  # at 0.6 s
        before, after = encoder([(samples, rate), (clicked, rate)])
        moved = (after - before).norm(dim=1)
        assert abs(float(moved.argmax()) * 0.04 - 0.6) <= 0.04

    def test_learns_to_tell_two_tones_apart(self) -> None:
        torch.manual_seed(0)
        encoder = LogMel(dim=12, sample_rate=8000, n_mels=17, heads=3, layers=1, dropout=0.0)
        grid = np.arange(2000) / 8000
        clips = [
            ((np.sin(2 * np.pi * pitch * (1 + 0.01 * shift) * grid) * 0.3).astype(np.float32), 8000)
            for pitch in (400, 1500)
            for shift in range(4)
        ]
        read = [encoder.read(clip) for clip in clips]
        wanted = torch.tensor([0] * 4 + [1] * 4)
        head = torch.nn.Linear(12, 2)
        optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=3e-3)
        for _ in range(30):
            means = torch.stack([row.mean(0) for row in encoder(read)])
            loss = torch.nn.functional.cross_entropy(head(means), wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert loss < 0.05

    def test_refused(self) -> None:
        with pytest.raises(Unreadable, match=r"shorter than 0.025 s"):
            LogMel(sample_rate=8000).read(noise(0.01, 8000))
        with pytest.raises(Unreadable, match=r"expected \[n\] or \[T, 64\]"):
            LogMel().read(torch.zeros(5, 7))
        with pytest.raises(InputError, match="got dim=10 and heads=4"):
            LogMel(dim=10)
        with pytest.raises(InputError, match="hop=0.05"):
            LogMel(hop=0.05)
        with pytest.raises(InputError, match=r"got cache_as='sample'.*'samples'"):
            LogMel(cache_as="sample")
        with pytest.raises(InputError, match=r"got normalise='bands'.*'band'"):
            LogMel(normalise="bands")
        with pytest.raises(InputError, match="got floor_db=-3"):
            LogMel(floor_db=-3)
        with pytest.raises(InputError, match="got power_compression=2"):
            LogMel(power_compression=2)

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"normalise": "band"},
            {"floor_db": 60.0},
            {"power_compression": 0.1, "trim_db": 40.0, "fixed_length": 23},
        ],
    )
    def test_waveforms_in_a_batch_give_the_tokens_of_frames(self, options: dict[str, Any]) -> None:
        torch.manual_seed(0)
        clips = [noise(seconds, 8000, seed=3) for seconds in (0.31, 0.503, 0.0997)]
        made = LogMel(dim=16, sample_rate=8000, n_mels=23, cache_as="samples", **options).eval()
        read = [made.read(clip) for clip in clips]
        assert [content.shape for content in read] == [(2480,), (4024,), (798,)]
        frames = [made.frames(content) for content in read]
        expected, actual = made([frames[0], None, *frames[1:]]), made([read[0], None, *read[1:]])
        assert actual.length_list == expected.length_list
        torch.testing.assert_close(actual.values, expected.values, atol=2e-5, rtol=0)

    def test_bands_are_brought_to_one_level(self) -> None:
        encoder = LogMel(dim=16, sample_rate=8000, n_mels=23, normalise="band")
        frames = encoder.read(noise(0.5, 8000))
        assert frames.mean(0).abs().max() < 1e-5
        assert (frames.std(0) - 1).abs().max() < 0.05
        # Another microphone, a filter that is the same all through the clip, leaves next to nothing behind.
        clip, rate = noise(0.5, 8000)
        filtered = encoder.read((np.convolve(clip, [1.0, -0.5]), rate))
        assert (filtered[:-1] - frames[:-1]).abs().mean() < 0.1

    def test_words_are_trimmed_and_brought_to_one_length(self) -> None:
        clip, rate = noise(0.5, 8000)
        padded = np.concatenate([np.zeros(1600), clip, np.zeros(2400)])
        assert LogMel(dim=16, sample_rate=8000, n_mels=23).read((padded, rate)).shape == (101, 23)
        trimmed = LogMel(dim=16, sample_rate=8000, n_mels=23, trim_db=40.0).read((padded, rate))
        assert len(trimmed) in (51, 52, 53)  # a window reaches over the edges
        assert LogMel(dim=16, sample_rate=8000, n_mels=23, trim_db=40.0, fixed_length=31).read(
            (padded, rate)
        ).shape == (
            31,
            23,
        )
        frames = LogMel(dim=16, sample_rate=8000, n_mels=23).read((clip, rate))
        stretched = LogMel(dim=16, sample_rate=8000, n_mels=23, fixed_length=2 * len(frames) - 1).read(
            (clip, rate)
        )
        torch.testing.assert_close(stretched[::2], frames, atol=1e-4, rtol=0)

    def test_a_root_does_not_hear_how_loud_a_clip_is(self) -> None:
        encoder = LogMel(dim=16, sample_rate=8000, n_mels=23, power_compression=0.1)
        clip, rate = noise(0.5, 8000)
        torch.testing.assert_close(
            encoder.read((clip * 0.03, rate)), encoder.read((clip, rate)), atol=1e-3, rtol=0
        )

    def test_a_floor_hides_what_is_far_below_the_loudest(self) -> None:
        encoder = LogMel(dim=16, sample_rate=8000, n_mels=23, floor_db=30.0)
        clip, rate = noise(0.5, 8000)
        frames = encoder.read((np.concatenate([clip, clip * 1e-3]), rate))
        assert frames[60:].std() < 1e-6
        assert frames[:40].std() > 0.1


class TestHuggingFaceAudio:
    def test_frames_are_those_of_the_model(self, tiny_wav2vec: Path) -> None:
        from transformers import AutoFeatureExtractor, AutoModel

        clips = [noise(0.25, 8000, seed=1), None, noise(0.5, 8000, seed=2), noise(0.25, 8000, seed=3)]
        tokens = HuggingFaceAudio(tiny_wav2vec)(clips)
        extractor = AutoFeatureExtractor.from_pretrained(tiny_wav2vec)
        model = AutoModel.from_pretrained(tiny_wav2vec).eval()
        expected = []
        for clip in clips:
            if clip is not None:
                given = extractor(clip[0], sampling_rate=8000, return_tensors="pt").input_values
                with torch.no_grad():
                    expected.append(model(given).last_hidden_state[0])
        assert tokens.lengths.tolist() == [len(expected[0]), 0, len(expected[1]), len(expected[2])]
        torch.testing.assert_close(tokens.values, torch.cat(expected), rtol=1e-4, atol=1e-5)
        assert tokens.time is not None
        first = tokens.time[: len(expected[0])]
        assert float(first.min()) > 0
        assert float(first.max()) < 0.25

    def test_whisper_gives_no_tokens_for_its_filling(self, tiny_whisper: Path) -> None:
        tokens = HuggingFaceAudio(tiny_whisper)([noise(0.5), noise(2.0)])
        assert tokens.lengths.tolist() == [25, 100]  # 50 a second
        assert tokens.dim == 14

    def test_refused(self, tiny_wav2vec: Path) -> None:
        encoder = HuggingFaceAudio(tiny_wav2vec)
        with pytest.raises(Unreadable, match=r"shorter than 0.025 s"):
            encoder([noise(0.01)])
        with pytest.raises(Unreadable, match="the clip is silent"):
            encoder([(np.zeros(8000), 8000)])
        with pytest.raises(InputError, match="pool='frame'. Did you mean 'frames'"):
            HuggingFaceAudio(tiny_wav2vec, pool="frame")


class TestResemblyzer:
    @pytest.mark.slow  # its package imports librosa, which compiles for half a minute
    def test_parts_agree_with_the_package(self) -> None:
        reference = pytest.importorskip(
            "resemblyzer", reason="needs its voice detector", exc_type=ImportError
        )
        samples, rate = noise(4.3)
        expected, parts, slices = reference.VoiceEncoder("cpu", verbose=False).embed_utterance(
            samples, return_partials=True, rate=1 / 0.8
        )
        tokens = Resemblyzer(step_seconds=0.8)([(samples, rate)])
        np.testing.assert_allclose(tokens.values.numpy(), parts, atol=2e-3)
        middles = [(part.start + part.stop) / 2 / rate for part in slices]
        assert tokens.time is not None
        assert tokens.time.tolist() == pytest.approx(middles)
        np.testing.assert_allclose(
            Resemblyzer(pool="all", step_seconds=0.8)([(samples, rate)]).values[0], expected, atol=2e-3
        )

    @pytest.mark.parametrize(
        ("seconds", "parts"), [(0.3, 1), (1.6, 1), (1.9, 1), (2.1, 2), (2.7, 2), (4.0, 4)]
    )
    def test_stretches(self, seconds: float, parts: int) -> None:
        tokens = Resemblyzer()([noise(seconds)])
        assert tokens.lengths.tolist() == [parts]
        torch.testing.assert_close(tokens.values.norm(dim=1), torch.ones(parts))

    def test_loudness_does_not_matter_below_the_mark(self) -> None:
        samples, rate = noise(2.0)
        loud, quiet = Resemblyzer(pool="all")([(samples * 0.1, rate), (samples * 0.01, rate)])
        torch.testing.assert_close(loud, quiet, atol=1e-4, rtol=1e-3)

    def test_options_out_of_range(self) -> None:
        with pytest.raises(InputError, match="got step_seconds=2.0"):
            Resemblyzer(step_seconds=2.0)
        with pytest.raises(InputError, match="pool='part'"):
            Resemblyzer(pool="part")
