"""Augmentation of sound: what each step does to a signal whose answer is known by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmattn.encoders.audio.audio_io import mel_center_frequencies
from mmattn.encoders.audio.log_mel import LogMel
from mmattn.errors import InputError
from mmattn.training.augmentation.speech_augment import (
    AddNoise,
    AudioTransform,
    Compose,
    FrameShift,
    FrequencyMask,
    Gain,
    PitchShift,
    RandomApply,
    RoomReverb,
    SpectralTilt,
    SpeedPerturbation,
    TimeMask,
    TimeShift,
    VocalTractPerturbation,
    default_spectrogram_transforms,
    default_waveform_transforms,
    speech_augment,
)

RATE = 8000
FRAMES = torch.arange(31 * 23, dtype=torch.float32).reshape(31, 23).sin()


def tone(hertz: float, samples: int = 4001) -> Tensor:
    return torch.sin(2 * math.pi * hertz * torch.arange(samples) / RATE)


def pitch_of(sound: Tensor) -> float:
    """Hertz of the strongest frequency."""
    spectrum = torch.fft.rfft(sound * torch.hann_window(len(sound))).abs()
    return float(spectrum.argmax()) * RATE / len(sound)


WAVES: list[AudioTransform] = [
    SpeedPerturbation(),
    PitchShift(RATE),
    Gain(),
    TimeShift(RATE),
    AddNoise(),
    SpectralTilt(),
    RoomReverb(RATE),
    default_waveform_transforms(RATE),
]
SPECTRA: list[AudioTransform] = [
    VocalTractPerturbation(RATE),
    FrameShift(),
    TimeMask(),
    FrequencyMask(),
    default_spectrogram_transforms(RATE),
]


@pytest.mark.parametrize("step", WAVES + SPECTRA, ids=lambda step: type(step).__name__)
def test_every_step_draws_from_the_global_generator_and_leaves_its_input_alone(step: AudioTransform) -> None:
    sound = tone(440) if step in WAVES else FRAMES.clone()
    before, actual = sound.clone(), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        actual.append(step(sound))
    assert torch.equal(sound, before)
    assert torch.equal(actual[0], actual[1])
    assert actual[0].shape != actual[2].shape or not torch.equal(actual[0], actual[2])
    assert actual[0].isfinite().all()
    assert actual[0].dtype == torch.float32


@pytest.mark.parametrize("step", WAVES, ids=lambda step: type(step).__name__)
@pytest.mark.parametrize("sound", [torch.zeros(797), torch.randn(211)], ids=["silence", "short"])
def test_silence_and_short_clips_go_through(step: AudioTransform, sound: Tensor) -> None:
    changed = step(sound)
    assert changed.isfinite().all()
    assert bool(changed.any()) == bool(sound.any())


def test_speed_changes_length_and_pitch_by_its_factor() -> None:
    faster = SpeedPerturbation(1.25, 1.25)(tone(400, 5000))
    assert len(faster) == 4000
    assert pitch_of(faster) == pytest.approx(500, abs=4)
    assert torch.equal(SpeedPerturbation(1.0, 1.0)(tone(400)), tone(400))


def test_pitch_keeps_the_length() -> None:
    torch.manual_seed(3)
    heard = [PitchShift(RATE, 3.0)(tone(440)) for _ in range(20)]
    assert {len(sound) for sound in heard} == {4001}
    semitones = [12 * math.log2(pitch_of(sound) / 440) for sound in heard]
    assert max(semitones) <= 3.3
    assert min(semitones) >= -3.3
    assert max(semitones) - min(semitones) > 3


def test_shift_moves_and_fills_with_silence() -> None:
    sound = torch.arange(1, 8, dtype=torch.float32)
    seen = set()
    for seed in range(30):
        torch.manual_seed(seed)
        seen.add(tuple(TimeShift(1, 2.0)(sound).int().tolist()))
    assert seen == {
        (1, 2, 3, 4, 5, 6, 7),
        (0, 1, 2, 3, 4, 5, 6),
        (0, 0, 1, 2, 3, 4, 5),
        (2, 3, 4, 5, 6, 7, 0),
        (3, 4, 5, 6, 7, 0, 0),
    }


@pytest.mark.parametrize("decibels", [0.0, 17.0])
def test_noise_is_at_the_ratio_asked_for(decibels: float) -> None:
    sound = tone(300)
    added = AddNoise(decibels, decibels)(sound) - sound
    ratio = 10 * math.log10(float(sound.square().sum() / added.square().sum()))
    assert ratio == pytest.approx(decibels, abs=0.05)


def test_tilt_is_so_many_decibels_an_octave_and_keeps_the_power() -> None:
    torch.manual_seed(0)
    chord = tone(500, 8000) + tone(1000, 8000)
    tilted = SpectralTilt(6.0)(chord)
    spectrum = torch.fft.rfft(tilted).abs()
    octave = 20 * math.log10(float(spectrum[1000] / spectrum[500]))
    torch.manual_seed(0)
    assert octave == pytest.approx(-6 + 12 * float(torch.rand(())), abs=0.01)
    assert float(tilted.norm()) == pytest.approx(float(chord.norm()), rel=1e-4)


def test_a_room_s_echo_falls_by_sixty_decibels_and_has_the_energy_asked_for() -> None:
    torch.manual_seed(5)
    response = RoomReverb(RATE, 0.25, 0.25, max_echo_ratio=0.5).impulse_response()
    assert len(response) == 2000
    assert response[0] == 1.0
    echo = response[1:]
    assert 0 < float(echo.square().sum()) <= 0.5
    # Energies of the first and the fifth of five stretches: 4/5 of 60 dB lie between them.
    early, late = echo[:400].square().mean(), echo[-399:].square().mean()
    assert 10 * math.log10(float(early / late)) == pytest.approx(48, abs=2)


def test_a_room_without_echo_changes_nothing() -> None:
    torch.testing.assert_close(RoomReverb(RATE, max_echo_ratio=0.0)(tone(440)), tone(440), atol=1e-5, rtol=0)


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_a_vocal_tract_moves_a_formant_by_its_factor(factor: float) -> None:
    hertz = mel_center_frequencies(RATE, 79)
    frames = torch.exp(-(((hertz - 1000) / 150) ** 2)).repeat(7, 1)
    changed = VocalTractPerturbation(RATE, factor, factor)(frames)
    assert float(hertz[changed[0].argmax()]) == pytest.approx(1000 * factor, abs=25)
    assert torch.equal(VocalTractPerturbation(RATE, 1.0, 1.0)(frames), frames)


def test_a_vocal_tract_keeps_a_flat_spectrum_flat() -> None:
    flat = torch.full((5, 41), 2.5)
    torch.testing.assert_close(VocalTractPerturbation(RATE, 0.83, 0.83)(flat), flat)


def test_frames_shift_and_repeat_the_edge() -> None:
    frames = torch.arange(1.0, 6.0)[:, None]
    seen = set()
    for seed in range(30):
        torch.manual_seed(seed)
        seen.add(tuple(FrameShift(2)(frames)[:, 0].int().tolist()))
    assert seen == {(1, 2, 3, 4, 5), (1, 1, 2, 3, 4), (1, 1, 1, 2, 3), (2, 3, 4, 5, 5), (3, 4, 5, 5, 5)}


def test_masks_cover_whole_frames_and_whole_bands_with_the_mean() -> None:
    torch.manual_seed(1)
    frames = torch.randn(40, 13)
    mean = frames.mean(0)
    timed = TimeMask(max_frames=30, max_fraction=0.25, num_masks=1)
    sizes = {int(torch.isclose(timed(frames), mean, atol=1e-5).all(1).sum()) for _ in range(80)}
    assert max(sizes) == 9  # fewer than a quarter of 40
    assert 0 in sizes
    banded = FrequencyMask(max_bands=5, num_masks=1)
    sizes = {int(torch.isclose(banded(frames), mean, atol=1e-5).all(0).sum()) for _ in range(80)}
    assert sizes == {0, 1, 2, 3, 4}


def test_chains_and_chances() -> None:
    double = Gain(20 * math.log10(2), 20 * math.log10(2))
    assert Compose((double, double))(torch.ones(1)).item() == pytest.approx(4)
    torch.manual_seed(0)
    taken = sum(RandomApply(double, 0.3)(torch.ones(1)).item() > 1.5 for _ in range(500))
    assert 110 < taken < 190


def test_strength_zero_changes_next_to_nothing() -> None:
    torch.testing.assert_close(
        default_waveform_transforms(RATE, 0.0)(tone(440)), tone(440), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(default_spectrogram_transforms(RATE, 0.0)(FRAMES), FRAMES)
    with pytest.raises(InputError, match="got strength -1"):
        default_waveform_transforms(RATE, -1)


class TestSpeechAugment:
    def test_waveforms_become_frames_that_the_encoder_takes(self) -> None:
        encoder = LogMel(dim=16, sample_rate=RATE, n_mels=23, cache_as="samples").eval()
        content = encoder.read((tone(500).numpy(), RATE))
        assert content.shape == (4001,)
        changed, target = speech_augment(encoder, probability=1.0)({"audio": content, "text": ["a"]}, 7)
        assert changed["audio"].dim() == 2
        assert changed["text"] == ["a"]
        assert target == 7
        assert len(encoder([changed["audio"], None])) == 2

    def test_frames_go_through_their_own_steps(self) -> None:
        encoder = LogMel(dim=16, sample_rate=RATE, n_mels=23)
        changed, _ = speech_augment(encoder, probability=1.0)({"audio": FRAMES}, 7)
        assert changed["audio"].shape == FRAMES.shape

    def test_what_is_absent_stays_absent_and_some_clips_stay_as_they_are(self) -> None:
        encoder = LogMel(dim=16, sample_rate=RATE, n_mels=23)
        assert speech_augment(encoder)({"audio": None}, 7)[0]["audio"] is None
        assert speech_augment(encoder, probability=0.0)({"audio": FRAMES}, 7)[0]["audio"] is FRAMES
