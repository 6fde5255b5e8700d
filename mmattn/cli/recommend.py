"""`mmattn recommend RUN --history ID ... [--where CONDITION]`: what a finished run recommends.

For one user, `--history` has the ids of the items met; without any id it is somebody new. For many,
`--users FILE.parquet --out FILE.parquet` reads a table with columns user and item, in any order and of any
length, and writes user, rank, item and score; after a kill, the same command goes on. `--add-items FILE`
first adds the new items of a card or a table to the run's index: nothing is trained again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from mmattn.errors import InputError

if TYPE_CHECKING:
    from mmattn.serving.add_items import AddedItems
    from mmattn.serving.service import Recommendations, RecommenderService


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a finished run")
    parser.add_argument("--history", nargs="*", metavar="ID", help="items that the user has met")
    parser.add_argument("--users", metavar="FILE", help="parquet with user and item, for many users")
    parser.add_argument("--out", metavar="FILE", help="the parquet file to write for --users")
    parser.add_argument("--add-items", metavar="FILE", help="card or table with new items, added first")
    parser.add_argument("-k", "--k", type=int, default=20, help="how many items a user")
    parser.add_argument("--where", help="""a condition, "genre == 'Comedy' and year > 1990" """)
    parser.add_argument(
        "--skip-unknown", action="store_true", help="with --users: pass over items not in the catalogue"
    )
    parser.add_argument(
        "--features", metavar="DIR", help="with --add-items: feature store for what is encoded"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def run(arguments: Namespace) -> int:
    from mmattn.serving.batch import recommend_table
    from mmattn.serving.service import RecommenderService

    _check_arguments(arguments)
    service, progress = RecommenderService.open(arguments.run), not arguments.quiet
    told: dict[str, Any] = {}
    lines: list[str] = []
    if arguments.add_items is not None:
        added = service.add_items(Path(arguments.add_items), features=arguments.features, progress=progress)
        told["added"] = {
            "ids": added.ids, "existing": added.existing, "skipped_no_content": added.skipped_no_content,
        }  # fmt: skip
        lines.append(_added_sentence(added))
    if arguments.history is not None:
        recommendations = service.recommend(arguments.history, arguments.k, arguments.where)
        told |= {"basis": recommendations.basis, "items": _items_with_columns(service, recommendations)}
        lines += _table(service, recommendations)
    if arguments.users is not None:
        counts = recommend_table(
            service, arguments.users, arguments.out, k=arguments.k, where=arguments.where,
            skip_unknown=arguments.skip_unknown, progress=progress,
        )  # fmt: skip
        told |= vars(counts)
        passed = f"; {counts.unknown:,} rows with unknown items passed over" if counts.unknown else ""
        lines.append(f"{counts.rows:,} rows for {counts.users:,} users in {arguments.out}{passed}")
    print(json.dumps(told, ensure_ascii=False, allow_nan=False) if arguments.json else "\n".join(lines))
    return 0


def _check_arguments(arguments: Namespace) -> None:
    """Do the arguments belong together?"""
    if arguments.history is None and arguments.users is None and arguments.add_items is None:
        raise InputError("recommend: got none of --history, --users and --add-items, expected one")
    if arguments.history is not None and arguments.users is not None:
        raise InputError("recommend: got --history and --users, expected one of the two")
    if (arguments.users is None) != (arguments.out is None):
        raise InputError("recommend: --users FILE and --out FILE belong together, got only one of them")


def _added_sentence(added: AddedItems) -> str:
    words = f"{len(added.ids):,} items added, {added.existing:,} were there"
    if added.skipped_no_content:
        skipped = added.skipped_no_content
        words += f", {len(skipped):,} left out for lack of content, the first is {skipped[0]!r}"
    return words


def _items_with_columns(
    service: RecommenderService, recommendations: Recommendations
) -> list[dict[str, Any]]:
    columns = service.index.metadata.iloc[service.rows_of(recommendations.ids)].to_dict("records")
    return [
        {"item": item, "score": score, "columns": _json_values(row)}
        for item, score, row in zip(recommendations.ids, recommendations.scores, columns, strict=True)
    ]


def _json_values(row: Mapping[Any, Any]) -> dict[str, Any]:
    """JSON values; what is missing is left out."""
    values = {str(name): value.tolist() if hasattr(value, "tolist") else value for name, value in row.items()}
    return {
        name: value
        for name, value in values.items()
        if value is not None and not (isinstance(value, float) and math.isnan(value))
    }


def _table(service: RecommenderService, recommendations: Recommendations) -> list[str]:
    basis = {
        "history": "by the history",
        "catalogue": "no history: what the catalogue as a whole speaks for, the same for everybody new",
    }
    lines = [f"{len(recommendations.ids)} items, {basis[recommendations.basis]}"]
    text = next((name for name, use in service.columns.uses() if use.role == "text"), None)
    for rank, item in enumerate(_items_with_columns(service, recommendations), start=1):
        title = str(item["columns"].get(text, ""))
        shown = title if len(title) <= 60 else f"{title[:59]}…"
        lines.append(f"{rank:>4}  {item['score']:>9.4f}  {item['item']!s:<12}  {shown}".rstrip())
    return lines
