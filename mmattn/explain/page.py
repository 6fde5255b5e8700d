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

from mmattn.explain.attribution import Attribution, AttributionResult
from mmattn.explain.explain_item import ItemExplanation, ModalityContent, item_title
from mmattn.explain.targets import ItemSimilarity, UserScore
from mmattn.explain.token_spans import ImageBox, TableCell, TextRange, TimeRange, TokenSpan
from mmattn.files import write_text
from mmattn.reports.audio_player import AudioClip, render_clip
from mmattn.reports.templating import template_environment
from mmattn.reports.thumbnails import thumbnail

__all__ = ["render_explanation", "to_json", "write_explanation"]

MAX_PAIRWISE_WEIGHTS = 400_000  # of unit-to-unit weights in a page: about 1.5 MB
METHOD_LABELS = {
    "rollout": "Attention",
    "relevance": "Attention × gradient",
    "left out": "Left out",
}


@dataclass(frozen=True)
class TextPiece:
    """A stretch of text: of a unit, or between units (number None)."""

    text: str
    span_index: int | None


def write_explanation(path: str | os.PathLike[str], explanation: ItemExplanation) -> None:
    """Write the page, atomically.

    Args:
        path: of the HTML file.
        explanation: as `mmattn.explain.explain_item.explain_run` gives it.
    """
    write_text(path, render_explanation(explanation))


def render_explanation(explanation: ItemExplanation) -> str:
    """The page as a string of HTML."""
    found = explanation.result
    page = template_environment()
    page.filters |= {
        "percent": _percent,
        "signed": _signed,
        "agreement": _agreement,
    }
    page.globals |= {"place": _css_position, "title_of": item_title}
    there = [index for index, name in enumerate(found.modalities) if found.spans[name]]
    return page.get_template("explanation.html.j2").render(
        it=explanation,
        found=found,
        against=explanation.target.other_item if isinstance(explanation.target, ItemSimilarity) else None,
        user=explanation.target if isinstance(explanation.target, UserScore) else None,
        picture=next((part.content for part in explanation.modalities if part.kind == "image"), None),
        verdict=_summary(explanation),
        panels=[_panel(part, found) for part in explanation.modalities],
        there=there,
        measures=METHOD_LABELS,
        worth=sorted(found.leave_out_changes.items(), key=lambda pair: pair[1]),
        rows=_top_spans(found),
        start=_normalized(found.attributions["rollout"].total),
        data=Markup(_page_data(found, there)),
    )


def to_json(explanation: ItemExplanation) -> dict[str, Any]:
    """The same numbers for machines."""
    found, question = explanation.result, explanation.target
    ranked = {}
    if isinstance(question, UserScore):
        ranked = {"rank": question.rank, "candidates": question.n_candidates}
    attention = ("rollout", "relevance", "pool")
    return {
        "item": explanation.item.id,
        "title": explanation.title,
        "question": question.question,
        "score": found.score,
        **ranked,
        "without": dict(found.leave_out_changes),
        "absent": {part.modality: part.error or "none" for part in explanation.modalities if not part.spans},
        "shares": {name: found.modality_shares(name) for name in attention},
        "agreement": {name: found.attributions[name].agreement for name in attention},
        "units": [
            {
                "modality": name,
                "label": unit.label,
                **{
                    key.replace(" ", "_"): float(each.total[number])
                    for key, each in found.attributions.items()
                },
            }
            for number, (name, unit) in enumerate(found.numbered_spans)
        ],
        "modalities": list(found.modalities),
        "flow": {
            "rollout": _rounded_list(found.attributions["rollout"].flow),
            "relevance": _rounded_list(found.attributions["relevance"].flow),
            "layers": [[_rounded_list(head.flow) for head in layer] for layer in found.layers],
        },
        "added_by_layer": list(found.layer_update_ratios),
        "history": [{"item": item.id, "part": share} for item, share in explanation.contributions],
        "provenance": dict(explanation.provenance),
    }


