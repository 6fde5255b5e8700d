"""`mmattn explain RUN --item ID --out FILE.html`: why a run's model gives an item its score.

One self-contained page: attention, attention times gradient and the effect of leaving parts out, over the
picture, the words, the spectrogram and the table's values; the flow between modalities; every layer and
head. By default it explains the item's own vector; `--user` asks why it fits a user, `--against` what
makes it like another item.
"""

from __future__ import annotations

import json
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from mmattn.errors import InputError


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a finished run, or of a model")
    parser.add_argument("--item", required=True, metavar="ID", help="the item to explain")
    parser.add_argument("--out", metavar="FILE", help="the HTML page to write")
    parser.add_argument("--user", metavar="ID", help="ask how well it fits this user")
    parser.add_argument("--against", metavar="ID", help="ask what makes it like this other item")
    parser.add_argument("--items", metavar="CARD", help="the card of the data, where the run names none")
    parser.add_argument("--seed", type=int, help="which of the run's models; the first one by default")
    parser.add_argument("--head", default="", help="whose vectors, where the model has several heads")
    parser.add_argument(
        "--features", metavar="DIR", help="folder of the feature store; the run's own by default"
    )
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON, for machines")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def run(arguments: Namespace) -> int:
    from mmattn.explain.explain_item import explain_item
    from mmattn.explain.page import to_json, write_explanation

    if not arguments.out and not arguments.json:
        raise InputError("explain: got neither --out FILE.html nor --json, expected at least one of the two")
    explained = explain_item(
        arguments.run, arguments.item, card=arguments["items"], user=arguments.user,
        compare_to=arguments.against, seed=arguments.seed, head=arguments.head, features=arguments.features,
        progress=not arguments.quiet,
    )  # fmt: skip
    if arguments.out:
        write_explanation(Path(arguments.out), explained)
    if arguments.json:
        print(json.dumps(to_json(explained), indent=2, ensure_ascii=False, allow_nan=False))
        return 0
    for name, change in sorted(explained.result.leave_out_changes.items(), key=lambda pair: pair[1]):
        print(f"without {name}: {change:+.4g}")
    print(f"{explained.target.name}: {explained.result.score:.4g}\npage: {arguments.out}")
    return 0
