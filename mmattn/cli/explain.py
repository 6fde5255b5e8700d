"""`mmattn explain RUN --item ID --out FILE.html`: why a run's model gives an item its score.

The self-contained page shows attention, attention times gradient and leave-out effects over the image, the
words, the spectrogram and the table cells, the attention between modalities, and every layer and head. By
default the item's own vector is explained; `--user` explains its score for a user and `--compare-to` its
similarity to another item.
"""

from __future__ import annotations

import json
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from mmattn.errors import InputError


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a finished run or of a model")
    parser.add_argument("--item", required=True, metavar="ID", help="the item to explain")
    parser.add_argument("--out", metavar="FILE", help="the HTML page to write")
    parser.add_argument("--user", metavar="ID", help="explain the score for this user")
    parser.add_argument("--compare-to", metavar="ID", help="explain the similarity to this item")
    parser.add_argument("--card", metavar="CARD", help="dataset card; by default that of the run")
    parser.add_argument("--seed", type=int, help="seed of the run's model; by default the first")
    parser.add_argument("--head", default="", help="head to explain, for models with several")
    parser.add_argument(
        "--features", metavar="DIR", help="folder of the feature store; by default that of the run"
    )
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def run(arguments: Namespace) -> int:
    from mmattn.explain.explain_item import explain_item
    from mmattn.explain.page import to_json, write_explanation

    if not arguments.out and not arguments.json:
        raise InputError("explain: got neither --out FILE.html nor --json, expected at least one of the two")
    explanation = explain_item(
        arguments.run, arguments.item, card=arguments.card, user=arguments.user,
        compare_to=arguments.compare_to, seed=arguments.seed, head=arguments.head,
        features=arguments.features,
        progress=not arguments.quiet,
    )  # fmt: skip
    if arguments.out:
        write_explanation(Path(arguments.out), explanation)
    if arguments.json:
        print(json.dumps(to_json(explanation), indent=2, ensure_ascii=False, allow_nan=False))
        return 0
    for name, change in sorted(explanation.result.leave_out_changes.items(), key=lambda pair: pair[1]):
        print(f"without {name}: {change:+.4g}")
    print(f"{explanation.target.name}: {explanation.result.score:.4g}\npage: {arguments.out}")
    return 0
