"""The page of an explained item: one self-contained HTML file."""

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

MAX_PAIRWISE_WEIGHTS = 400_000  # span-to-span weights embedded in a page: about 1.5 MB
METHOD_LABELS = {
    "rollout": "Attention",
    "relevance": "Attention × gradient",
    "leave_out": "Left out",
}


@dataclass(frozen=True)
class TextPiece:
    """A piece of a text.

    Args:
        text: the characters.
        span_index: index of the token span; None for text between spans.
    """

    text: str
    span_index: int | None


def write_explanation(path: str | os.PathLike[str], explanation: ItemExplanation) -> None:
    """Write the page atomically.

    Args:
        path: the HTML file.
        explanation: result of `mmattn.explain.explain_item.explain_item`.
    """
    write_text(path, render_explanation(explanation))


def render_explanation(explanation: ItemExplanation) -> str:
    """Render the page as a string of HTML.

    Args:
        explanation: result of `mmattn.explain.explain_item.explain_item`.
    """
    result, target = explanation.result, explanation.target
    environment = template_environment("mmattn.explain")
    environment.filters |= {"percent": _percent, "signed": _signed, "agreement": _agreement}
    environment.globals |= {"css_position": _css_position, "item_title": item_title}
    present = [index for index, name in enumerate(result.modalities) if result.spans[name]]
    return environment.get_template("explanation.html.j2").render(
        explanation=explanation,
        result=result,
        other_item=target.other_item if isinstance(target, ItemSimilarity) else None,
        user=target if isinstance(target, UserScore) else None,
        image=next((part.content for part in explanation.modalities if part.kind == "image"), None),
        verdict=_summary(explanation),
        panels=[_panel(part, result) for part in explanation.modalities],
        method_labels=METHOD_LABELS,
        leave_out_changes=sorted(result.leave_out_changes.items(), key=lambda pair: pair[1]),
        rows=_top_spans(result),
        start=_normalized(result.attributions["rollout"].total),
        data=Markup(_page_data(result, present)),
    )


def to_json(explanation: ItemExplanation) -> dict[str, Any]:
    """Return the numbers of the page as JSON values.

    Args:
        explanation: result of `mmattn.explain.explain_item.explain_item`.
    """
    result, target = explanation.result, explanation.target
    ranks = {}
    if isinstance(target, UserScore):
        ranks = {"rank": target.rank, "n_candidates": target.n_candidates}
    attention = ("rollout", "relevance", "pool")
    return {
        "item": explanation.item.id,
        "title": explanation.title,
        "question": target.question,
        "score": result.score,
        **ranks,
        "leave_out_changes": dict(result.leave_out_changes),
        "absent": {
            part.modality: part.error or "no content" for part in explanation.modalities if not part.spans
        },
        "modality_shares": {name: result.modality_shares(name) for name in attention},
        "agreement": {name: result.attributions[name].agreement for name in attention},
        "spans": [
            {
                "modality": name,
                "label": span.label,
                **{
                    method: float(attribution.total[index])
                    for method, attribution in result.attributions.items()
                },
            }
            for index, (name, span) in enumerate(result.numbered_spans)
        ],
        "modalities": list(result.modalities),
        "flow": {
            "rollout": _rounded_list(result.attributions["rollout"].flow),
            "relevance": _rounded_list(result.attributions["relevance"].flow),
            "layers": [[_rounded_list(head.flow) for head in layer] for layer in result.layers],
        },
        "layer_update_ratios": list(result.layer_update_ratios),
        "history": [
            {"item": item.id, "contribution": contribution}
            for item, contribution in explanation.contributions
        ],
        "provenance": dict(explanation.provenance),
    }


# --- sentences ------------------------------------------------------------------------------------------


def _summary(explanation: ItemExplanation) -> str:
    """Summarize in two sentences how the score changes without each modality."""
    result = explanation.result
    ordered = sorted(result.leave_out_changes.items(), key=lambda pair: pair[1])
    if len(ordered) == 1:
        return f"The score depends on {ordered[0][0]} alone: the item has no other modality."
    (most, fall), *others = ordered
    scale = abs(result.score) or 1.0
    if fall >= 0:
        return "No modality raises this score: without any one of them it stays the same or increases."
    first = f"The score depends most on {most}: without it the score falls by {abs(fall) / scale:.0%}."
    rest = [_change_phrase(name, change / scale) for name, change in others]
    return f"{first} {'; '.join(rest)[:1].upper()}{'; '.join(rest)[1:]}."


def _change_phrase(name: str, change: float) -> str:
    if abs(change) < 0.005:
        return f"without {name} it does not change"
    return f"without {name} it {'falls' if change < 0 else 'rises'} by {abs(change):.0%}"


# --- panels -----------------------------------------------------------------------------------------


def _panel(part: ModalityContent, result: AttributionResult) -> dict[str, Any]:
    """Return the template variables of one modality."""
    modalities = [name for name, _ in result.numbered_spans]
    first_span = modalities.index(part.modality) if part.modality in modalities else 0
    panel: dict[str, Any] = {
        "part": part,
        "first_span": first_span,
        "is_single_vector": len(part.spans) == 1 and part.spans[0].location is None,
        "count": _token_count(part),
    }
    if part.content is None:
        return panel | {"kind": "absent"}
    if part.kind == "text":
        return panel | {"kind": "text", "fields": list(_text_fields(part, first_span))}
    if part.kind == "table":
        return panel | {"kind": "table", "columns": _table_columns(part, first_span)}
    if part.kind == "image":
        return panel | {"kind": "image", "image": image_thumbnail(part.content)}
    if part.kind == "audio":
        return panel | {"kind": "audio", "clip": render_clip(part.content, part.encoder)}
    return panel | {"kind": "spans"}


