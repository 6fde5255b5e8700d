"""Photographs, written captions and spoken captions found by each other: 320 to learn from, 80 to find.

    python examples/recipes/flickr_retrieval.py --root ../shared/data/flickr-trimodal --out runs/flickr

Frozen encoders (EfficientNet-lite0, MiniLM, units of sound that were clustered without any word), one vector
each, and a small trained core. Text is one of the four captions that are not spoken; in training, so are the
words of the clip. Every subset of the modalities asks for each that it lacks. Baselines are
linear maps between the same vectors. Each system is chosen on 40 photographs of validation, learns again from
these and the 280 of training, and is tested once. A seed that was done is read from --out.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from acoustic_units import AcousticUnits
from linear_alignment import BASELINES
from numpy.typing import NDArray
from torch.nn.functional import normalize

from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.data.reader import read_dataset
from mmattn.encoders.base import Encoder
from mmattn.encoders.model_inputs import ModelInputs, prepare_inputs
from mmattn.evaluation.ranking.crossmodal import first_relevant_ranks
from mmattn.evaluation.statistics.bootstrap import Interval, bootstrap, paired_bootstrap
from mmattn.files import write_json
from mmattn.model.build import build_encoders, build_model, choose_device
from mmattn.model.modality_vectors import subset_vectors
from mmattn.model.model import Model
from mmattn.testing.measuring import Report
from mmattn.training.loop import LoopConfig, train
from mmattn.training.tasks.alignment import AlignmentTask
from mmattn.types import Sample, Tokens
from mmattn_datasets.flickr_trimodal.prepare import CAPTIONS_PER_IMAGE, FlickrTrimodal

Floats = NDArray[np.float64]
Direction = tuple[tuple[str, ...], str]  # what asks, what is found
CUTS = (1, 5, 10)
WRITTEN = CAPTIONS_PER_IMAGE - 1  # captions of a photograph that are not spoken


class Photographs:
    """The 400 photographs of one seed's split, as features.

    Args:
        root, out: as on the command line.
        seed: of the split.
    """

    def __init__(self, root: Path, out: Path, seed: int):
        data = read_dataset(FlickrTrimodal().prepare(root, out / f"data-{seed}", seed=seed))
        self.parts = {
            name: np.flatnonzero(data.item_split == name) for name in ("train", "validation", "test")
        }
        self.parts["train+validation"] = np.union1d(self.parts["train"], self.parts["validation"])
        self.configs = {
            "image": EncoderConfig("efficientnet-lite0", {"grid": 1}),
            "text": EncoderConfig("minilm", {"pool": "all", "max_length": 64}),
        }
        self.encoders: dict[str, Encoder] = build_encoders(self.configs)
        # One sample a caption, the spoken one first.
        samples = [
            Sample(f"{item.id}-{number}", {"image": item.content["image"], "text": caption})
            for row, item in enumerate(data.items)
            for number, caption in enumerate([data.targets["caption_0"][row], *item.content["text"]])
        ]
        stored = prepare_inputs(samples, self.encoders, out / "features", progress=False)
        clips = [item.content["audio"] for item in data.items]
        units = AcousticUnits([clips[row] for row in self.parts["train"]])
        heard = units(clips).select(torch.arange(len(samples)) // CAPTIONS_PER_IMAGE)
        self.configs["audio"], self.encoders["audio"] = EncoderConfig(units.name), units
        self.inputs = ModelInputs(
            {name: self._centred(tokens) for name, tokens in {**stored.tokens, "audio": heard}.items()}
        )

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.configs)

    @property
    def directions(self) -> list[Direction]:
        """Every subset that asks for every modality outside it."""
        return [
            (asking, modality)
            for modality in self.modalities
            for size in range(1, len(self.modalities))
            for asking in combinations([name for name in self.modalities if name != modality], size)
        ]

    def captions(self, rows: NDArray[np.int64], numbers: Sequence[int]) -> NDArray[np.int64]:
        """Samples of these captions of these photographs."""
        return (rows[:, None] * CAPTIONS_PER_IMAGE + np.array(numbers)).ravel()

    def _centred(self, tokens: Tokens) -> Tokens:
        """Less what all training samples have in common; of length 1."""
        common = tokens.values[
            torch.from_numpy(self.captions(self.parts["train"], range(CAPTIONS_PER_IMAGE)))
        ].mean(0)
        return tokens.with_values(normalize(tokens.values - common))

    def features(self) -> dict[str, Floats]:
        """The vector of every sample, for the baselines."""
        return {name: tokens.values.numpy().astype(np.float64) for name, tokens in self.inputs.tokens.items()}


def ranks(
    photographs: Photographs,
    part: str,
    direction: Direction,
    queries: Callable[..., Floats],
    targets: Callable[..., Floats],
) -> NDArray[np.int64]:
    """[photographs, WRITTEN] where each query first finds its own; those of image and clip are all alike.

    Args:
        part: whose photographs ask and are searched.
        queries, targets: (samples, modalities) to vectors.
    """
    asking, result = direction
    rows = photographs.parts[part]
    samples = photographs.captions(rows, range(1, CAPTIONS_PER_IMAGE))
    wanted = samples if result == "text" else photographs.captions(rows, [1])
    got = first_relevant_ranks(
        queries(samples, asking),
        targets(wanted, (result,)),
        samples // CAPTIONS_PER_IMAGE,
        wanted // CAPTIONS_PER_IMAGE,
    )
    return got.reshape(len(rows), WRITTEN)


def goodness(found: Mapping[Direction, NDArray[np.int64]]) -> float:
    """What choices are made by: the mean of recall at 1, 5 and 10 over all directions."""
    return float(np.mean([(got <= cut).mean() for got in found.values() for cut in CUTS]))


# --- ours -----------------------------------------------------------------------------------------


def build(photographs: Photographs, seed: int, temperature: float) -> Model:
    torch.manual_seed(seed)
    config = ModelConfig(
        photographs.configs,
        FusionConfig(dim=SETTINGS["dim"], layers=SETTINGS["layers"], heads=4, expansion=1.0),
        {"alignment": HeadConfig("alignment", {
            "embedding_dim": SETTINGS["dim"], "loss_options": {"temperature": temperature},
        })},
    )  # fmt: skip
    return build_model(photographs.encoders, config).to(choose_device())


def our_ranks(photographs: Photographs, model: Model, part: str) -> dict[Direction, NDArray[np.int64]]:
    def vectors(samples: NDArray[np.int64], modalities: tuple[str, ...]) -> Any:
        return subset_vectors(model, photographs.inputs, torch.from_numpy(samples), modalities)

    return {each: ranks(photographs, part, each, vectors, vectors) for each in photographs.directions}


def fit(
    photographs: Photographs, part: str, seed: int, temperature: float, epochs: int, judged: bool
) -> tuple[Model, list[float]]:
    """The model, and what validation said after each epoch, where it is asked."""
    model = build(photographs, seed, temperature)
    rows = photographs.parts[part]
    samples = torch.from_numpy(photographs.captions(rows, range(CAPTIONS_PER_IMAGE)))
    model.core.input_projection.calibrate(photographs.inputs.select_tokens(samples, photographs.encoders))
    answer: list[float] = []

    def judge(model: Model) -> dict[str, float]:
        if not judged:
            return {}
        answer.append(goodness(our_ranks(photographs, model, "validation")))
        return {"recall": answer[-1]}

    task = AlignmentTask(
        model, photographs.inputs, torch.arange(len(photographs.inputs)) // CAPTIONS_PER_IMAGE, judge,
        samples=samples, batch_size=SETTINGS["batch"], dropout=SETTINGS["dropout"],
    )  # fmt: skip
    train(
        task,
        LoopConfig(
            epochs=SETTINGS["epochs"],
            learning_rate=SETTINGS["rate"],
            weight_decay=SETTINGS["decay"],
            warmup_ratio=0.05,
            patience=0,
            ema_decay=0.0,
        ),
        stop_after_epoch=epochs,
        seed=seed,
        progress=False,
    )
    return model, answer


SETTINGS: dict[str, Any] = {
    "dim": 256, "layers": 0, "dropout": 0.6, "batch": 256, "rate": 2e-3, "decay": 0.01, "epochs": 20,
}  # fmt: skip
TEMPERATURES = (0.07, 0.1, 0.15)  # validation chooses among these, and the epoch


def ours(photographs: Photographs, seed: int) -> tuple[dict[Direction, NDArray[np.int64]], dict[str, Any]]:
    """Ranks on test with the temperature and after as many epochs as validation liked best."""
    tried = {
        each: fit(photographs, "train", seed, each, SETTINGS["epochs"], judged=True)[1]
        for each in TEMPERATURES
    }
    temperature = max(tried, key=lambda each: max(tried[each]))
    epochs = int(np.argmax(tried[temperature])) + 1
    model, _ = fit(photographs, "train+validation", seed, temperature, epochs, judged=False)
    about = {"temperature": temperature, "epochs": epochs, "validation": max(tried[temperature])}
    return our_ranks(photographs, model, "test"), about


# --- baselines ---------------------------------------------------------------------------------------


def baseline_ranks(
    photographs: Photographs, baseline: str, direction: Direction, features: Mapping[str, Floats]
) -> NDArray[np.int64]:
    """Ranks on test with the setting that is best on validation in this direction."""
    method, grid = BASELINES[baseline]
    asking, result = direction

    def both(samples: NDArray[np.int64], modalities: Sequence[str]) -> Floats:
        return np.hstack([features[name][samples] for name in modalities])

    def after(part: str, options: Mapping[str, Any], tested: str) -> NDArray[np.int64]:
        rows = photographs.parts[part]
        if "text" in asking:  # every caption asks
            learned = photographs.captions(rows, range(CAPTIONS_PER_IMAGE))
            x, y = both(learned, asking), both(learned, [result])
        else:  # a photograph asks, and the mean of its captions is right
            x = both(photographs.captions(rows, [0]), asking)
            y = np.mean(
                [both(photographs.captions(rows, [each]), [result]) for each in range(CAPTIONS_PER_IMAGE)],
                axis=0,
            )
        of_query, of_target = method(x, y, **options)
        return ranks(
            photographs, tested, direction,
            lambda samples, names: of_query(both(samples, names)),
            lambda samples, names: of_target(both(samples, names)),
        )  # fmt: skip

    best = max(grid, key=lambda options: goodness({direction: after("train", options, "validation")}))
    return after("train+validation", best, "test")


# --- all of it ------------------------------------------------------------------------------------


def measure(given: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Ranks of every system and direction on this seed's test photographs, measured or read."""
    done = given.out / f"retrieval-{seed}.json"
    if done.exists():
        return dict(json.loads(done.read_text(encoding="utf-8")))
    photographs = Photographs(given.root, given.out, seed)
    begun = time.process_time()
    outcome, about = ours(photographs, seed)
    about["seconds"] = time.process_time() - begun
    systems = {"mmattn": outcome}
    systems["untrained"] = our_ranks(photographs, build(photographs, seed, TEMPERATURES[0]).eval(), "test")
    features = photographs.features()
    for baseline in BASELINES:
        systems[baseline] = {
            each: baseline_ranks(photographs, baseline, each, features) for each in photographs.directions
        }
    result = {
        "seed": seed, "about": about, "rows": photographs.parts["test"].tolist(),
        "ranks": {
            name: {_named(each): ranks.tolist() for each, ranks in system.items()}
            for name, system in systems.items()
        },
    }  # fmt: skip
    write_json(done, result)
    return result


