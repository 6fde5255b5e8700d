"""`mmattn plugins`: what is installed, from where, what is missing and how to get it."""

from __future__ import annotations

import json

from jsonargparse import ArgumentParser, Namespace

from mmattn.registry import registries


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON for machines instead of a table")


def run(arguments: Namespace) -> int:
    rows = [row for registry in registries.values() for row in registry.status()]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return 0
    columns = ("kind", "name", "origin")
    widths = [max(len(column), *(len(row[column]) for row in rows)) for column in columns]
    print("  ".join(f"{column:<{width}}" for column, width in zip(columns, widths, strict=True)), " state")
    for row in rows:
        cells = "  ".join(f"{row[column]:<{width}}" for column, width in zip(columns, widths, strict=True))
        state = (
            "ready" if row["loadable"] else f"missing; {row['install']}" if row["install"] else row["problem"]
        )
        print(cells, f" {state}")
    return 0
