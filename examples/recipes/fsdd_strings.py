"""Strings of 3 to 7 spoken digits by CTC: a model that hears the whole against one that follows the sound.

    python examples/recipes/fsdd_strings.py --root ../shared/data/fsdd --seeds 0 1 2 --out runs/strings

Recordings 0 to 4 of every speaker and digit (the official test part) are joined to 500 test strings, 5 to 9
to 200 strings of validation, the others anew in every step of training. Six speakers, one a string, all heard
in training. The epoch is chosen on validation. A seed that was done is read from --out.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from digit_strings import RATE, WORDS, Clip, String, by_speaker, draw, recordings

from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.encoders.model_inputs import ModelInputs
from mmattn.evaluation.tasks.error_rates import (
    count_edits,
    error_rate,
    transcription_metrics,
    worst_predictions,
)
from mmattn.files import write_json
from mmattn.heads.speech.decoding.alignment import align_transcript
from mmattn.model.build import build_encoders, build_model, choose_device
from mmattn.model.model import Model
from mmattn.serving.streaming_asr import StreamingRecognizer
from mmattn.testing.measuring import Report
from mmattn.training.augmentation.speech_augment import (
    AddNoise,
    Compose,
    Gain,
    RandomApply,
    SpectralTilt,
    SpeedPerturbation,
    default_spectrogram_transforms,
)
from mmattn.training.loop import LoopConfig, train
from mmattn.training.tasks.supervised import Augment, SupervisedTask
from mmattn.types import Fused

VALIDATION, TEST = 200, 500
# Whom a token of 40 ms may hear; "decoder" is "whole" with an attention decoder that is trained beside CTC.
MASKS = {"causal": "causal & window(24)", "whole": "window(24)", "decoder": "window(24)"}


def config(system: str, unit: str) -> ModelConfig:
    """The same network but for the mask of its attention, and a decoder, which has to know where it reads."""
    options = {
        "dim": 96, "sample_rate": RATE, "n_mels": 40, "layers": 4, "kernel_size": 7, "cache_as": "samples",
    }  # fmt: skip
    program = f"Program(score=dot(), mask={MASKS[system]})"
    vocabulary = list(WORDS) if unit == "word-piece" else sorted({*"".join(WORDS), " "})
    frames = 1 if unit == "word-piece" else 2
    head = {"vocabulary": vocabulary, "unit": unit, "frames_per_token": frames, "dropout": 0.1}
    heads = {"ctc": HeadConfig("ctc", head)}
    if system == "decoder":
        heads["written"] = HeadConfig("generation", {"vocabulary": list(WORDS), "layers": 1, "max_length": 9})
    return ModelConfig(
        {"audio": EncoderConfig("causal-log-mel", options, positional_encoding=system == "decoder")},
        FusionConfig(dim=96, layers=2, heads=4, program=program),
        heads,
    )


class AllHeads(SupervisedTask):
    """The sum of all heads' losses (Watanabe et al., 2017: CTC shows the decoder where to read)."""

    def criterion(self, batch: ModelInputs, targets: Sequence[Any]) -> Callable[[Fused], torch.Tensor]:
        heads = self.model.heads.values()
        return lambda fused: torch.stack([head.loss(fused, targets) for head in heads]).sum()


def strings_augment(encoder: Any, clips: list[Clip]) -> Augment:
    """A new string in the place of every sample, as another voice and microphone would have it."""
    # Speed last but one: before it, the samples are a number that Fourier transforms are fast for.
    waves = Compose(
        (
            RandomApply(SpectralTilt(4), 0.3),
            RandomApply(AddNoise(10, 40), 0.3),
            SpeedPerturbation(0.87, 1.15),
            Gain(-8, 8),
        )
    )
    frames, speakers = default_spectrogram_transforms(RATE), by_speaker(clips)

    def augment(contents: dict[str, Any], target: Any) -> tuple[dict[str, Any], Any]:
        string = draw(speakers)
        return {"audio": frames(encoder.frames(waves(string.sound)))}, string.text

    return augment


def fit(
    system: str, unit: str, seed: int, clips: list[Clip], epochs: int, steps: int, folder: Path
) -> tuple[Model, float]:
    """The trained model, and the seconds that it took."""
    torch.manual_seed(seed)
    described = config(system, unit)
    encoders = build_encoders(described.encoders)
    model = build_model(encoders, described).to(choose_device())
    training = [clip for clip in clips if clip.index >= 10]
    held_out = fixed_strings(clips, range(5, 10), VALIDATION)

    def judge(model: Model) -> dict[str, float]:
        heard = transcribe(model, held_out)
        return {"-wer": -transcription_metrics(heard, [string.text for string in held_out])["wer"]}

    # The samples are placeholders: every one of them is another string each time.
    batch = 32
    inputs = ModelInputs(contents={"audio": [torch.zeros(1)] * (batch * steps)})
    task = AllHeads(
        model, inputs, [""] * len(inputs), range(len(inputs)), judge,
        head="ctc", batch_size=batch, augment=strings_augment(encoders["audio"], training),
    )  # fmt: skip
    begun = time.process_time()
    train(
        task,
        LoopConfig(
            epochs=epochs, learning_rate=2e-3, weight_decay=0.01, warmup_ratio=0.1, patience=0, ema_decay=0.0
        ),
        seed=seed,
        folder=folder,
        run_name=f"{system} {seed}",
    )
    return model.eval(), time.process_time() - begun


