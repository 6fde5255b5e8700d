"""`mmattn prepare wnut17 --root RAW --out DIR`: emerging named entities in noisy text."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from mmattn.data.card import Card
from mmattn.data.rejected import RejectionLog
from mmattn.errors import InputError
from mmattn.files import atomic_path

__all__ = ["Wnut17"]

FILES = {
    "train": "wnut17train.conll",
    "validation": "emerging.dev.conll",
    "test": "emerging.test.annotated",
}
ENTITY_TYPES = ("corporation", "creative-work", "group", "location", "person", "product")
TAGS = frozenset({"O", *(f"{mark}-{kind}" for kind in ENTITY_TYPES for mark in "BI")})

_CARD = {
    "name": "wnut17",
    "description": "Sentences of tweets, comments and forum posts; the words of entities rarely come twice.",
    "licence": "CC BY 4.0 (Derczynski, Nichols, van Erp and Limsopatham, 2017)",
    "items": {
        "file": "items.parquet",
        "id": "item",
        "split": "split",
        "columns": {"words": "words", "tags": "tags"},
    },
}


class Wnut17:
    """Sentences as lists of words with a BIO tag for each word, in the published splits.

    Paper: Derczynski et al., "Results of the WNUT2017 Shared Task on Novel and Emerging Entity
    Recognition", 2017.
    """

    def prepare(
        self,
        root: str | os.PathLike[str] | None = None,
        out: str | os.PathLike[str] = "wnut17",
        *,
        reject_limit: float = 0.01,
    ) -> Card:
        """Write items.parquet, rejected.csv and card.yaml.

        Args:
            root: folder of the three CoNLL files: a word, a tab and its tag per line, an empty line between
                sentences.
            out: the folder to write to.
            reject_limit: maximum fraction of bad sentences.

        Returns:
            The card, loaded and checked.

        Raises:
            InputError: a missing file, or too many bad sentences.
        """
        missing = [name for name in FILES.values() if root is None or not (Path(root) / name).is_file()]
        if root is None or missing:
            raise InputError(
                f"wnut17: got root {root!s}, expected the folder with {', '.join(FILES.values())}; "
                f"missing: {', '.join(missing)}"
            )
        out, rejected = Path(out), RejectionLog()
        rows = [row for part in FILES for row in _sentences(Path(root), part, rejected, reject_limit)]
        out.mkdir(parents=True, exist_ok=True)
        with atomic_path(out / "items.parquet") as temporary:
            pd.DataFrame(rows).to_parquet(temporary, index=False)
        rejected.write(out / "rejected.csv")
        return Card.load(Card.parse(_CARD).save(out))  # last: a folder with a card is complete


def _sentences(root: Path, part: str, rejected: RejectionLog, limit: float) -> list[dict[str, Any]]:
    """Read the rows of one file; a sentence with a bad line is listed and left out."""
    name, num_bad, first_reason = FILES[part], 0, ""
    rows: list[dict[str, Any]] = []
    for line, lines in _blocks(root / name):
        words, tags, reason = _parse_lines(lines)
        if reason:
            num_bad += 1
            first_reason = first_reason or f"line {line}: {reason}"
            rejected.add(name, line, "", "", "row dropped", reason)
        else:
            rows.append({"item": f"{part}-{line}", "words": words, "tags": tags, "split": part})
    if not rows and not num_bad:
        raise InputError(f"{root / name}: got no sentence, expected a word, a tab and a tag per line")
    rejected.check_limit(f"{root / name}: sentences", num_bad, num_bad + len(rows), limit, first_reason)
    return rows


def _blocks(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the runs of lines between empty ones, with the number of their first line."""
    block: list[str] = []
    # Split at line feeds only: a word may contain other characters that `splitlines` splits at.
    for number, line in enumerate(path.read_text("utf-8", errors="replace").split("\n"), start=1):
        if line.strip():
            block.append(line.rstrip("\r"))
        elif block:
            yield number - len(block), block
            block = []
    if block:
        yield number - len(block) + 1, block


def _parse_lines(lines: list[str]) -> tuple[list[str], list[str], str]:
    """Parse words and tags; the third value is the reason to reject them, or ""."""
    words, tags = [], []
    for line in lines:
        word, _, tag = line.partition("\t")
        if not word.strip() or tag.strip() not in TAGS:
            reason = f"got {line!r}, expected a word, a tab and one of {len(TAGS)} tags (O, B-person, ...)"
            return [], [], reason
        words.append(word)
        tags.append(tag.strip())
    return words, tags, ""