# --- words ------------------------------------------------------------------------------------------


def _summary(explanation: ItemExplanation) -> str:
    """The answer in two sentences, from what happens when a modality is left out."""
    found = explanation.result
    ordered = sorted(found.leave_out_changes.items(), key=lambda pair: pair[1])
    if len(ordered) == 1:
        return f"Everything rests on {ordered[0][0]}: the item has nothing else."
    (most, fall), *others = ordered
    scale = abs(found.score) or 1.0
    if fall >= 0:
        return (
            "Nothing that the item has raises this score: without any one modality it is as high or higher."
        )
    first = f"Most rests on {most}: without it the score falls by {abs(fall) / scale:.0%}."
    rest = [_change_phrase(name, change / scale) for name, change in others]
    return f"{first} {'; '.join(rest)[:1].upper()}{'; '.join(rest)[1:]}."


def _change_phrase(name: str, change: float) -> str:
    if abs(change) < 0.005:
        return f"without {name} it stays as it is"
    return f"without {name} it {'falls' if change < 0 else 'rises'} by {abs(change):.0%}"


# --- panels -----------------------------------------------------------------------------------------


def _panel(part: ModalityContent, result: AttributionResult) -> dict[str, Any]:
    """What the template needs of one modality."""
    first = next(
        (number for number, (name, _) in enumerate(result.numbered_spans) if name == part.modality), 0
    )
    whole = len(part.spans) == 1 and part.spans[0].location is None
    shown: dict[str, Any] = {"part": part, "first": first, "whole": whole, "count": _token_count(part)}
    if part.content is None:
        return shown | {"kind": "absent"}
    places = [unit.location for unit in part.spans]
    if part.kind == "text":
        return shown | {"kind": "text", "fields": list(_text_fields(part, first))}
    if part.kind == "table":
        return shown | {"kind": "table", "columns": _table_columns(part, first)}
    if part.kind == "image":
        return shown | {"kind": "image", "picture": image_thumbnail(part.content), "places": places}
    if part.kind == "audio":
        return shown | {"kind": "audio", "sound": render_clip(part.content, part.encoder), "places": places}
    return shown | {"kind": "units"}


def image_thumbnail(content: Any) -> str | None:
    """The picture as the encoder saw it, upright, large enough to look at."""
    from mmattn.encoders.image.image_io import read_image

    return thumbnail(read_image(content), width=640, height=640, quality=82)


def _token_count(part: ModalityContent) -> str:
    tokens = sum(len(unit.tokens) for unit in part.spans)
    return f"{tokens} token{'' if tokens == 1 else 's'}"


def _text_fields(part: ModalityContent, first: int) -> Iterator[dict[str, Any]]:
    """Each text with its words marked; what the encoder did not read is left unmarked."""
    texts = [part.content] if isinstance(part.content, str) else list(part.content)
    for field, raw in enumerate(texts):
        text = (raw or "").strip()
        if not text:
            continue
        marked = [
            (first + number, unit.location)
            for number, unit in enumerate(part.spans)
            if isinstance(unit.location, TextRange) and unit.location.field == field
        ]
        pieces, end = [], 0
        for number, place in marked:
            pieces += [
                TextPiece(text[end : place.start], None),
                TextPiece(text[place.start : place.end], number),
            ]
            end = place.end
        pieces.append(TextPiece(text[end:], None))
        yield {
            "name": part.fields[field] if len(part.fields) == len(texts) else "",
            "pieces": [piece for piece in pieces if piece.text],
            "unread": bool(marked) and len(text) - end > 1,
        }


def _table_columns(part: ModalityContent, first: int) -> dict[str, list[tuple[str, int | None]]]:
    """Column -> its values with their unit's number, None for one that the model never met."""
    columns = getattr(part.encoder, "columns", part.content)
    found: dict[str, list[tuple[str, int | None]]] = {}
    for name in columns:
        raw = part.content.get(name)
        if raw is None:
            continue
        values = [f"{each:g}" if isinstance(each, float) else str(each) for each in _as_list(raw)]
        known = {
            unit.location.value: first + number
            for number, unit in enumerate(part.spans)
            if isinstance(unit.location, TableCell) and unit.location.column == name
        }
        found[name] = [(value, known.get(value)) for value in dict.fromkeys(values)]
    return found


