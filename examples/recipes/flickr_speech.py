"""Spoken captions to text by CTC: 280 clips of one synthetic voice to learn from, 80 to be judged by.

    python examples/recipes/flickr_speech.py --root ../shared/data/flickr-trimodal --out runs/flickr --seeds 0

Photographs are split by the data set's own hash of seed and name: 70% train, 10% validation, 20% test.
Written with characters, heard by convolutions and attention over 0.6 s on either side. Greedy; a prefix beam
of 16; the beam with an n-gram of the training captions' characters, and with one of their words and a lexicon
of them. Validation chooses the epoch and the weights of the n-grams. A seed that was done is read from --out.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.data.dataset import Dataset
from mmattn.data.reader import read_dataset
from mmattn.encoders.model_inputs import ModelInputs
from mmattn.evaluation.tasks.error_rates import count_edits, error_rate, transcription_metrics
from mmattn.files import write_json
from mmattn.heads.speech.ctc_tokenizer import CTCTokenizer
from mmattn.heads.speech.decoding.ngram import NGram
from mmattn.heads.speech.decoding.prefix_beam import PrefixBeamDecoder
from mmattn.heads.speech.decoding.scorers import (
    LexiconScorer,
    Scorer,
    SumScorer,
    SymbolNGramScorer,
    WordNGramScorer,
)
from mmattn.heads.speech.decoding.search import GreedyDecoder, StreamingDecoder, transcribe
from mmattn.model.build import build_encoders, build_model, choose_device
from mmattn.model.model import Model
from mmattn.testing.measuring import Report
from mmattn.training.augmentation.speech_augment import (
    AddNoise,
    Compose,
    Gain,
    RandomApply,
    SpeedPerturbation,
    default_spectrogram_transforms,
)
from mmattn.training.loop import LoopConfig, train
from mmattn.training.tasks.supervised import SupervisedTask
from mmattn.types import Tokens
from mmattn_datasets.flickr_trimodal.prepare import FlickrTrimodal

RATE, BATCH = 16_000, 14
WEIGHTS, BONUSES = (0.2, 0.4, 0.7, 1.0), (0.0, 0.5, 1.0, 2.0)
SYSTEMS = ("greedy", "beam", "beam + characters", "beam + words")


def prepared(root: Path, out: Path, seed: int) -> Dataset:
    folder = out / f"data-{seed}"
    return read_dataset(
        folder if (folder / "card.yaml").exists() else FlickrTrimodal().prepare(root, folder, seed=seed)
    )


def config(characters: list[str]) -> ModelConfig:
    options = {
        "dim": 144, "sample_rate": RATE, "n_mels": 64, "layers": 4, "cache_as": "samples", "dropout": 0.15,
    }  # fmt: skip
    return ModelConfig(
        {"audio": EncoderConfig("causal-log-mel", options, positional_encoding=False)},
        FusionConfig(
            dim=144, layers=2, heads=4, program="Program(score=dot(), mask=window(15))", dropout=0.15
        ),
        {"ctc": HeadConfig("ctc", {"vocabulary": characters, "frames_per_token": 2, "dropout": 0.15})},
    )


def fit(data: Dataset, seed: int, epochs: int, folder: Path) -> tuple[Model, list[Any], float]:
    """The trained model, the clips, and the seconds that training took."""
    transcripts, rows = list(data.targets["transcript"]), parts_of(data)
    torch.manual_seed(seed)
    described = config(sorted({character for row in rows["train"] for character in transcripts[row]}))
    encoders = build_encoders(described.encoders)
    model = build_model(encoders, described).to(choose_device())
    encoder: Any = encoders["audio"]
    clips = [encoder.read(item.content["audio"]) for item in data.items]
    waves = Compose((SpeedPerturbation(0.8, 1.25), RandomApply(AddNoise(10, 40)), Gain(-10, 10)))
    frames = default_spectrogram_transforms(RATE)

    def augment(contents: dict[str, Any], target: Any) -> tuple[dict[str, Any], Any]:
        return {"audio": frames(encoder.frames(waves(contents["audio"])))}, target

    def judge(model: Model) -> dict[str, float]:
        texts = transcribe(
            emissions(model, clips, rows["validation"]), lambda: GreedyDecoder(model.head("ctc").tokenizer)
        )
        figures = transcription_metrics(texts, [transcripts[row] for row in rows["validation"]])
        return {"-cer": -figures["cer"], "wer": figures["wer"]}

    task = SupervisedTask(
        model, ModelInputs(contents={"audio": clips}), transcripts, rows["train"], judge,
        head="ctc", batch_size=BATCH, augment=augment,
    )  # fmt: skip
    begun = time.process_time()
    train(
        task,
        LoopConfig(
            epochs=epochs, learning_rate=2e-3, warmup_ratio=0.1, weight_decay=0.01, patience=0, ema_decay=0.0
        ),
        seed=seed,
        folder=folder,
        run_name=f"speech {seed}",
    )
    return model.eval(), clips, time.process_time() - begun


@torch.no_grad()
def emissions(model: Model, clips: list[Any], rows: np.ndarray) -> Tokens:
    """Log-probabilities of every frame of these clips."""
    parts = []
    for part in np.array_split(rows, max(1, len(rows) // 20)):
        tokens = model.encoders["audio"]([clips[row] for row in part])
        parts.append(model.head("ctc")(model.fuse({"audio": tokens})))
    lengths = torch.cat([part.lengths for part in parts])
    return Tokens.from_lengths(torch.cat([part.values for part in parts]), lengths, "audio")


def parts_of(data: Dataset) -> dict[str, np.ndarray]:
    assert data.item_split is not None
    return {name: np.flatnonzero(data.item_split == name) for name in ("train", "validation", "test")}


def searches(
    alphabet: CTCTokenizer, texts: list[str]
) -> dict[str, list[tuple[str, Callable[[], StreamingDecoder]]]]:
    """Every way to search, and for each the settings to choose from."""
    characters = NGram.train([alphabet.encode(text) for text in texts], order=5)
    words = NGram.train([text.split() for text in texts], order=2)
    lexicon = LexiconScorer({word for text in texts for word in text.split()}, alphabet)

    def beam(scorer: Scorer | None) -> Callable[[], StreamingDecoder]:
        return partial(PrefixBeamDecoder, alphabet, 16, scorer)

    grid = list(product(WEIGHTS, BONUSES))
    return {
        "greedy": [("", partial(GreedyDecoder, alphabet))],
        "beam": [("", beam(None))],
        "beam + characters": [
            (f"weight {weight}, bonus {bonus}", beam(SymbolNGramScorer(characters, alphabet, weight, bonus)))
            for weight, bonus in grid
        ],
        "beam + words": [
            (
                f"weight {weight}, bonus {bonus}",
                beam(SumScorer(lexicon, WordNGramScorer(words, alphabet, weight, bonus))),
            )
            for weight, bonus in grid
        ],
    }


def run(data: Dataset, seed: int, epochs: int, folder: Path) -> dict[str, Any]:
    """What is heard in the test clips by each search, chosen on validation; measured, or read."""
    if (folder / "figures.json").exists():
        return dict(json.loads((folder / "figures.json").read_text(encoding="utf-8")))
    model, clips, seconds = fit(data, seed, epochs, folder)
    model.save_pretrained(folder)
    transcripts, rows = list(data.targets["transcript"]), parts_of(data)
    validation, test = (emissions(model, clips, rows[part]) for part in ("validation", "test"))
    expected = [transcripts[row] for row in rows["validation"]]
    heard, chosen = {}, {}
    for name, ways in searches(
        model.head("ctc").tokenizer, [transcripts[row] for row in rows["train"]]
    ).items():
        rates = [transcription_metrics(transcribe(validation, start), expected)["wer"] for _, start in ways]
        best = int(np.argmin(rates))
        chosen[name] = f"{ways[best][0]} (validation WER {rates[best]:.3f})"
        heard[name] = transcribe(test, ways[best][1])
    results = {
        "heard": heard,
        "chosen": chosen,
        "seconds": seconds,
        "said": [transcripts[row] for row in rows["test"]],
    }
    write_json(folder / "figures.json", results)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, required=True, help="the data set's folder")
    parser.add_argument("--out", type=Path, required=True, help="models and figures, one folder a seed")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--epochs", type=int, default=45)
    parser.add_argument("--json", action="store_true", help="print JSON; the tables go to standard error")
    given = parser.parse_args()
    torch.set_num_threads(1)
    report = Report(given, "mmattn", "torchaudio", "jiwer")
    for seed in given.seeds:
        data = prepared(given.root, given.out, seed)
        result = run(data, seed, given.epochs, given.out / f"speech-{seed}")
        transcripts = result["said"]
        report.table(
            f"Seed {seed}: {len(transcripts)} test clips, "
            f"{sum(len(text.split()) for text in transcripts)} words, {result['seconds']:.0f} s of training",
            ("search", "CER (95% over clips)", "WER (95% over clips)", "chosen on validation"),
        )
        for name in SYSTEMS:
            rates = [
                error_rate(count_edits(result["heard"][name], transcripts, unit))
                for unit in ("character", "word")
            ]
            shown = [f"{rate.mean:.3f} ({rate.low:.3f} to {rate.high:.3f})" for rate in rates]
            report.row(name, *shown, result["chosen"][name])
        for index in range(3):
            report.note(f"said: {transcripts[index]}\nheard: {result['heard']['greedy'][index]}")
    report.close()


if __name__ == "__main__":
    main()