def _named(direction: Direction) -> str:
    return f"{' + '.join(direction[0])} -> {direction[1]}"


def spread(results: Sequence[Mapping[str, Any]], system: str, direction: str, cut: int) -> Floats:
    """[seeds, 400] share of a photograph's queries that find their own among the first; NaN outside test."""
    values = np.full((len(results), 400), np.nan)
    for row, result in enumerate(results):
        values[row, result["rows"]] = (np.array(result["ranks"][system][direction]) <= cut).mean(1)
    return values


def chance(direction: str, cut: int, photographs: int = 80) -> float:
    """Recall of a random order: of captions, four are right among four times as many."""
    group, all_ = (WRITTEN, WRITTEN * photographs) if direction.endswith("text") else (1, photographs)
    return 1 - float(np.prod([(all_ - group - index) / (all_ - index) for index in range(cut)]))


def told(interval: Interval) -> str:
    return f"{interval.mean:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, required=True, help="the data set's folder")
    parser.add_argument("--out", type=Path, required=True, help="where everything goes, a file a seed")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="of split and training")
    parser.add_argument("--json", action="store_true", help="print JSON; the tables go to standard error")
    given = parser.parse_args()
    torch.set_num_threads(1)
    report = Report(given, "mmattn", "timm", "transformers")
    results = [measure(given, seed) for seed in given.seeds]
    directions = list(results[0]["ranks"]["mmattn"])
    report.table(
        f"Recall at {', '.join(map(str, CUTS))} and median rank, 80 test photographs, seeds {given.seeds}",
        ("asks -> is found", "system", *(f"R@{cut}" for cut in CUTS), "median rank", "mmattn - it, R@10"),
    )
    for direction in directions:
        report.row(direction, "chance", *(f"{chance(direction, cut):.3f}" for cut in CUTS), "-", "-")
        for system in results[0]["ranks"]:
            cells = [bootstrap(spread(results, system, direction, cut)) for cut in CUTS]
            ahead = paired_bootstrap(
                spread(results, "mmattn", direction, 10), spread(results, system, direction, 10)
            )
            middle = np.mean([np.median(result["ranks"][system][direction]) for result in results])
            report.row(
                direction,
                system,
                *map(told, cells),
                f"{middle:.1f}",
                "-" if system == "mmattn" else told(ahead),
            )
    for result in results:
        report.note(f"seed {result['seed']}: {result['about']}")
    report.close()


if __name__ == "__main__":
    main()
