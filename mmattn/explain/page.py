"""The page of one explained item: one HTML file that needs nothing from outside."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from mmattn.explain.attribution import Explained, Reading
from mmattn.explain.explain_item import ItemExplanation, Part, title_of
from mmattn.explain.targets import Against, UserMatch
from mmattn.explain.token_spans import Box, Cell, Span, Unit, Words
from mmattn.files import write_text
from mmattn.reports.audio_player import Sound, sound_of
from mmattn.reports.templating import environment
from mmattn.reports.thumbnails import thumbnail

__all__ = ["render_explanation", "to_json", "write_explanation"]

MOST_NUMBERS = 400_000  # of unit-to-unit weights in a page: about 1.5 MB
MEASURES = {
    "rollout": "Attention",
    "relevance": "Attention × gradient",
    "left out": "Left out",
}


@dataclass(frozen=True)
class Piece:
    """A stretch of text: of a unit, or between units (number None)."""

    text: str
    number: int | None


def write_explanation(path: str | os.PathLike[str], explained: ItemExplanation) -> None:
    """Write the page, atomically.

    Args:
        path: of the HTML file.
        explained: as `mmattn.explain.explain_item.explain_run` gives it.
    """
    write_text(path, render_explanation(explained))


def render_explanation(explained: ItemExplanation) -> str:
    """The page as a string of HTML."""
    found = explained.found
    page = environment()
    page.filters |= {
        "percent": _percent,
        "signed": _signed,
        "agreement": _agreement,
    }
    page.globals |= {"place": _place, "title_of": title_of}
    there = [index for index, name in enumerate(found.modalities) if found.units[name]]
    return page.get_template("explanation.html.j2").render(
        it=explained,
        found=found,
        against=explained.question.sample if isinstance(explained.question, Against) else None,
        user=explained.question if isinstance(explained.question, UserMatch) else None,
        picture=next((part.content for part in explained.parts if part.kind == "image"), None),
        verdict=_verdict(explained),
        panels=[_panel(part, found) for part in explained.parts],
        there=there,
        measures=MEASURES,
        worth=sorted(found.without.items(), key=lambda pair: pair[1]),
        rows=_table(found),
        start=_shade(found.readings["rollout"].total),
        data=Markup(_script(found, there)),
    )


def to_json(explained: ItemExplanation) -> dict[str, Any]:
    """The same numbers for machines."""
    found, question = explained.found, explained.question
    ranked = {}
    if isinstance(question, UserMatch):
        ranked = {"rank": question.rank, "candidates": question.candidates}
    attention = ("rollout", "relevance", "pool")
    return {
        "item": explained.item.id,
        "title": explained.title,
        "question": question.words,
        "score": found.score,
        **ranked,
        "without": dict(found.without),
        "absent": {part.modality: part.problem or "none" for part in explained.parts if not part.units},
        "shares": {name: found.shares(name) for name in attention},
        "agreement": {name: found.readings[name].agreement for name in attention},
        "units": [
            {
                "modality": name,
                "label": unit.label,
                **{key.replace(" ", "_"): float(each.total[number]) for key, each in found.readings.items()},
            }
            for number, (name, unit) in enumerate(found.numbered)
        ],
        "modalities": list(found.modalities),
        "flow": {
            "rollout": _listed(found.readings["rollout"].flow),
            "relevance": _listed(found.readings["relevance"].flow),
            "layers": [[_listed(head.flow) for head in layer] for layer in found.layers],
        },
        "added_by_layer": list(found.change),
        "history": [{"item": item.id, "part": share} for item, share in explained.reasons],
        "provenance": dict(explained.provenance),
    }


# --- words ------------------------------------------------------------------------------------------


def _verdict(explained: ItemExplanation) -> str:
    """The answer in two sentences, from what happens when a modality is left out."""
    found = explained.found
    ordered = sorted(found.without.items(), key=lambda pair: pair[1])
    if len(ordered) == 1:
        return f"Everything rests on {ordered[0][0]}: the item has nothing else."
    (most, fall), *others = ordered
    scale = abs(found.score) or 1.0
    if fall >= 0:
        return (
            "Nothing that the item has raises this score: without any one modality it is as high or higher."
        )
    first = f"Most rests on {most}: without it the score falls by {abs(fall) / scale:.0%}."
    rest = [_without(name, change / scale) for name, change in others]
    return f"{first} {'; '.join(rest)[:1].upper()}{'; '.join(rest)[1:]}."


def _without(name: str, change: float) -> str:
    if abs(change) < 0.005:
        return f"without {name} it stays as it is"
    return f"without {name} it {'falls' if change < 0 else 'rises'} by {abs(change):.0%}"


# --- panels -----------------------------------------------------------------------------------------


def _panel(part: Part, found: Explained) -> dict[str, Any]:
    """What the template needs of one modality."""
    first = next((number for number, (name, _) in enumerate(found.numbered) if name == part.modality), 0)
    whole = len(part.units) == 1 and part.units[0].place is None
    shown: dict[str, Any] = {"part": part, "first": first, "whole": whole, "count": _count(part)}
    if part.content is None:
        return shown | {"kind": "absent"}
    places = [unit.place for unit in part.units]
    if part.kind == "text":
        return shown | {"kind": "text", "fields": list(_fields(part, first))}
    if part.kind == "table":
        return shown | {"kind": "table", "columns": _columns(part, first)}
    if part.kind == "image":
        return shown | {"kind": "image", "picture": thumbnail_of(part.content), "places": places}
    if part.kind == "audio":
        return shown | {"kind": "audio", "sound": sound_of(part.content, part.encoder), "places": places}
    return shown | {"kind": "units"}


def thumbnail_of(content: Any) -> str | None:
    """The picture as the encoder saw it, upright, large enough to look at."""
    from mmattn.encoders.image.image_io import read_picture

    return thumbnail(read_picture(content), width=640, height=640, quality=82)


def _count(part: Part) -> str:
    tokens = sum(len(unit.tokens) for unit in part.units)
    return f"{tokens} token{'' if tokens == 1 else 's'}"


def _fields(part: Part, first: int) -> Iterator[dict[str, Any]]:
    """Each text with its words marked; what the encoder did not read is left unmarked."""
    texts = [part.content] if isinstance(part.content, str) else list(part.content)
    for field, raw in enumerate(texts):
        text = (raw or "").strip()
        if not text:
            continue
        marked = [
            (first + number, unit.place)
            for number, unit in enumerate(part.units)
            if isinstance(unit.place, Words) and unit.place.field == field
        ]
        pieces, end = [], 0
        for number, place in marked:
            pieces += [Piece(text[end : place.start], None), Piece(text[place.start : place.end], number)]
            end = place.end
        pieces.append(Piece(text[end:], None))
        yield {
            "name": part.fields[field] if len(part.fields) == len(texts) else "",
            "pieces": [piece for piece in pieces if piece.text],
            "unread": bool(marked) and len(text) - end > 1,
        }


def _columns(part: Part, first: int) -> dict[str, list[tuple[str, int | None]]]:
    """Column -> its values with their unit's number, None for one that the model never met."""
    columns = getattr(part.encoder, "columns", part.content)
    found: dict[str, list[tuple[str, int | None]]] = {}
    for name in columns:
        raw = part.content.get(name)
        if raw is None:
            continue
        values = [f"{each:g}" if isinstance(each, float) else str(each) for each in _many(raw)]
        known = {
            unit.place.value: first + number
            for number, unit in enumerate(part.units)
            if isinstance(unit.place, Cell) and unit.place.column == name
        }
        found[name] = [(value, known.get(value)) for value in dict.fromkeys(values)]
    return found


