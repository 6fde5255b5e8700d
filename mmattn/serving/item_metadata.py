"""Item content as metadata columns for filters (`where=`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mmattn.types import Sample

if TYPE_CHECKING:
    from mmattn.data.roles import ItemTable

__all__ = ["item_columns"]

_ROLE_PRIORITY = (
    "number",
    "category",
    "categories",
    "text",
    "image",
    "audio",
    "label",
)  # if a column has several roles, the first of these is used


def item_columns(
    samples: Sequence[Sample], spec: ItemTable, labels: Mapping[str, np.ndarray] | None = None
) -> pd.DataFrame:
    """Table of the item columns that a card describes; missing values are None (NaN for numbers).

    A number is a float, categories are a list, images and clips the path of their file, all others text. A
    column with several roles is read by the first of: number, category, categories, text, image, audio,
    label. Graph entities and a column called "id" (the name of the ids) are left out.

    Args:
        samples: N items.
        spec: item table of the card.
        labels: label column -> [N] texts, "" for missing; None means that all are missing.

    Returns:
        N rows.

    Example:
        >>> from mmattn.data.roles import ItemTable
        >>> columns = {"title": "text", "genres": ["text", "categories"], "year": "number"}
        >>> spec = ItemTable("items.csv", "item", columns)
        >>> content = {"text": ["Heat", "Crime"], "table": {"genres": ["Crime"], "year": 1995.0}}
        >>> item_columns([Sample("7", content), Sample("8")], spec).to_dict("list")
        {'title': ['Heat', None], 'genres': [['Crime'], None], 'year': [1995.0, nan]}
    """
    uses: dict[str, tuple[int, Any]] = {}
    text_index: dict[str, int] = {}  # modality -> position of its next text
    for name, use in spec.uses():
        within = 0
        if use.kind == "text":
            within = text_index.get(use.modality, 0)
            text_index[use.modality] = within + 1
        best = uses.get(name)
        if use.role in _ROLE_PRIORITY and (best is None or _role_rank(use) < _role_rank(best[1])):
            uses[name] = (within, use)
    columns: dict[str, Any] = {}
    for name, (within, use) in uses.items():
        if name == "id":
            continue
        if use.role == "label":
            names = (labels or {}).get(name)
            cells = [None] * len(samples) if names is None else [text or None for text in names.tolist()]
        else:
            cells = [_cell(sample.content.get(use.modality), name, within, use.kind) for sample in samples]
        kind = float if use.role == "number" else object
        columns[name] = pd.Series(cells, dtype=kind)
    return pd.DataFrame(columns, index=range(len(samples)))


def _role_rank(use: Any) -> int:
    return _ROLE_PRIORITY.index(use.role)


def _cell(content: Any, column: str, text_index: int, kind: str) -> Any:
    if content is None:
        return None
    if kind == "table":
        return content.get(column) if isinstance(content, Mapping) else None
    if kind == "text":
        texts = [content] if isinstance(content, str) else content
        return texts[text_index] if text_index < len(texts) else None
    return str(content)
