"""Program tuning against full tuning, LoRA and a linear probe: a trained core moves to other tasks.

    python tests/benchmarks/bench_tuning.py [--seeds 3] [--workers 2]

A sample is a question token, a handwritten digit (rows of pixels), a sound pattern (log spectrum), a
number word (letters) and, in some, a row of five pictures (a token each): all made on the spot by the
digits data set. The core is pretrained to name the digit, where all contents show the same one and some
are absent, and to name the first picture of a row. Then it moves to
  said: the sound, while picture and word show other digits
  third: the third picture of a row
  same: whether picture and sound show the same digit (a comparison, not a matter of where to look)
Everybody gets a new linear head on the question's token, the same composites and steps, and four
settings to choose from by validation (first seed); the test part is looked at once a seed.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import platform
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn import Tokens
from mmattn import attention as A
from mmattn.evaluation.statistics.bootstrap import bootstrap
from mmattn.fusion.block import FusionBlock
from mmattn.fusion.core import FusionCore
from mmattn.fusion.input_projection import InputProjection
from mmattn.fusion.pool import AttentionPool
from mmattn.model.model import Model
from mmattn.training.loop import LoopConfig, Task, train
from mmattn.training.program_tuning import tune_program
from mmattn_datasets.digits.sounds import synthesize, voices
from mmattn_datasets.digits.words import DIGIT_WORDS, phrase_digit

WIDTHS = {"question": 1, "image": 8, "audio": 32, "text": 32, "row": 64}
PARTS = {"train": (0, 1200, 1280), "validation": (1200, 1400, 500), "test": (1400, 1797, 1000)}
TARGETS = ("said", "third", "same")
DIM, HEADS, LAYERS = 64, 4, 2
BIASES = "dot() >> modality_bias('pair') >> relative('place', 16)"
PROGRAMS = {
    "biases": f"Program(score={BIASES})",
    "biases, temperature": f"Program(score={BIASES} >> temperature(dynamic('t')) >> head_gate('gate'))",
}
SETTINGS: dict[str, list[tuple[Any, float]]] = {
    "linear probe": [(None, rate) for rate in (0.003, 0.01, 0.03, 0.1)],
    "program tuning": [*product(PROGRAMS, (0.03, 0.1))],
    "LoRA": [*product((4, 8), (0.003, 0.01))],
    "full tuning": [(None, rate) for rate in (0.0003, 0.001, 0.003, 0.01)],
}


class Contents:
    """Tokens of every content and the digit that it shows, by row of `load_digits`."""

    def __init__(self) -> None:
        generator, voice = np.random.default_rng(0), voices()
        pixels, digits = load_digits(return_X_y=True)
        self.digit = torch.from_numpy(digits)
        pictures = torch.from_numpy(pixels).float().view(-1, 8, 8) / 8 - 1
        sounds = [synthesize(digit, voice[generator.integers(len(voice))], generator) for digit in digits]
        words = [
            phrase_digit(digit, generator.choice(list(DIGIT_WORDS)), generator).lower() for digit in digits
        ]
        self.pictures = pictures.flatten(1)
        self.tokens = {
            "image": Tokens.from_sequences(list(pictures), "image"),
            "audio": Tokens.from_sequences([_spectrum(sound) for sound in sounds], "audio"),
            "text": Tokens.from_sequences([_letters(word) for word in words], "text"),
        }

    def draw(self, task: str, part: str, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Which content stands where ([B], or [B, 5] in a row; -1 is absent), and the label."""
        first, last, _ = PARTS[part]
        index = torch.randint(first, last, (count, 3), generator=generator)
        row = torch.randint(first, last, (count, 5), generator=generator)
        shown = self.digit[index]
        if task in ("clean", "same"):  # the others show what the first one shows, in "same" half of the time
            of = [torch.arange(first, last)[self.digit[first:last] == digit] for digit in range(10)]
            draws = torch.rand(count, 3, generator=generator)
            alike = torch.stack([
                torch.stack([of[d][int(u * len(of[d]))] for u in draw])
                for d, draw in zip(shown[:, 0].tolist(), draws, strict=True)
            ])  # fmt: skip
            index = alike if task == "clean" else torch.where(draws[:, :1] < 0.5, index, alike)
        if task == "clean":
            index[torch.rand(count, 3, generator=generator) < 0.4] = -1
        label = {
            "clean": shown[:, 0],
            "first": self.digit[row[:, 0]],
            "said": shown[:, 1],
            "third": self.digit[row[:, 2]],
            "same": (self.digit[index[:, 0]] == self.digit[index[:, 1]]).long(),
        }[task]
        absent = torch.full_like(index, -1) if task in ("first", "third") else index
        return {"index": absent, "row": row if task in ("first", "third") else row[:, :0], "label": label}

    def parts(self, index: Tensor, row: Tensor) -> dict[str, Tokens]:
        """The composites' tokens."""
        count = len(index)
        parts = {"question": Tokens.from_sequences([torch.ones(1, 1)] * count, "question")}
        for column, (name, tokens) in enumerate(self.tokens.items()):
            chosen = tokens.select(index[:, column].clamp(min=0))
            parts[name] = chosen.filter((index[:, column] >= 0)[chosen.sample])
        parts["row"] = Tokens.from_lengths(
            self.pictures[row.flatten()], torch.full((count,), row.shape[1]), "row"
        )
        return parts


