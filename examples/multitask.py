"""Several tasks on one core, and what each gained or lost against training alone.

    python examples/multitask.py                           # a digit, a voice, a language: digits_tasks.yaml
    python examples/multitask.py --root ../shared/data     # FSDD, handwriting, WNUT-17: three_tasks.yaml

Every step takes a batch of each task. A task alone gets as many steps, with as many of its items, from a
model of the same encoders and core. The page, report.html in the run's folder, shows curves, mistakes, noise.
A minute and a half on a CPU; with --root four minutes a seed, more for the first: MiniLM reads the sentences.
"""

import argparse
import json
from pathlib import Path

from mmattn.experiments.config import load_fit
from mmattn.experiments.runner import run_experiment
from mmattn.registry import datasets

HERE = Path(__file__).parent
REAL = ("fsdd", "wnut17")  # data sets that are folders under --root; the handwriting is scikit-learn's


def card(name: str, root: Path | None, out: Path, **options: object) -> Path:
    """The folder of a data set's card, prepared where it is not there yet."""
    if not (out / name / "card.yaml").is_file():
        datasets.create(name).prepare(root and root / name, out / name, **options)
    return out / name


def figure(interval: dict[str, float]) -> str:
    return f"{interval['mean']:.4f} ({interval['low']:.4f} to {interval['high']:.4f})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="the folder that holds fsdd and wnut17; left out, digits")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="data and runs; a killed run goes on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    data = given.out / "data"
    changes: dict[str, object] = {
        "out": given.out, "data.features": data / "features", "protocol.seeds": given.seeds,
    }  # fmt: skip
    if given.root is None:
        config = load_fit(
            HERE / "digits_tasks.yaml", changes | {"data.card": card("digits", None, data, items=800)}
        )
    else:
        changes["tasks.picture.card"] = card("digits", None, data, items=1797, missing_rate=0.0)
        for task, name in zip(("keyword", "entities"), REAL, strict=True):
            changes[f"tasks.{task}.card"] = card(name, given.root, data)
        config = load_fit(HERE / "three_tasks.yaml", changes)
    folder = run_experiment(config, resume=(given.out / config.name).exists())
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    print(f"{'task':<10} {'figure':<10} {'together':<28} {'alone':<28} together - alone")
    for name, task in metrics["tasks"].items():
        first = task["primary_metric"]
        found = (figure(task[which][first]) for which in ("metrics", "single_task", "gain"))
        print(f"{name:<10} {first:<10} " + " ".join(f"{one:<28}" for one in found))
    print(f"more in {folder / 'report.html'}")