@torch.no_grad()
def transcribe(model: Model, strings: list[String], batch: int = 50) -> list[str]:
    """What the model's last head hears: the decoder's by a beam of 4, CTC's greedily."""
    head, heard = list(model.heads.values())[-1], []
    for first in range(0, len(strings), batch):
        tokens = model.encoders["audio"]([string.sound for string in strings[first : first + batch]])
        heard += head.predict(model.fuse({"audio": tokens}))
    return heard


def run(system: str, unit: str, seed: int, given: argparse.Namespace, clips: list[Clip]) -> dict[str, Any]:
    """Figures of one system and seed, measured or read."""
    folder = given.out / f"{system}-{unit}-{seed}"
    if (folder / "figures.json").exists():
        return dict(json.loads((folder / "figures.json").read_text(encoding="utf-8")))
    model, seconds = fit(system, unit, seed, clips, given.epochs, given.steps, folder)
    model.save_pretrained(folder)
    strings = fixed_strings(clips, range(5), TEST)
    results: dict[str, Any] = {"heard": transcribe(model, strings), "seconds": seconds}
    results["times"] = word_times(model, strings)
    if system == "causal":
        results["stream"] = followed(model, strings, results["heard"])
    write_json(folder / "figures.json", results)
    return results


@torch.no_grad()
def word_times(model: Model, strings: list[String]) -> dict[str, float]:
    """How far words that are aligned to the true text are from the recordings that they were joined from."""
    head, middles, borders, within = model.head("ctc"), [], [], []
    for string in strings:
        emissions = head(model.fuse({"audio": model.encoders["audio"]([string.sound])}))
        words = align_transcript(emissions.values, emissions.time, string.text, head.tokenizer)
        indices = np.array([(word.start + word.end) / 2 for word in words])
        first, last = np.array(string.spans).T / RATE
        middles.append(indices - (first + last) / 2)
        within.append((indices >= first) & (indices <= last))
        borders.append((indices[1:] + indices[:-1]) / 2 - (first[1:] + last[:-1]) / 2)
    return {
        "words within their recording": float(np.concatenate(within).mean()),
        "median from its middle, ms": 1000 * float(np.median(np.concatenate(middles))),
        "median distance of borders, ms": 1000 * float(np.median(np.abs(np.concatenate(borders)))),
    }


def followed(model: Model, strings: list[String], heard: list[str]) -> dict[str, float]:
    """Streams in pieces of random lengths against the wholes, and what a piece of 40 ms takes."""
    generator, same, pieces, begun = np.random.default_rng(0), 0, 0, time.process_time()
    for string, text in zip(strings, heard, strict=True):
        listener, index = StreamingRecognizer(model), 0
        while index < len(string.sound):
            size = int(generator.choice([80, 311, 997, 4001]))  # a frame, and primes
            listener.feed(string.sound[index : index + size])
            index, pieces = index + size, pieces + 1
        same += listener.finish() == text
    spent, listener = time.process_time() - begun, StreamingRecognizer(model)
    sound = torch.cat([string.sound for string in strings[:20]])
    begun = time.process_time()
    for piece in sound.split(RATE // 25):
        listener.feed(piece)
    return {
        "streams that say what the whole does": same / len(strings),
        "pieces": pieces,
        "ms of one thread a random piece": 1000 * spent / pieces,
        "ms of one thread for 40 ms": 40 * (time.process_time() - begun) / (len(sound) / RATE),
    }


def fixed_strings(clips: list[Clip], indices: range, count: int) -> list[String]:
    """The same strings each time, of these recordings."""
    speakers = by_speaker([clip for clip in clips if clip.index in indices])
    generator = torch.Generator().manual_seed(indices.start + 1)
    return [draw(speakers, generator) for _ in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, required=True, help="the data set's folder")
    parser.add_argument("--out", type=Path, required=True, help="models and figures, one folder a run")
    parser.add_argument("--systems", nargs="*", default=["whole", "causal"], choices=list(MASKS))
    parser.add_argument("--unit", default="word-piece", choices=["word-piece", "character"])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--steps", type=int, default=100, help="of an epoch, 32 strings each")
    parser.add_argument("--json", action="store_true", help="print JSON; the tables go to standard error")
    given = parser.parse_args()
    torch.set_num_threads(1)
    report = Report(given, "mmattn", "torchaudio", "jiwer")
    clips = recordings(given.root)
    transcripts = [string.text for string in fixed_strings(clips, range(5), TEST)]
    report.table(
        f"{TEST} test strings, {sum(len(text.split()) for text in transcripts)} words",
        ("system", "seeds", "WER (95% over strings)", "each seed", "sub / del / ins", "s of training"),
    )
    for system in given.systems:
        runs = [run(system, given.unit, seed, given, clips) for seed in given.seeds]
        edits = [count_edits(run["heard"], transcripts) for run in runs]
        interval = error_rate(edits)
        kinds = [
            sum(int(getattr(e, k).sum()) for e in edits) for k in ("substitutions", "deletions", "insertions")
        ]
        report.row(
            system, " ".join(map(str, given.seeds)),
            f"{interval.mean:.4f} ({interval.low:.4f} to {interval.high:.4f})",
            " ".join(f"{rate:.4f}" for rate in interval.seed_means), " / ".join(map(str, kinds)),
            sum(run["seconds"] for run in runs) / len(runs),
        )  # fmt: skip
        for name in ("times", "stream"):
            for figure, value in runs[0].get(name, {}).items():
                report.note(f"{system}, seed {given.seeds[0]}: {figure}: {value:.4g}")
        for mistake in worst_predictions(runs[0]["heard"], transcripts, 3):
            report.note(f"{system}: {asdict(mistake)}")
    report.close()


if __name__ == "__main__":
    main()