def image_thumbnail(content: Any) -> str | None:
    """Encode the image as the encoder read it, upright, at up to 640 pixels, as a data URI.

    Args:
        content: raw image content.
    """
    from mmattn.encoders.image.image_io import read_image

    return thumbnail(read_image(content), width=640, height=640, quality=82)


def _token_count(part: ModalityContent) -> str:
    tokens = sum(len(span.tokens) for span in part.spans)
    return f"{tokens} token{'' if tokens == 1 else 's'}"


def _text_fields(part: ModalityContent, first_span: int) -> Iterator[dict[str, Any]]:
    """Yield each text field with its words marked; truncated text stays unmarked."""
    texts = [part.content] if isinstance(part.content, str) else list(part.content)
    for field, raw in enumerate(texts):
        text = (raw or "").strip()
        if not text:
            continue
        marked = [
            (first_span + index, span.location)
            for index, span in enumerate(part.spans)
            if isinstance(span.location, TextRange) and span.location.field == field
        ]
        pieces, end = [], 0
        for index, location in marked:
            pieces += [
                TextPiece(text[end : location.start], None),
                TextPiece(text[location.start : location.end], index),
            ]
            end = location.end
        pieces.append(TextPiece(text[end:], None))
        yield {
            "name": part.fields[field] if len(part.fields) == len(texts) else "",
            "pieces": [piece for piece in pieces if piece.text],
            "truncated": bool(marked) and len(text) - end > 1,
        }


def _table_columns(part: ModalityContent, first_span: int) -> dict[str, list[tuple[str, int | None]]]:
    """Map each column to its values with their span index; None for values not seen in training."""
    columns = getattr(part.encoder, "columns", part.content)
    cells: dict[str, list[tuple[str, int | None]]] = {}
    for name in columns:
        raw = part.content.get(name)
        if raw is None:
            continue
        values = [f"{value:g}" if isinstance(value, float) else str(value) for value in _as_list(raw)]
        known = {
            span.location.value: first_span + index
            for index, span in enumerate(part.spans)
            if isinstance(span.location, TableCell) and span.location.column == name
        }
        cells[name] = [(value, known.get(value)) for value in dict.fromkeys(values)]
    return cells


def _as_list(raw: Any) -> list[Any]:
    return list(raw) if isinstance(raw, (list, tuple)) else [raw]


def _css_position(span: TokenSpan, clip: AudioClip | None = None) -> str:
    """Return the CSS position of a span over an image or a clip."""
    location = span.location
    if isinstance(location, ImageBox):
        box = (location.left, location.top, location.right - location.left, location.bottom - location.top)
        left, top, width, height = (f"{100 * fraction:.3f}%" for fraction in box)
        return f"left:{left};top:{top};width:{width};height:{height}"
    if isinstance(location, TimeRange) and clip is not None:
        start, end = (min(1.0, time / clip.duration) for time in (location.start, location.end))
        return f"left:{100 * start:.3f}%;width:{100 * (end - start):.3f}%"
    return "inset:0"


# --- numbers ----------------------------------------------------------------------------------------


def _top_spans(result: AttributionResult, max_rows: int = 15) -> list[dict[str, Any]]:
    """Return the spans with the largest leave-out effect."""
    effects = result.attributions["leave_out"].total
    order = np.argsort(-np.abs(effects), kind="stable")[:max_rows]
    return [
        {
            "span_index": int(index),
            "modality": result.numbered_spans[index][0],
            "label": result.numbered_spans[index][1].label,
            "values": {name: float(result.attributions[name].total[index]) for name in METHOD_LABELS},
        }
        for index in order
    ]


def _page_data(result: AttributionResult, present: list[int]) -> str:
    """Return the data of all views as JSON that is safe inside a script element."""
    num_spans = len(result.numbered_spans)
    heads = sum(len(layer) for layer in result.layers)
    include_rows = (heads + 2) * num_spans**2 <= MAX_PAIRWISE_WEIGHTS
    data = {
        "score": result.score,
        "modalities": [result.modalities[index] for index in present],
        "spans": [
            [result.modalities.index(name), span.label if len(span.label) < 60 else f"{span.label[:57]}…"]
            for name, span in result.numbered_spans
        ],
        "present": present,
        "attributions": {
            name: _attribution_data(attribution, present, include_rows=True)
            for name, attribution in result.attributions.items()
        },
        "layers": [
            [_attribution_data(head, present, include_rows) for head in layer] for layer in result.layers
        ],
    }
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "").replace("\u2029", "")


def _attribution_data(attribution: Attribution, present: list[int], include_rows: bool) -> dict[str, Any]:
    """Return an attribution for the page, with pairwise weights in thousandths."""
    thousandths = None
    if include_rows and attribution.pairwise is not None:
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
    """Scale absolute values by their maximum, for the initial view."""
    return (np.abs(total) / max(float(np.abs(total).max()), 1e-12)).round(3).tolist()


def _rounded_list(matrix: NDArray[np.float64] | None) -> list[list[float]] | None:
    return None if matrix is None else matrix.round(4).tolist()


def _percent(value: float) -> str:
    return f"{value:.1%}" if abs(value) < 0.0995 else f"{value:.0%}"


def _agreement(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−").replace("−0.00", "0.00")


def _signed(value: float) -> str:
    return "0" if abs(value) < 5e-7 else f"{value:+.3g}".replace("-", "−")
