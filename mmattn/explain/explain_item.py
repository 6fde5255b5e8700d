"""Explain an item of a run: load the model and the data, encode the item, and attribute its score."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mmattn import attention, schema
from mmattn.data.dataset import Dataset
from mmattn.data.reader import read_dataset
from mmattn.encoders.base import Encoder
from mmattn.encoders.model_inputs import prepare_inputs
from mmattn.errors import InputError
from mmattn.experiments.config import FitConfig
from mmattn.explain.attribution import AttributionResult, explain
from mmattn.explain.targets import (
    ExplanationTarget,
    ItemSimilarity,
    ItemVector,
    UserScore,
    index_of,
    user_score_target,
)
from mmattn.explain.token_spans import TokenSpan, merge_spans, token_spans
from mmattn.model.aligned_encoder import AlignedEncoder
from mmattn.serving.run_encoder import RunEncoder
from mmattn.types import Sample, Tokens

__all__ = ["ItemExplanation", "ModalityContent", "explain_item", "item_title"]

MAX_AUDIO_SPANS = 60  # more cannot be distinguished on a page


@dataclass(frozen=True, eq=False)
class ModalityContent:
    """One modality of the item, as its encoder read it.

    Args:
        modality: name in the model.
        source: key of the sample's content.
        kind: "text", "table", "image" or "audio".
        encoder: encoder of the tokens.
        content: raw content; None if missing or unreadable.
        error: why the content is unreadable, otherwise "".
        fields: names of the text fields.
        spans: spans of the tokens.
        hint: a remark for the reader, or "".
    """

    modality: str
    source: str
    kind: str
    encoder: Encoder
    content: Any
    error: str
    fields: tuple[str, ...]
    spans: tuple[TokenSpan, ...]
    hint: str = ""


@dataclass(frozen=True, eq=False)
class ItemExplanation:
    """The content of the page.

    Args:
        item: the explained item.
        title: title of the item.
        target: the explained score.
        result: the attributions.
        modalities: the modalities in the order of the model.
        contributions: items of the user's history with their contributions, for a user score.
        provenance: model, data and program behind the numbers.
    """

    item: Sample
    title: str
    target: ExplanationTarget
    result: AttributionResult
    modalities: tuple[ModalityContent, ...]
    contributions: tuple[tuple[Sample, float], ...]
    provenance: Mapping[str, Any]


def explain_item(
    run: str | Path,
    item: str,
    *,
    card: str | Path | None = None,
    user: str | None = None,
    compare_to: str | None = None,
    seed: int | None = None,
    head: str = "",
    features: str | Path | None = None,
    progress: bool = True,
) -> ItemExplanation:
    """Explain an item of a run.

    Args:
        run: folder of a run of `mmattn fit`, or of a model.
        item: id of the item.
        card: dataset card; by default that of the run.
        user: id of a user; explain the score for this user.
        compare_to: id of another item; explain the similarity to it. By default, the item's own vector is
            explained.
        seed: seed of the model; by default the first.
        head: head to explain, for models with several.
        features: folder of the feature store; by default that of the run.
        progress: show progress bars.

    Raises:
        InputError: no run, an unknown item or user, or no content that can be encoded.
    """
    if user is not None and compare_to is not None:
        raise InputError("explain: got a user and an item to compare with, expected one of the two")
    encoder = RunEncoder.from_run(run, seed, head)
    config = _run_config(Path(run))
    dataset = _read_dataset(Path(run), config, card)
    row = index_of(item, dataset.item_ids, "item")
    sample, store = dataset.items[row], _feature_store(config, features)
    parts, tokens = _encode_item(encoder, dataset, sample, store)
    question: ExplanationTarget
    if user is not None:
        if config is None:
            raise InputError(f"explain: {run} is a model without a run, expected a run's folder for a user")
        question = user_score_target(
            encoder, config, dataset, user, row,
            seed=_seed(encoder), features=store or config.data.features, progress=progress,
        )  # fmt: skip
    elif compare_to is not None:
        other = dataset.items[index_of(compare_to, dataset.item_ids, "item")]
        _, theirs = _encode_item(encoder, dataset, other, store)
        with torch.no_grad():
            vector = encoder.model.head(encoder.head)(encoder.model.fuse(theirs))[0]
        question = ItemSimilarity(encoder.model.head(encoder.head), vector, other, item_title(other))
    else:
        with torch.no_grad():
            question = ItemVector(encoder.model.fuse(tokens).pooled[0])
    explanation = explain(encoder.model.core, tokens, {part.modality: part.spans for part in parts}, question)
    reasons = []
    if isinstance(question, UserScore):
        with torch.no_grad():
            fused = encoder.model.fuse(tokens)
        reasons = [(dataset.items[number], share) for number, share in question.contributions(fused)]
    return ItemExplanation(
        sample,
        item_title(sample),
        question,
        explanation,
        parts,
        tuple(reasons),
        _provenance(run, encoder, dataset),
    )


def item_title(item: Sample) -> str:
    """Return the title of an item: its first text, or its id.

    Args:
        item: the item.
    """
    text = item.content.get("text")
    fields = [text] if isinstance(text, str) else [field for field in text or () if field]
    return fields[0] if fields else item.id


def _run_config(run: Path) -> FitConfig | None:
    settings = run / "config.yaml"
    return schema.load_config(FitConfig, settings) if settings.is_file() else None


def _read_dataset(run: Path, config: FitConfig | None, card: str | Path | None) -> Dataset:
    if card is None and config is None:
        raise InputError(f"explain: {run} is a model without a run; pass its dataset with --card")
    chosen = Path(card) if card is not None else _run_card(config)
    if card is None and not chosen.exists():
        raise InputError(f"explain: {chosen}, the dataset of {run}, does not exist; pass it with --card")
    return read_dataset(chosen, 0.5 if config is None else config.data.reject_limit)


def _run_card(config: FitConfig | None) -> Path:
    assert config is not None
    return config.card_path(next(iter(config.tasks), ""))


def _feature_store(config: FitConfig | None, features: str | Path | None) -> Path | None:
    """Return the given feature store, or that of the run if it exists."""
    if features is not None:
        return Path(features)
    return config.data.features if config is not None and config.data.features.is_dir() else None


def _seed(encoder: RunEncoder) -> int:
    """Read the seed from the folder seed-N/model."""
    return int(encoder.folder.parent.name.removeprefix("seed-"))


def _encode_item(
    encoder: RunEncoder, dataset: Dataset, sample: Sample, store: Path | None
) -> tuple[tuple[ModalityContent, ...], dict[str, Tokens]]:
    """Encode the content of the item.

    Raises:
        InputError: no content can be encoded.
    """
    with tempfile.TemporaryDirectory() as nowhere:  # a feature store does not pay off for one item
        inputs = prepare_inputs(
            [sample], encoder.model.encoders, store or nowhere, encoder.sources, progress=False
        )
        tokens = encoder.model.tokens(inputs, torch.tensor([0]))
    problems = {each.modality: each.reason for each in inputs.rejected}
    uses = list(dataset.card.items.uses())
    kinds = {use.modality: use.kind for _, use in uses}
    parts = []
    for name, source in encoder.sources.items():
        content_encoder, content = encoder.model.encoders[name], sample.content.get(source)
        readable = content is not None and name not in problems
        parts.append(
            ModalityContent(
                modality=name,
                source=source,
                kind=kinds.get(source, ""),
                encoder=content_encoder,
                content=content if readable else None,
                error=problems.get(name, ""),
                fields=tuple(column for column, use in uses if use.modality == source and use.kind == "text"),
                spans=merge_spans(token_spans(content_encoder, content, tokens[name]), MAX_AUDIO_SPANS)
                if readable
                else (),
                hint=_hint(content_encoder, sample),
            )
        )
    if not any(len(each.values) for each in tokens.values()):
        has = f"{', '.join(sample.content)}, none of which gave a token" if sample.content else "no content"
        raise InputError(
            f"explain: item {sample.id!r} has {has}, expected one of "
            f"{', '.join(dict.fromkeys(encoder.sources.values()))} that can be read"
        )
    return tuple(parts), tokens


def _hint(encoder: Encoder, sample: Sample) -> str:
    if isinstance(encoder, AlignedEncoder):
        return (
            "one vector of another model; to explain it, run: "
            f"mmattn explain {encoder.folder} --item {sample.id}"
        )
    return ""


def _provenance(run: str | Path, encoder: RunEncoder, dataset: Dataset) -> dict[str, Any]:
    config = encoder.model.config
    program = attention.parse(config.fusion.program) if config is not None else None
    return {
        "run": {"folder": str(run), "model": str(encoder.folder), "data": dataset.card.name},
        "program": {} if program is None else {"text": str(program), "in words": program.describe()},
        "fingerprints": encoder.provenance,
    }
