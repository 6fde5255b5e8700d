"""`mmattn prepare NAME --root RAW --out DIR`: raw files become a card and tables, bad rows are listed."""

from __future__ import annotations

import csv
import inspect
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from mmattn.errors import InputError, did_you_mean
from mmattn.registry import datasets

__all__ = ["prepare"]


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", help="of the data set; `mmattn plugins` lists them")
    parser.add_argument(
        "--root", metavar="RAW", help="folder with the raw files, where the data set needs some"
    )
    parser.add_argument("--out", metavar="DIR", help="where card and tables go, by default data/NAME")
    parser.add_argument(
        "--extras", metavar="DIR", help="movielens: an ml1m folder with posters, plots, triples"
    )
    parser.add_argument("--items", type=int, help="digits: how many items to make; scenes: how many scenes")
    parser.add_argument("--seed", type=int, help="digits, scenes: of everything that is drawn")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON, for machines")


def run(arguments: Namespace) -> int:
    given = {name: arguments[name] for name in ("extras", "items", "seed")}
    options = {name: value for name, value in given.items() if value is not None}
    out = arguments.out or Path("data") / arguments.name
    prepare(arguments.name, arguments.root, out, options, as_json=arguments.json)
    return 0


def prepare(
    name: str,
    root: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    options: Mapping[str, Any] | None = None,
    *,
    as_json: bool = False,
) -> None:
    """Prepare a data set and print what there is now: counts, presence, and where bad rows are listed.

    Everything is built in a folder beside `out` that takes its place at the end: `out` is never half
    written, also when the process is killed.

    Args:
        name: of a data set plugin ("movielens", "digits", ...).
        root: where the raw files lie; None for data sets that need none.
        out: the folder to make. One that is there must be empty or made by this command for the same
            data set: then it is replaced.
        options: further arguments of the plugin's `prepare`.
        as_json: print the summary as JSON instead.

    Raises:
        InputError: `out` holds something else, an option that the plugin does not have, or whatever the
            plugin finds wrong with the raw files.
        PluginError: no such data set; the nearest name is suggested.
    """
    from mmattn.data.card import Card
    from mmattn.data.reader import read_dataset  # pandas: only now

    plugin = datasets.create(name)
    options = dict(options or {})
    _check_options(name, plugin.prepare, options)
    target, made_by = Path(out), f"mmattn prepare {name}"
    _check_target(target, made_by, root)
    with _atomic_folder(target) as folder:
        plugin.prepare(root, folder, **options)
        replace(Card.load(folder), made_by=made_by).save(folder)
        summary = read_dataset(folder).summary()
        listed = _count_rows(folder / "rejected.csv")
    files = {"card": str(target / "card.yaml"), "rejected": str(target / "rejected.csv")}
    if as_json:
        print(json.dumps({**summary, "listed": listed, "files": files}))
        return
    print(_describe(summary))
    print(f"listed        {listed} rows with a reason in {files['rejected']}")
    print(f"card          {files['card']}")


def _check_options(name: str, hook: Callable[..., Any], options: Mapping[str, Any]) -> None:
    known = [each for each in inspect.signature(hook).parameters if each not in ("root", "out")]
    for option in options:
        if option not in known:
            raise InputError(f"data set {name!r} has no option {option!r}.{did_you_mean(option, known)}")


def _check_target(target: Path, made_by: str, root: str | os.PathLike[str] | None) -> None:
    """Refuse to replace what this command has not made."""
    from mmattn.data.card import Card

    if root is not None and Path(root).resolve().is_relative_to(target.resolve()):
        raise InputError(f"{target}: the raw files lie in it, expected another folder to write to")
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if (target / "card.yaml").is_file() and Card.read(target).made_by == made_by:
        return
    raise InputError(
        f"{target}: it holds something else, expected a new or empty folder, or one by `{made_by}`"
    )


@contextmanager
def _atomic_folder(target: Path) -> Iterator[Path]:
    """A folder in the same place that takes the name of `target` when all went well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".partial"))
    try:
        fresh, old = beside / "new", beside / "old"
        fresh.mkdir()
        yield fresh
        if target.exists():
            target.rename(old)
        try:
            fresh.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
    finally:
        shutil.rmtree(beside)


def _count_rows(path: Path) -> int:
    if not path.is_file():
        return 0
    with path.open(newline="", encoding="utf-8") as file:
        return sum(1 for _ in csv.DictReader(file))


def _describe(summary: Mapping[str, Any]) -> str:
    """The summary for people: one line a subject."""
    items = summary["items"]
    shares = (f"{name} {count} ({count / items:.1%})" for name, count in summary["presence"].items())
    combinations = (f"{name} {count}" for name, count in summary["combinations"].items())
    lines = {
        "data set": summary["name"],
        "items": f"{items:,}",
        "present": ", ".join(shares),
        "together": ", ".join(combinations),
        "users": f"{summary['users']:,}",
        "interactions": f"{summary['interactions']:,} ({summary['density']:.2%} of all pairs)",
    }
    if summary["users"]:
        spread = summary["interactions_per_user"]
        lines["a user"] = f"{spread['min']} to {spread['max']} interactions, median {spread['median']:g}"
    for name, key in (("pair splits", "interaction_splits"), ("item splits", "item_splits")):
        if summary[key]:
            lines[name] = ", ".join(f"{part} {count:,}" for part, count in summary[key].items())
    if summary["triples"]:
        counts = (f"{summary[what]:,} {what}" for what in ("triples", "entities", "relations"))
        lines["graph"] = ", ".join(counts)
    if summary["rejected"]:
        lines["not usable"] = ", ".join(
            f"{count} x {effect}" for effect, count in summary["rejected"].items()
        )
    return "\n".join(f"{name:<13} {text}" for name, text in lines.items())
