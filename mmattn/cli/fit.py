"""`mmattn fit --config FILE [--any.key value]`: train and evaluate what a YAML file describes.

Any key of the file can be set on the command line, by its dotted name: `--training.epochs 3`,
`--protocol.seeds "[0]"`, `--encoders.image.options.grid 2`. The run's folder, runs/NAME by default,
gets the configuration, one folder a seed with model and checkpoint, metrics.json and report.html.

A file with `tasks` trains heads that learn from targets (classes, tags, texts, numbers, boxes, voices), one
or several on one core; one without trains a recommender.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from mmattn.errors import InputError

_COMMAND_OPTIONS = ("--config", "--resume", "--json", "--quiet", "--help")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="FILE", help="the run's YAML file")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was interrupted")
    parser.add_argument("--json", action="store_true", help="print metrics.json at the end, for machines")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def run(arguments: Namespace) -> int:
    from mmattn.experiments.config import load_fit
    from mmattn.experiments.runner import run_experiment
    from mmattn.training.accelerator import distributed_state

    config = load_fit(arguments.config, arguments.overrides)
    folder = run_experiment(config, resume=arguments.resume, progress=not arguments.quiet)
    if not distributed_state().is_main_process:  # of `accelerate launch`: one of them speaks
        return 0
    text = (folder / "metrics.json").read_text(encoding="utf-8")
    if arguments.json:
        print(text)
        return 0
    metrics = json.loads(text)
    table = task_metrics_table(metrics) if "tasks" in metrics else metrics_table(metrics)
    print(f"{table}\n\nreport: {folder / 'report.html'}")
    return 0


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Split the command's own arguments from keys of the file; the value of a key is read as YAML.

    Args:
        arguments: command line.

    Raises:
        InputError: a key without a value.

    Example:
        >>> split_overrides(["--config", "fit.yaml", "--training.epochs", "3", "--name=x", "--json"])
        (['--config', 'fit.yaml', '--json'], {'training.epochs': 3, 'name': 'x'})
    """
    remaining: list[str] = []
    overrides: dict[str, Any] = {}
    left = list(arguments)
    while left:
        argument = left.pop(0)
        key, equals, value = argument.partition("=")
        if not key.startswith("--") or key in _COMMAND_OPTIONS:
            remaining.append(argument)
            continue
        if not equals:
            if not left:
                raise InputError(f"fit: {key} has no value, expected {key} VALUE")
            value = left.pop(0)
        overrides[key.removeprefix("--")] = yaml.safe_load(value)
    return remaining, overrides


def metrics_table(metrics: dict[str, Any]) -> str:
    """Format systems x metrics with intervals for the terminal.

    Args:
        metrics: content of metrics.json.
    """
    systems: dict[str, dict[str, Any]] = metrics["systems"]
    names = list(next(iter(systems.values())))
    width = max(map(len, systems))
    lines = [" " * width + "".join(f"  {name:>24}" for name in names)]
    for system, result in systems.items():
        cells = (
            f"{result[name]['mean']:.4f} ({result[name]['low']:.4f}-{result[name]['high']:.4f})"
            for name in names
        )
        lines.append(f"{system:<{width}}" + "".join(f"  {cell:>24}" for cell in cells))
    return "\n".join(lines)


def task_metrics_table(metrics: dict[str, Any]) -> str:
    """Format metrics of tasks, joint, single-task and their difference, for the terminal.

    Args:
        metrics: content of metrics.json.
    """
    rows: list[tuple[str, ...]] = [("task", "", "mmattn", "alone", "mmattn - alone")]
    for name, task in metrics["tasks"].items():
        for figure, interval in task["metrics"].items():
            others = (task[which].get(figure) for which in ("single_task", "gain"))
            rows.append((name, figure, *map(_cell, (interval, *others))))
    if not any(task["single_task"] for task in metrics["tasks"].values()):
        rows = [row[:3] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _cell(interval: dict[str, float] | None) -> str:
    if interval is None:
        return ""
    return f"{interval['mean']:.4f} ({interval['low']:.4f} to {interval['high']:.4f})"
