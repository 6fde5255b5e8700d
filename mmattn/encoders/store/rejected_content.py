"""Contents that encoders cannot read, and the CSV file that lists them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mmattn.files import write_text

__all__ = ["RejectedContent", "write_rejected"]


@dataclass(frozen=True, order=True)
class RejectedContent:
    """A content that cannot be read.

    Args:
        id: id of the sample.
        modality: modality of the content.
        reason: why it cannot be read.
    """

    id: str
    modality: str
    reason: str


def write_rejected(path: str | Path, rejected: Iterable[RejectedContent]) -> None:
    """Write rejected contents, of one store or of several, as CSV with columns id, modality, reason.

    Args:
        path: the file.
        rejected: the rejected contents.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["id", "modality", "reason"])
    table.writerows([content.id, content.modality, content.reason] for content in rejected)
    write_text(path, text.getvalue())