def _many(raw: Any) -> list[Any]:
    return list(raw) if isinstance(raw, (list, tuple)) else [raw]


def _place(unit: Unit, sound: Sound | None = None) -> str:
    """Where a unit lies over a picture or a clip, as CSS."""
    place = unit.place
    if isinstance(place, Box):
        box = (place.left, place.top, place.right - place.left, place.bottom - place.top)
        left, top, width, height = (f"{100 * share:.3f}%" for share in box)
        return f"left:{left};top:{top};width:{width};height:{height}"
    if isinstance(place, Span) and sound is not None:
        start, end = (min(1.0, each / sound.seconds) for each in (place.start, place.end))
        return f"left:{100 * start:.3f}%;width:{100 * (end - start):.3f}%"
    return "inset:0"


# --- numbers ----------------------------------------------------------------------------------------


def _table(found: Explained, most: int = 15) -> list[dict[str, Any]]:
    """The units whose absence changes most."""
    left = found.readings["left out"].total
    order = np.argsort(-np.abs(left), kind="stable")[:most]
    return [
        {
            "number": int(number),
            "modality": found.numbered[number][0],
            "label": found.numbered[number][1].label,
            "values": {name: float(found.readings[name].total[number]) for name in MEASURES},
        }
        for number in order
    ]


def _script(found: Explained, there: list[int]) -> str:
    """Everything that the page can switch between, as JSON that is safe inside a script element."""
    units = len(found.numbered)
    heads = sum(len(layer) for layer in found.layers)
    rows = (heads + 2) * units * units <= MOST_NUMBERS
    data = {
        "score": found.score,
        "modalities": [found.modalities[index] for index in there],
        "units": [
            [found.modalities.index(name), unit.label if len(unit.label) < 60 else f"{unit.label[:57]}…"]
            for name, unit in found.numbered
        ],
        "there": there,
        "readings": {name: _numbers(reading, there, rows=True) for name, reading in found.readings.items()},
        "layers": [[_numbers(head, there, rows) for head in layer] for layer in found.layers],
    }
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "").replace("\u2029", "")


def _numbers(reading: Reading, there: list[int], rows: bool) -> dict[str, Any]:
    """A reading for the page; rows in thousandths."""
    thousandths = None
    if rows and reading.rows is not None:
        thousandths = np.rint(reading.rows * 1000).astype(int).tolist()
    return {
        "total": [float(f"{value:.4g}") for value in reading.total],
        "rows": thousandths,
        "flow": None if reading.flow is None else _listed(reading.flow[np.ix_(there, there)]),
        "agreement": None if reading.agreement is None else round(reading.agreement, 3),
    }


def _shade(total: NDArray[np.float64]) -> list[float]:
    """0 to 1 of the largest, for the page as it first opens."""
    return (np.abs(total) / max(float(np.abs(total).max()), 1e-12)).round(3).tolist()


def _listed(matrix: NDArray[np.float64] | None) -> list[list[float]] | None:
    return None if matrix is None else matrix.round(4).tolist()


def _percent(value: float) -> str:
    return f"{value:.1%}" if abs(value) < 0.0995 else f"{value:.0%}"


def _agreement(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−").replace("−0.00", "0.00")


def _signed(value: float) -> str:
    return "0" if abs(value) < 5e-7 else f"{value:+.3g}".replace("-", "−")