def _as_list(raw: Any) -> list[Any]:
    return list(raw) if isinstance(raw, (list, tuple)) else [raw]


def _css_position(span: TokenSpan, clip: AudioClip | None = None) -> str:
    """Where a unit lies over a picture or a clip, as CSS."""
    place = span.location
    if isinstance(place, ImageBox):
        box = (place.left, place.top, place.right - place.left, place.bottom - place.top)
        left, top, width, height = (f"{100 * share:.3f}%" for share in box)
        return f"left:{left};top:{top};width:{width};height:{height}"
    if isinstance(place, TimeRange) and clip is not None:
        start, end = (min(1.0, each / clip.duration) for each in (place.start, place.end))
        return f"left:{100 * start:.3f}%;width:{100 * (end - start):.3f}%"
    return "inset:0"


# --- numbers ----------------------------------------------------------------------------------------


def _top_spans(result: AttributionResult, max_rows: int = 15) -> list[dict[str, Any]]:
    """The units whose absence changes most."""
    left = result.attributions["left out"].total
    order = np.argsort(-np.abs(left), kind="stable")[:max_rows]
    return [
        {
            "number": int(number),
            "modality": result.numbered_spans[number][0],
            "label": result.numbered_spans[number][1].label,
            "values": {name: float(result.attributions[name].total[number]) for name in METHOD_LABELS},
        }
        for number in order
    ]


def _page_data(result: AttributionResult, present: list[int]) -> str:
    """Everything that the page can switch between, as JSON that is safe inside a script element."""
    units = len(result.numbered_spans)
    heads = sum(len(layer) for layer in result.layers)
    rows = (heads + 2) * units * units <= MAX_PAIRWISE_WEIGHTS
    data = {
        "score": result.score,
        "modalities": [result.modalities[index] for index in present],
        "units": [
            [result.modalities.index(name), unit.label if len(unit.label) < 60 else f"{unit.label[:57]}…"]
            for name, unit in result.numbered_spans
        ],
        "there": present,
        "readings": {
            name: _attribution_data(reading, present, rows=True)
            for name, reading in result.attributions.items()
        },
        "layers": [[_attribution_data(head, present, rows) for head in layer] for layer in result.layers],
    }
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "").replace("\u2029", "")


def _attribution_data(attribution: Attribution, present: list[int], rows: bool) -> dict[str, Any]:
    """A reading for the page; rows in thousandths."""
    thousandths = None
    if rows and attribution.pairwise is not None:
        thousandths = np.rint(attribution.pairwise * 1000).astype(int).tolist()
    return {
        "total": [float(f"{value:.4g}") for value in attribution.total],
        "rows": thousandths,
        "flow": None
        if attribution.flow is None
        else _rounded_list(attribution.flow[np.ix_(present, present)]),
        "agreement": None if attribution.agreement is None else round(attribution.agreement, 3),
    }


def _normalized(total: NDArray[np.float64]) -> list[float]:
    """0 to 1 of the largest, for the page as it first opens."""
    return (np.abs(total) / max(float(np.abs(total).max()), 1e-12)).round(3).tolist()


def _rounded_list(matrix: NDArray[np.float64] | None) -> list[list[float]] | None:
    return None if matrix is None else matrix.round(4).tolist()


def _percent(value: float) -> str:
    return f"{value:.1%}" if abs(value) < 0.0995 else f"{value:.0%}"


def _agreement(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−").replace("−0.00", "0.00")


def _signed(value: float) -> str:
    return "0" if abs(value) < 5e-7 else f"{value:+.3g}".replace("-", "−")
