"""`mmattn compare RUN_A RUN_B ...`: is one better, by how much, and how sure?

Takes folders of `mmattn fit`, or run files with --qrels. Of one folder alone, our system is compared with
each of its rivals. Differences are the others minus the baseline, which is the first unless --baseline
names another. Users or queries are the units, all seeds of one together; p-values are Holm's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from jsonargparse import ArgumentParser, Namespace

from mmattn.errors import InputError, nearest

if TYPE_CHECKING:
    from mmattn.evaluation.compare import Comparison

_DEFAULT = ["ndcg@10", "map", "mrr", "recall@100"]
Systems = dict[str, dict[str, Any]]


def add_arguments(parser: ArgumentParser) -> None:
    from mmattn.evaluation.judge import Ties

    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of `mmattn fit`, or run files")
    parser.add_argument("--qrels", metavar="FILE", help="judgements of the run files")
    parser.add_argument(
        "--metrics", nargs="+", metavar="NAME", help="by default all that the folders have"
    )  # fmt: skip
    parser.add_argument("--ties", choices=get_args(Ties), default="trec", help="for run files")
    parser.add_argument("--baseline", metavar="NAME", help="what the others are compared with")
    parser.add_argument("--all_pairs", action="store_true", help="compare each with each")
    parser.add_argument(
        "--queries", type=int, default=0, metavar="N", help="list the N largest wins and losses"
    )
    parser.add_argument("--json", action="store_true", help="print JSON for machines instead of a table")


def run(arguments: Namespace) -> int:
    from mmattn.evaluation.compare import compare

    folders = [Path(path) for path in arguments.runs if Path(path).is_dir()]
    if folders and len(folders) < len(arguments.runs):
        raise InputError("compare: got folders and files, expected one kind")
    units: Sequence[str] | None = None
    if folders:
        systems = _of_folders(folders, arguments.metrics)
    else:
        systems, units = _of_files(arguments)
    found = compare(systems, baseline=arguments.baseline, all_pairs=arguments.all_pairs)
    if arguments.json:
        print(json.dumps([one.to_json() for one in found], indent=2, allow_nan=False))
    else:
        print("\n".join(_table(found) + _largest(found, units, arguments.queries)))
    return 0


def _of_files(arguments: Namespace) -> tuple[Systems, Sequence[str]]:
    from mmattn.evaluation.formats import read_qrels, read_run
    from mmattn.evaluation.judge import evaluate_run

    if arguments.qrels is None:
        raise InputError("compare: run files need --qrels FILE; folders of `mmattn fit` do not")
    qrels = read_qrels(arguments.qrels)
    metrics = arguments.metrics or _DEFAULT
    systems: Systems = {}
    for name, path in _named(arguments.runs).items():
        systems[name] = dict(evaluate_run(read_run(path), qrels, metrics, ties=arguments.ties).values)
    return systems, [qrels.query(row) for row in range(len(qrels))]


def _of_folders(folders: Sequence[Path], metrics: Sequence[str] | None) -> Systems:
    """Per-user values of each system, [S, U]: of one folder all systems, of several ours."""
    import numpy as np

    from mmattn.evaluation.results import OURS
    from mmattn.evaluation.seed import load_result

    _refuse_other_protocols(folders)
    systems: Systems = {}
    for name, path in _named(list(map(str, folders))).items():
        files = sorted(Path(path).glob("seed-*/result.npz"))
        if not files:
            raise InputError(f"{path}: no finished seed in it, expected a run of `mmattn fit`")
        results = sorted((load_result(file) for file in files), key=lambda result: result.seed)
        for system in results[0].values if len(folders) == 1 else (OURS,):
            systems[system if len(folders) == 1 else name] = {
                metric: np.stack([result.values[system][metric] for result in results])
                for metric in _chosen(metrics, results[0].values[system])
            }
    return systems


def _chosen(metrics: Sequence[str] | None, measured: Mapping[str, Any]) -> Sequence[str]:
    for name in metrics or ():
        if name not in measured:
            raise InputError(f"compare: the run has no metric {name!r}.{nearest(name, measured)}")
    return metrics or list(measured)


def _refuse_other_protocols(folders: Sequence[Path]) -> None:
    """Values of two runs can be paired only where data, split and seeds are the same."""
    import yaml

    first: dict[str, Any] | None = None
    for folder in folders:
        settings = folder / "config.yaml"
        if not settings.is_file():
            raise InputError(f"{folder}: no config.yaml in it, expected a run of `mmattn fit`")
        config = yaml.safe_load(settings.read_text(encoding="utf-8"))
        # Metrics may differ: those that both have are compared, a missing one is named.
        shared = {"card": config["data"]["card"], **config["protocol"]}
        shared.pop("metrics", None)
        first = shared if first is None else first
        for name, value in first.items():
            if shared.get(name) != value:
                raise InputError(
                    f"{folder}: its {name} is {shared.get(name)!r}, expected {value!r} as in {folders[0]}"
                )


def _named(paths: Sequence[str]) -> dict[str, str]:
    """A short name for each path: its last part where that tells them apart."""
    short = [Path(path).stem if Path(path).is_file() else Path(path).resolve().name for path in paths]
    names = short if len(set(short)) == len(short) else list(paths)
    if len(set(names)) < len(names):
        raise InputError(f"compare: got {', '.join(paths)}, expected each once")
    return dict(zip(names, paths, strict=True))


def _table(found: Sequence[Comparison]) -> list[str]:
    rows = [
        ("metric", "system", "against", "difference", "95% interval", "p (Holm)", "effect", "won/lost/even")
    ]
    for one in found:
        ends = one.difference
        rows.append(
            (
                one.metric, one.system, one.baseline,
                f"{ends.mean:+.4f}", f"{ends.low:+.4f} to {ends.high:+.4f}",
                f"{one.adjusted:.4f}", f"{one.effect:+.2f}", f"{one.wins}/{one.losses}/{one.draws}",
            )
        )  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _largest(found: Sequence[Comparison], units: Sequence[str] | None, count: int) -> list[str]:
    """The queries (or users) that speak most for and against each system."""
    lines = []
    for one in found if count > 0 else ():
        values = {unit: value for unit, value in enumerate(one.per_user.tolist()) if value == value and value}
        ordered = sorted(values, key=lambda unit: values[unit])
        for word, chosen in (("won", [u for u in ordered[::-1][:count] if values[u] > 0]),
                             ("lost", [u for u in ordered[:count] if values[u] < 0])):  # fmt: skip
            cells = (f"{unit if units is None else units[unit]} {values[unit]:+.4f}" for unit in chosen)
            lines.append(
                f"{one.metric}, {one.system} against {one.baseline}, most {word}: {', '.join(cells)}"
            )
    return ["", *lines] if lines else []