def _spectrum(sound: np.ndarray) -> Tensor:
    frames = torch.from_numpy(sound).unfold(0, 512, 256) * torch.hann_window(512)
    bands = F.adaptive_avg_pool1d(torch.fft.rfft(frames).abs()[:, :128], 32)
    return (bands + 1e-3).log() / 3 + 1


def _letters(word: str) -> Tensor:
    return F.one_hot(torch.tensor([ord(letter) % 32 for letter in word]), 32).float()


class Naming(Task):
    """Cross-entropy of a linear head on the question's token."""

    def __init__(self, model: Model, contents: Contents, sets: dict[str, list[dict[str, Tensor]]]):
        super().__init__()
        self.model, self.contents, self.sets = model, contents, sets

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[dict[str, Tensor]]:
        for drawn in self.sets["train"]:
            for rows in torch.randperm(len(drawn["label"]), generator=generator).split(64):
                yield {name: value[rows] for name, value in drawn.items()}

    def logits(self, batch: dict[str, Tensor]) -> Tensor:
        fused = self.model.fuse(self.contents.parts(batch["index"], batch["row"]))
        return self.model.head("digit")(fused.by_modality[:, 0])

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(self.logits(batch), batch["label"])

    @torch.no_grad()
    def right(self, part: str) -> Tensor:
        return torch.cat([self.logits(drawn).argmax(1) == drawn["label"] for drawn in self.sets[part]])

    def validate(self) -> dict[str, float]:
        return {"accuracy": self.right("validation").float().mean().item()}


def draw_all(contents: Contents, tasks: tuple[str, ...], seed: int, size: int = 1) -> dict[str, Any]:
    """Train composites follow the seed; those of validation and test are the same for every seed."""
    return {
        part: [
            contents.draw(task, part, count * (size if part == "train" else 1),
                          torch.Generator().manual_seed(seed if part == "train" else 99))
            for task in tasks
        ]
        for part, (_, _, count) in PARTS.items()
    }  # fmt: skip


