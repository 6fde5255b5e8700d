"""`mmattn compare RUN_A RUN_B ...`: compare systems by paired differences with significance tests.

Takes folders of `mmattn fit`, or run files with --qrels. Within a single folder, every baseline is compared
with mmattn. Differences are the other systems minus the baseline, by default the first (--baseline). Users or
queries are the units, with all seeds pooled; p-values are from the paired randomization test, with Holm's
correction for all comparisons together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from jsonargparse import ArgumentParser, Namespace

from mmattn.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from mmattn.evaluation.statistics.significance import Comparison
    from mmattn.reports.tables import Table

_DEFAULT_METRICS = ["ndcg@10", "map", "mrr", "recall@100"]
_FORMATS = ("text", "json", "markdown", "latex")


@dataclass(frozen=True)
class _SystemValues:
    """Systems measured alike.

    Args:
        systems: name -> metric -> [U] or [S, U].
        units: the queries' names; None for users, which are numbered.
        policies: what was declared, for machines.
        notes: the same for people, a line each.
    """

    systems: dict[str, dict[str, Any]]
    units: Sequence[str] | None = None
    policies: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def unit(self, row: int) -> str:
        return str(row) if self.units is None else self.units[row]


def add_arguments(parser: ArgumentParser) -> None:
    from mmattn.evaluation.trec.evaluate import EmptyPolicy, MissingPolicy, RunTiePolicy

    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of `mmattn fit`, or run files")
    parser.add_argument("--qrels", metavar="FILE", help="judgements of the run files, or a BEIR folder")
    parser.add_argument(
        "--metrics", nargs="+", metavar="NAME", help="by default all that the folders have"
    )  # fmt: skip
    parser.add_argument("--ties", choices=get_args(RunTiePolicy), default="trec", help="for run files")
    parser.add_argument(
        "--missing", choices=get_args(MissingPolicy), default="zero",
        help="a judged query that a run lacks; skip leaves it out of every run",
    )  # fmt: skip
    parser.add_argument(
        "--empty", choices=get_args(EmptyPolicy), default="zero", help="a judged query with nothing relevant"
    )
    parser.add_argument("--baseline", metavar="NAME", help="what the others are compared with")
    parser.add_argument("--all-pairs", action="store_true", help="compare each with each")
    parser.add_argument(
        "--queries", type=int, default=0, metavar="N", help="list the N largest wins and losses"
    )
    parser.add_argument("--format", choices=_FORMATS, default="text", help="of what is printed")
    parser.add_argument("--json", action="store_true", help="the same as --format json")


def run(arguments: Namespace) -> int:
    from mmattn.evaluation.statistics.significance import compare_systems

    folders = [Path(path) for path in arguments.runs if Path(path).is_dir()]
    if folders and len(folders) < len(arguments.runs):
        raise InputError("compare: got folders and files, expected one kind")
    measured = _measure_folders(folders, arguments.metrics) if folders else _measure_files(arguments)
    comparisons = compare_systems(
        measured.systems, baseline=arguments.baseline, all_pairs=arguments.all_pairs
    )
    form = "json" if arguments.json else arguments.format
    if form == "json":
        print(json.dumps(_to_json(comparisons, measured, arguments.queries), indent=2, allow_nan=False))
        return 0
    table = _table(comparisons)
    lines = [{"text": table.to_text, "markdown": table.to_markdown, "latex": table.to_latex}[form]()]
    for block in (measured.notes, _largest_differences(comparisons, measured, arguments.queries)):
        lines += ["", *block] if block else []
    print("\n".join(lines))
    return 0


def _measure_files(arguments: Namespace) -> _SystemValues:
    import numpy as np

    from mmattn.evaluation.trec.evaluate import evaluate_run
    from mmattn.evaluation.trec.io import read_qrels, read_run

    if arguments.qrels is None:
        raise InputError("compare: run files need --qrels FILE; folders of `mmattn fit` do not")
    qrels = read_qrels(arguments.qrels)
    evaluations = {
        name: evaluate_run(
            read_run(path), qrels, arguments.metrics or _DEFAULT_METRICS,
            ties=arguments.ties, missing=arguments.missing, empty=arguments.empty,
        )
        for name, path in _short_names(arguments.runs).items()
    }  # fmt: skip
    systems = {name: dict(value.values) for name, value in evaluations.items()}
    for metric in next(iter(systems.values())):
        # Only queries that every run has a value for can be paired; under "zero" that is all of them.
        anywhere = np.any([np.isnan(values[metric]) for values in systems.values()], axis=0)
        for values in systems.values():
            values[metric] = np.where(anywhere, np.nan, values[metric])
    rates = {name: value.tie_rate for name, value in evaluations.items()}
    missing = {name: len(value.missing_queries) for name, value in evaluations.items()}
    shared = ", ".join(f"{name} {rate:.1%}" for name, rate in rates.items())
    verb = {"zero": "counted as 0", "skip": "left out of every run"}
    notes = [f"ties: policy {arguments.ties}; documents that share their score with another: {shared}"]
    notes += [
        f"{name}: {count:,} judged queries are missing from the run, {verb[arguments.missing]}"
        for name, count in missing.items()
        if count
    ]
    policies = {
        "ties": {"policy": arguments.ties, "rates": rates},
        "missing": {"policy": arguments.missing, "queries": missing},
        "empty": {"policy": arguments.empty, "queries": len(next(iter(evaluations.values())).empty_queries)},
    }
    return _SystemValues(systems, [qrels.query_name(row) for row in range(len(qrels))], policies, notes)


def _measure_folders(folders: Sequence[Path], metrics: Sequence[str] | None) -> _SystemValues:
    """Return per-user values [S, U]: all systems of one folder, or mmattn of several."""
    import numpy as np

    from mmattn.experiments.recommendation.protocol import TIE_POLICY
    from mmattn.experiments.seed_result import load_result
    from mmattn.reports.results import OURS

    _check_same_protocol(folders)
    systems: dict[str, dict[str, Any]] = {}
    seeds: list[int] = []
    for name, path in _short_names(list(map(str, folders))).items():
        files = sorted(Path(path).glob("seed-*/result.npz"))
        if not files:
            raise InputError(f"{path}: no finished seed in it, expected a run of `mmattn fit`")
        results = sorted((load_result(file) for file in files), key=lambda result: result.seed)
        seeds = seeds or [result.seed for result in results]
        if [result.seed for result in results] != seeds:
            raise InputError(
                f"{path}: has finished the seeds {[result.seed for result in results]}, expected {seeds} as "
                f"in {folders[0]}"
            )
        rankings = [result.ranking for result in results if result.ranking is not None]
        if not rankings:
            raise InputError(f"{path}: a run with tasks, expected a recommender's: users are compared")
        for system in rankings[0].values if len(folders) == 1 else (OURS,):
            systems[system if len(folders) == 1 else name] = {
                metric: np.stack([ranking.values[system][metric] for ranking in rankings])
                for metric in _selected_metrics(metrics, rankings[0].values[system])
            }
    note = f"{len(seeds)} seeds of the same users, pooled; ties: policy {TIE_POLICY}"
    return _SystemValues(systems, None, {"ties": {"policy": TIE_POLICY}, "seeds": seeds}, [note])


def _selected_metrics(metrics: Sequence[str] | None, measured: Mapping[str, Any]) -> Sequence[str]:
    for name in metrics or ():
        if name not in measured:
            raise InputError(f"compare: the run has no metric {name!r}.{did_you_mean(name, measured)}")
    return metrics or list(measured)


def _check_same_protocol(folders: Sequence[Path]) -> None:
    """Check that data, split and seeds agree, so that values can be paired."""
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


def _short_names(paths: Sequence[str]) -> dict[str, str]:
    """Return a short name for each path: its last part if unique."""
    short = [Path(path).stem if Path(path).is_file() else Path(path).resolve().name for path in paths]
    names = short if len(set(short)) == len(short) else list(paths)
    if len(set(names)) < len(names):
        raise InputError(f"compare: got {', '.join(paths)}, expected each once")
    return dict(zip(names, paths, strict=True))


def _table(comparisons: Sequence[Comparison]) -> Table:
    from mmattn.reports.tables import Table

    columns = ("metric", "system", "against", "difference", "95% interval", "p (Holm)", "effect")
    rows = tuple(
        (
            entry.metric, entry.system, entry.baseline, f"{entry.difference.mean:+.4f}",
            f"{entry.difference.low:+.4f} to {entry.difference.high:+.4f}", f"{entry.adjusted_p_value:.4f}",
            f"{entry.effect_size:+.2f}", f"{entry.wins}/{entry.losses}/{entry.ties}",
        )
        for entry in comparisons
    )  # fmt: skip
    title = "Paired differences; effect: mean over standard deviation"
    return Table(title, (*columns, "won/lost/even"), rows)


def _extremes(comparison: Comparison, count: int) -> dict[str, list[int]]:
    """Return the units with the largest wins and losses."""
    values = {
        row: value for row, value in enumerate(comparison.per_user.tolist()) if value == value and value
    }
    ordered = sorted(values, key=lambda row: values[row])
    return {
        "won": [row for row in ordered[::-1][:count] if values[row] > 0],
        "lost": [row for row in ordered[:count] if values[row] < 0],
    }


def _largest_differences(comparisons: Sequence[Comparison], measured: _SystemValues, count: int) -> list[str]:
    lines = []
    for comparison in comparisons if count > 0 else ():
        for word, rows in _extremes(comparison, count).items():
            cells = (f"{measured.unit(row)} {comparison.per_user[row]:+.4f}" for row in rows)
            lines.append(
                f"{comparison.metric}, {comparison.system} against {comparison.baseline}, "
                f"most {word}: {', '.join(cells)}"
            )
    return lines


def _to_json(result: Sequence[Comparison], measured: _SystemValues, count: int) -> dict[str, Any]:
    comparisons = []
    for comparison in result:
        content = comparison.to_json()
        if count > 0:
            content["largest"] = {
                word: [
                    {"unit": measured.unit(row), "difference": float(comparison.per_user[row])}
                    for row in rows
                ]
                for word, rows in _extremes(comparison, count).items()
            }
        comparisons.append(content)
    return {"comparisons": comparisons, "policies": dict(measured.policies)}
