"""A tag a word: names of people and places in a sentence, parts of speech."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mmattn.errors import InputError
from mmattn.evaluation.tasks.entities import EntityMetrics, pad_tags
from mmattn.evaluation.tasks.examples import (
    PredictedItem,
    TaggedWord,
    TaskExamples,
    make_example,
    sample_items,
    word_list,
)
from mmattn.heads.base import SupervisedHead
from mmattn.heads.text.crf import LinearChainCRF
from mmattn.heads.vocabulary import Vocabulary
from mmattn.types import Fused, Tokens

if TYPE_CHECKING:
    from mmattn.evaluation.tasks.task_metrics import TaskMetrics

__all__ = ["OUTSIDE", "TaggingHead", "bio_constraints", "orphan_to_begin"]

log = logging.getLogger(__name__)

OUTSIDE = "O"
_WHERE = "tagging head"


class TaggingHead(SupervisedHead):
    """One tag a word, read from the first token that each word has in a modality.

    The word of a token is its `position`, as encoders with `words=True` give it. Where the tags are BIO
    (all but "O" are B-kind or I-kind), only valid sequences are predicted, in which I-kind continues a
    B-kind or I-kind; true tags in which it does not are read as the measures read them: it begins one.

    Paper: Ramshaw and Marcus, "Text Chunking using Transformation-Based Learning", 1995 (BIO); Lample et
    al., "Neural Architectures for Named Entity Recognition", 2016 (the CRF over what a network says).

    Args:
        dim: width D of the fused tokens.
        tags: their names C.
        modality: whose positions are the words.
        use_crf: train the score of whole sequences, with scores of transitions; otherwise every word for
            itself, and sequences are valid all the same.
        label_smoothing: share of each target that is spread over all tags; without the CRF only.
        dropout: probability on the tokens that are read.

    Attributes:
        num_missing: tags of words without a token that training has met, in all its steps.

    Raises:
        InputError: no tag, one named twice, or an option out of range.

    Example:
        >>> head, fused, inputs = TaggingHead.example(dim=8)
        >>> head.loss(fused, **inputs).dim(), [len(tags) for tags in head.predict(fused)]
        (0, [2, 1, 3])
    """

    target_roles: ClassVar[tuple[str, ...]] = ("tags",)

    def __init__(
        self,
        dim: int,
        tags: Sequence[str],
        *,
        modality: str = "text",
        use_crf: bool = True,
        label_smoothing: float = 0.0,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.vocabulary = Vocabulary(tags, _WHERE, "tag")
        if not 0 <= label_smoothing < 1 or (use_crf and label_smoothing):
            raise InputError(
                f"{_WHERE}: got smoothing {label_smoothing}, expected a share from 0 to below 1, and 0 with "
                f"a CRF"
            )
        self.modality, self.use_crf, self.label_smoothing = modality, use_crf, label_smoothing
        self.is_bio = _is_bio(self.tags)
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(dim, len(self.vocabulary))
        allowed_CC, first_C = bio_constraints(self.tags) if self.is_bio else (None, None)
        self.crf_layer = LinearChainCRF(len(self.vocabulary), allowed_CC, first_C, learn_transitions=use_crf)
        self.num_missing = 0

    @property
    def tags(self) -> tuple[str, ...]:
        """Names of the tags, in the order of the logits."""
        return self.vocabulary.names

    @classmethod
    def options_for(cls, targets: Sequence[Any]) -> Mapping[str, Any]:
        """Return the tags; of BIO tags both B and I of every kind.

        Args:
            targets: training tags; None if unknown.

        Example:
            >>> TaggingHead.options_for([["O", "B-place"], None, ["B-person", "I-person"]])
            {'tags': ['O', 'B-person', 'I-person', 'B-place', 'I-place']}
        """
        tags = {tag for target in targets if target is not None for tag in _check_tags(target)}
        names = sorted(Vocabulary(sorted(tags, key=str), _WHERE, "tag").names)
        if not _is_bio(names):
            return {"tags": names}
        kinds = sorted({name[2:] for name in names if name != OUTSIDE})
        return {"tags": [OUTSIDE, *(f"{mark}-{kind}" for kind in kinds for mark in "BI")]}

    @classmethod
    def metrics(cls, targets: Sequence[Any], name: str = "") -> TaskMetrics:
        cls.check_metric(name)
        return EntityMetrics.from_targets(targets)

    @classmethod
    def align(cls, predictions: Sequence[Any], targets: Sequence[Any]) -> list[Any]:
        """Cut predictions to the words of their sentence, which may have been replaced by a longer one.

        Args:
            predictions: N predictions.
            targets: N targets.
        """
        return [tags[: len(target)] for tags, target in zip(predictions, targets, strict=True)]

    @classmethod
    def examples(cls, items: Sequence[PredictedItem]) -> TaskExamples:
        wrong = [item for item in items if item.prediction != item.target]
        cases = tuple(make_example(item, words=_tagged_words(item)) for item in sample_items(wrong))
        note = "Test items of the first seed, sampled at random. Underlined: target; filled: prediction."
        return TaskExamples(note=note, cases=cases, one_per_row=True)

    def forward(self, fused: Fused) -> Tokens:
        """The words that have a token: `Tokens` of width C, the logits, word i at position i.

        Args:
            fused: B samples.
        """
        words = first_token_per_word(fused.tokens.select_modalities(self.modality))
        return words.with_values(self.project(self.dropout(words.values)).float())

    def loss(self, fused: Fused, targets: Sequence[Sequence[str] | None]) -> Tensor:
        """What the true tags cost, the mean over the words whose tag is known.

        Args:
            fused: B samples.
            targets: [B] a tag for each word; None where they are not known. Words without a token take no
                part; the first is logged.

        Raises:
            InputError: a tag that the head does not know, or fewer tags than words.
        """
        words = self(fused)
        if len(targets) != len(words):
            raise InputError(f"{_WHERE}: got {len(targets)} targets, expected {len(words)}, one a sample")
        known = [row for row, target in enumerate(targets) if target is not None and words.length_list[row]]
        if not known:
            return words.values.sum() * 0.0
        words = words.select(known)
        true = [
            self._tag_indices(targets[row], place_T.tolist(), row)
            for row, place_T in zip(known, words.position.split(words.length_list), strict=True)
        ]
        if not self.use_crf:
            numbers_N = torch.cat(true).to(words.device)
            return nn.functional.cross_entropy(words.values, numbers_N, label_smoothing=self.label_smoothing)
        logits_BTC, mask_BT = words.to_padded()
        tags_BT = pad_sequence(true, batch_first=True).to(words.device)
        return self.crf_layer(logits_BTC, mask_BT, tags_BT).sum() / mask_BT.sum()

    def _tag_indices(self, target: Sequence[str] | None, positions: list[int], row: int) -> Tensor:
        """[T] the true tags of the words that have a token."""
        tags = _check_tags(target)
        if positions[-1] >= len(tags):
            raise InputError(
                f"{_WHERE}: got {len(tags)} tags for sample {row} of the batch, expected at least "
                f"{positions[-1] + 1}, one a word"
            )
        if len(positions) < len(tags):
            self._warn_missing(len(tags) - len(positions))
        read = [tags[position] for position in positions]
        return torch.tensor(
            [self.vocabulary.index(tag) for tag in (orphan_to_begin(read) if self.is_bio else read)]
        )

    def _warn_missing(self, count: int) -> None:
        """Words that the encoder has cut off are no reason to stop, and none to keep silent."""
        self.num_missing += count
        if self.num_missing == count:
            log.warning(
                "%s: %d words of a sample have no token (cut off by the encoder?): not learned from, tagged "
                "%s; `num_missing` counts them",
                _WHERE, count, OUTSIDE,
            )  # fmt: skip

    @torch.no_grad()
    def predict(self, fused: Fused) -> list[list[str]]:
        """The best (valid) tags of each sample's words; a word without a token has "O".

        Words behind the last one that has a token are not known here: `mmattn.evaluation.tasks.entities`
            takes
        what is missing at the end as "O".

        Args:
            fused: B samples.
        """
        words = self(fused)
        if not len(words.values):
            return [[] for _ in words.length_list]
        best = self.crf_layer.viterbi_decode(*words.to_padded())
        predictions = []
        for place_T, numbers in zip(words.position.split(words.length_list), best, strict=True):
            positions = place_T.tolist()
            tags = [OUTSIDE] * (positions[-1] + 1 if positions else 0)
            for token, number in zip(positions, numbers, strict=True):
                tags[token] = self.tags[number]
            predictions.append(tags)
        return predictions

    @classmethod
    def example(cls, dim: int) -> tuple[TaggingHead, Fused, dict[str, Any]]:
        """A head, fused samples and loss arguments, for `mmattn.testing.plugin_checks.check_head`.

        Args:
            dim: width D.
        """
        tokens = Tokens.from_lengths(torch.randn(6, dim), torch.tensor([2, 1, 3]), "text")
        fused = Fused(tokens, torch.randn(3, dim), torch.randn(3, 1, dim), tokens.presence)
        targets = [["B-place", "I-place"], None, ["O", "B-place", "O"]]
        return cls(dim, [OUTSIDE, "B-place", "I-place"]), fused, {"targets": targets}


def first_token_per_word(tokens: Tokens) -> Tokens:
    """The first token of each word, in a modality whose positions say the word.

    Args:
        tokens: of one modality whose positions are words.

    Example:
        >>> tokens = Tokens.from_sequences([torch.arange(3.0)[:, None]], "text")
        >>> from dataclasses import replace
        >>> first_token_per_word(replace(tokens, position=torch.tensor([0, 0, 1]))).values[:, 0].tolist()
        [0.0, 2.0]
    """
    if not len(tokens.values):
        return tokens
    changes_N = (tokens.position[1:] != tokens.position[:-1]) | (tokens.sample[1:] != tokens.sample[:-1])
    return tokens.filter(torch.cat([changes_N.new_ones(1), changes_N]))


def orphan_to_begin(tags: Sequence[str]) -> list[str]:
    """Convert orphan I- tags to B- tags.

    Args:
        tags: BIO tags.

    Example:
        >>> orphan_to_begin(["O", "I-place", "I-place", "I-person"])
        ['O', 'B-place', 'I-place', 'B-person']
    """
    repaired: list[str] = []
    for tag in tags:
        kind = tag[2:]
        alone = tag.startswith("I-") and (not repaired or repaired[-1] not in (f"B-{kind}", f"I-{kind}"))
        repaired.append(f"B-{kind}" if alone else tag)
    return repaired


def bio_constraints(tags: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return which BIO tag may follow which, [C, C] boolean, and which may come first, [C].

    Args:
        tags: names of C tags.

    Example:
        >>> allowed, first = bio_constraints(["O", "B-x", "I-x"])
        >>> allowed.tolist(), first.tolist()
        ([[True, True, False], [True, True, True], [True, True, True]], [True, True, False])
    """
    first_C = torch.tensor([not tag.startswith("I-") for tag in tags])
    same_CC = torch.tensor([[tag[2:] == other[2:] and tag != OUTSIDE for other in tags] for tag in tags])
    return first_C[None, :] | same_CC, first_C


def _is_bio(tags: Sequence[str]) -> bool:
    """Are they spans, and not, say, parts of speech?"""
    marked = [tag for tag in tags if tag != OUTSIDE]
    return bool(marked) and all(tag[:2] in ("B-", "I-") and len(tag) > 2 for tag in marked)


def _check_tags(target: Any) -> list[str]:
    if isinstance(target, str) or not isinstance(target, Sequence):
        raise InputError(f"{_WHERE}: got {target!r} as target, expected a list with a tag a word")
    return list(target)


def _tagged_words(item: PredictedItem) -> tuple[TaggedWord, ...]:
    """The words of a sentence with their tags; words that an encoder has cut off are predicted "O"."""
    texts = [content for content in item.contents.values() if isinstance(content, (str, list))]
    words = word_list(texts[0]) if texts else [""] * len(item.target)
    (tags,) = pad_tags([item.prediction], [item.target])
    return tuple(TaggedWord(*each) for each in zip(words, item.target, tags, strict=False))