def pretrain(seed: int) -> tuple[Model, float]:
    """The core that everybody starts from, and its accuracy on the tasks that it was made for."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    contents = Contents()
    blocks = [FusionBlock(A.Attention(A.Program(), DIM, HEADS), DIM, 2.0) for _ in range(LAYERS)]
    entry = InputProjection(WIDTHS, DIM)
    nn.init.ones_(entry.position_scale)  # places are to be seen by all who look for them
    model = Model(
        {}, FusionCore(entry, blocks, AttentionPool(DIM, len(WIDTHS))), {"digit": nn.Linear(DIM, 10)}
    )
    for _, layer in A.layers(model):
        layer.register_modalities(tuple(WIDTHS))
    task = Naming(model, contents, draw_all(contents, ("clean", "first"), seed, size=4))
    train(
        task,
        LoopConfig(
            epochs=10, learning_rate=0.003, weight_decay=0.01, warmup_ratio=0.05, patience=0, ema_decay=0.0
        ),
        seed=seed,
        progress=False,
    )
    return model, task.right("test").float().mean().item()


def move(method: str, target: str, setting: tuple[Any, float], seed: int, model: Model) -> dict[str, Any]:
    """Train one baseline; its validation accuracy, and which test composites it gets right."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    choice, rate = setting
    model, contents = copy.deepcopy(model), Contents()
    model.heads["digit"] = nn.Linear(DIM, 2 if target == "same" else 10)
    model.requires_grad_(method == "full tuning")
    model.heads.requires_grad_(True)
    if method == "program tuning":
        tune_program(model, PROGRAMS[choice], extra_modules=["heads.digit"])
    elif method == "LoRA":
        from peft import LoraConfig, inject_adapter_in_model

        projections = ["q_proj", "k_proj", "v_proj", "o_proj"]
        config = LoraConfig(r=choice, lora_alpha=2 * choice, target_modules=projections)
        inject_adapter_in_model(config, model.core)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    task = Naming(model, contents, draw_all(contents, (target,), seed))
    start = time.perf_counter()
    history = train(
        task,
        LoopConfig(
            epochs=5, learning_rate=rate, weight_decay=0.01, warmup_ratio=0.05, patience=0, ema_decay=0.0
        ),
        seed=seed,
        progress=False,
    )
    seconds = time.perf_counter() - start
    head = sum(parameter.numel() for parameter in model.heads.parameters())
    results = {"validation": history.best_score, "trained": trained - head, "head": head, "seconds": seconds}
    return {**results, "task": task}  # with the trained model in it


def choose(job: tuple[str, str, Model]) -> tuple[tuple[Any, float], list[float]]:
    """The best of four settings on validation, first seed."""
    method, target, model = job
    scores = [move(method, target, setting, 0, model)["validation"] for setting in SETTINGS[method]]
    return SETTINGS[method][int(np.argmax(scores))], scores


def test(job: tuple[str, str, tuple[Any, float], int, Model]) -> dict[str, Any]:
    """A baseline with its setting, and the test part, once."""
    actual = move(*job)
    return {**actual, "right": actual.pop("task").right("test").float().numpy()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    hardware = f"{platform.machine()}, {arguments.workers} processes of one thread"
    print(f"{datetime.date.today()}, {hardware}")
    print(f"python {platform.python_version()}, torch {torch.__version__}; {' '.join(sys.argv)}", flush=True)
    start = time.perf_counter()
    with ProcessPoolExecutor(arguments.workers) as pool:
        cores = list(pool.map(pretrain, range(arguments.seeds)))
        print("pretrained cores on their own tasks:", ", ".join(f"{score:.3f}" for _, score in cores))
        print(f"({time.perf_counter() - start:.0f} s)", flush=True)
        baselines = [*product(TARGETS, SETTINGS)]
        chosen = list(pool.map(choose, [(method, target, cores[0][0]) for target, method in baselines]))
        jobs = [(method, target, setting, seed, cores[seed][0])
                for (target, method), (setting, _) in zip(baselines, chosen, strict=True)
                for seed in range(arguments.seeds)]  # fmt: skip
        actual = list(pool.map(test, jobs))
    print("\n| task | method | accuracy (95%) | trained, beside the head | seconds | setting | validation |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for index, ((target, method), (setting, scores)) in enumerate(zip(baselines, chosen, strict=True)):
        runs = actual[index * arguments.seeds : (index + 1) * arguments.seeds]
        interval = bootstrap([run["right"] for run in runs])
        seconds = np.mean([run["seconds"] for run in runs])
        how = f"{setting[0]}, {setting[1]:g}" if setting[0] else f"{setting[1]:g}"
        tried = " ".join(f"{score:.3f}" for score in scores)
        print(
            f"| {target} | {method} | {interval.mean:.3f} ({interval.low:.3f} to {interval.high:.3f}) "
            f"| {runs[0]['trained']:,} | {seconds:.1f} | {how} | {tried} |"
        )
    print(f"\nheads: 650 parameters (same: 130); all in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
