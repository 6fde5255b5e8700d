"""Strings of 3 to 7 spoken digits by CTC: a model that hears the whole against one that follows the sound.

    python -m tests.benchmarks.fsdd_strings --root ../shared/data/fsdd --seeds 0 1 2 --out runs/strings

Recordings 0 to 4 of every speaker and digit (the official test part) are joined to 500 test strings, 5 to 9
to 200 strings of validation, the others anew in every step of training. Six speakers, one a string, all heard
in training. The epoch is chosen on validation. A seed that was done is read from --out.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from mmattn.build import build_encoders, build_model, choose_device
from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.encoders.inputs import Inputs
from mmattn.evaluation.transcripts import count_edits, error_rate, transcript_figures, worst
from mmattn.files import write_json
from mmattn.model import Model
from mmattn.training.loop import train
from mmattn.training.sound_augment import Chain, Gain, Noise, Sometimes, Speed, Tilt, frame_steps
from mmattn.training.supervised_task import Augment, SupervisedTask
from tests.benchmarks.digit_strings import RATE, WORDS, Clip, String, draw, recordings
from tests.benchmarks.measuring import Report

VALIDATION, TEST = 200, 500


def config(system: str, unit: str) -> ModelConfig:
    """Both have about as many numbers and see about as far back."""
    if system == "causal":
        encoder = EncoderConfig(
            "causal-log-mel",
            {"dim": 128, "rate": RATE, "bands": 40, "layers": 4, "keep": "samples"},
            positions=False,
        )
        fusion = FusionConfig(
            dim=128, layers=2, heads=4, program="Program(score=dot(), mask=causal & window(24))"
        )
    else:
        options = {"dim": 128, "rate": RATE, "bands": 40, "layers": 2, "normalise": "band", "keep": "samples"}
        encoder = EncoderConfig("log-mel", options, positions=False)
        fusion = FusionConfig(dim=128, layers=2, heads=4, program="Program(score=dot(), mask=window(24))")
    alphabet = list(WORDS) if unit == "word-piece" else sorted({*"".join(WORDS), " "})
    options = {"alphabet": alphabet, "unit": unit, "frames": 1 if unit == "word-piece" else 2, "dropout": 0.1}
    return ModelConfig({"audio": encoder}, fusion, {"ctc": HeadConfig("ctc", options)})


def strings_augment(encoder: Any, clips: list[Clip], strength: float = 1.0) -> Augment:
    """A new string in the place of every sample, as another voice and microphone would have it."""
    waves = Chain(
        (
            Speed(1 - 0.15 * strength, 1 + 0.15 * strength),
            Sometimes(Tilt(4 * strength), 0.5),
            Sometimes(Noise(10, 40), 0.5),
            Gain(-10 * strength, 10 * strength),
        )
    )
    frames = frame_steps(RATE, strength)

    def augment(contents: dict[str, Any], target: Any) -> tuple[dict[str, Any], Any]:
        string = draw(clips, 1)[0]
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
    held_out = draw(
        [clip for clip in clips if 5 <= clip.index < 10], VALIDATION, torch.Generator().manual_seed(1)
    )

    def judge(model: Model) -> dict[str, float]:
        heard = transcribe(model, held_out)
        return {"-wer": -transcript_figures(heard, [string.text for string in held_out])["wer"]}

    # The samples are placeholders: every one of them is another string each time.
    batch = 32
    inputs = Inputs(contents={"audio": [torch.zeros(1)] * (batch * steps)})
    task = SupervisedTask(
        model, inputs, [""] * len(inputs), range(len(inputs)), judge,
        head="ctc", batch=batch, augment=strings_augment(encoders["audio"], training),
    )  # fmt: skip
    begun = time.process_time()
    train(
        task, epochs=epochs, learning_rate=2e-3, weight_decay=0.01, warmup=0.1, seed=seed,
        folder=folder, label=f"{system} {seed}",
    )  # fmt: skip
    return model.eval(), time.process_time() - begun


@torch.no_grad()
def transcribe(model: Model, strings: list[String], batch: int = 50) -> list[str]:
    """What the model hears, greedily."""
    heard: list[str] = []
    for first in range(0, len(strings), batch):
        tokens = model.encoders["audio"]([string.sound for string in strings[first : first + batch]])
        heard += model.head("ctc").predict(model.fuse({"audio": tokens}))
    return heard


def run(system: str, unit: str, seed: int, given: argparse.Namespace, clips: list[Clip]) -> dict[str, Any]:
    """Figures of one system and seed, measured or read."""
    folder = given.out / f"{system}-{unit}-{seed}"
    if (folder / "figures.json").exists():
        return dict(json.loads((folder / "figures.json").read_text(encoding="utf-8")))
    model, seconds = fit(system, unit, seed, clips, given.epochs, given.steps, folder)
    model.save_pretrained(folder)
    found = {"heard": transcribe(model, test_strings(clips)), "seconds": seconds}
    write_json(folder / "figures.json", found)
    return found


def test_strings(clips: list[Clip]) -> list[String]:
    """The same ones each time."""
    return draw([clip for clip in clips if clip.index < 5], TEST, torch.Generator().manual_seed(2))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, required=True, help="the data set's folder")
    parser.add_argument("--out", type=Path, required=True, help="models and figures, one folder a run")
    parser.add_argument("--systems", nargs="*", default=["whole", "causal"], choices=["whole", "causal"])
    parser.add_argument("--unit", default="word-piece", choices=["word-piece", "character"])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--steps", type=int, default=100, help="of an epoch, 32 strings each")
    parser.add_argument("--json", action="store_true", help="print JSON; the tables go to standard error")
    given = parser.parse_args()
    torch.set_num_threads(1)
    report = Report(given, "mmattn", "torchaudio", "jiwer")
    clips = recordings(given.root)
    said = [string.text for string in test_strings(clips)]
    report.table(
        f"{TEST} test strings, {sum(len(text.split()) for text in said)} words",
        ("system", "seeds", "WER (95% over strings)", "each seed", "sub / del / ins", "s of training"),
    )
    for system in given.systems:
        runs = [run(system, given.unit, seed, given, clips) for seed in given.seeds]
        edits = [count_edits(found["heard"], said) for found in runs]
        interval = error_rate(edits)
        kinds = [
            sum(int(getattr(e, k).sum()) for e in edits) for k in ("substitutions", "deletions", "insertions")
        ]
        report.row(
            system, " ".join(map(str, given.seeds)),
            f"{interval.mean:.4f} ({interval.low:.4f} to {interval.high:.4f})",
            " ".join(f"{rate:.4f}" for rate in interval.seeds), " / ".join(map(str, kinds)),
            sum(found["seconds"] for found in runs) / len(runs),
        )  # fmt: skip
        for mistake in worst(runs[0]["heard"], said, 3):
            report.note(f"{system}: {asdict(mistake)}")
    report.close()


if __name__ == "__main__":
    main()
