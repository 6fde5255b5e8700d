"""Connectionist temporal classification: a transcript from the fused audio tokens, one guess a frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn.errors import InputError
from mmattn.evaluation.tasks.text_metrics import text_examples, text_metrics
from mmattn.heads.base import SupervisedHead
from mmattn.heads.speech.ctc_tokenizer import BLANK, TokenUnit, build_tokenizer
from mmattn.heads.speech.decoding.beam_options import BeamOptions, build_scorer
from mmattn.heads.speech.decoding.prefix_beam import PrefixBeamDecoder
from mmattn.heads.speech.decoding.search import GreedyDecoder, StreamingDecoder, transcribe
from mmattn.schema import from_mapping
from mmattn.types import Fused, Tokens

if TYPE_CHECKING:
    from mmattn.evaluation.tasks.examples import PredictedItem, TaskExamples
    from mmattn.evaluation.tasks.task_metrics import TaskMetrics

__all__ = ["CTCHead", "min_frames"]


class CTCHead(SupervisedHead):
    """A symbol or the blank at every frame; the probability of a text is that of all its spellings.

    Paper: Graves et al., "Connectionist Temporal Classification", 2006.

    Args:
        dim: width D of the fused tokens.
        vocabulary: the characters, or the word pieces (see `mmattn.heads.speech.ctc_tokenizer`).
        unit: "character" or "word-piece".
        modality: whose tokens are read.
        frames_per_token: guesses a token, evenly spread over its time: where tokens are too far apart for the
            symbols.
        handle_unknown: what happens to a target that the alphabet cannot write: "refuse" is an error, "drop"
            leaves out those characters (those words, with word pieces).
        handle_too_long: what happens to a target that its frames are too few for: "refuse" is an error,
            "skip" leaves the sample out and counts it in `num_skipped`.
        dropout: on the tokens.
        beam: options of a prefix beam search, with a language model and a lexicon if wanted (see
            `mmattn.heads.speech.decoding.beam_options.BeamOptions`); None for the likeliest symbol of every
            frame.
        corpus: texts that the language model and the lexicon are learned from.

    Attributes:
        num_skipped: samples that `long="skip"` has left out so far, each time they came.

    Raises:
        InputError: an argument is not what it may be.

    Example:
        >>> head, fused, inputs = CTCHead.example(dim=8)
        >>> len(head.predict(fused)), head.loss(fused, **inputs).dim()
        (4, 0)
    """

    target_roles: ClassVar[tuple[str, ...]] = ("transcript", "label")

    def __init__(
        self,
        dim: int,
        vocabulary: Sequence[str],
        unit: TokenUnit = "character",
        modality: str = "audio",
        frames_per_token: int = 1,
        handle_unknown: Literal["refuse", "drop"] = "refuse",
        handle_too_long: Literal["refuse", "skip"] = "refuse",
        dropout: float = 0.0,
        beam: Mapping[str, Any] | None = None,
        corpus: Sequence[str] = (),
    ):
        super().__init__()
        if (
            handle_unknown not in ("refuse", "drop")
            or handle_too_long not in ("refuse", "skip")
            or frames_per_token < 1
        ):
            raise InputError(
                f"ctc head: got unknown={handle_unknown!r}, long={handle_too_long!r}, "
                f"frames={frames_per_token}, expected unknown "
                "'refuse' or 'drop', long 'refuse' or 'skip', frames >= 1"
            )
        self.tokenizer = build_tokenizer(vocabulary, unit)
        self.modality, self.frames_per_token = modality, frames_per_token
        self.handle_unknown, self.handle_too_long = handle_unknown, handle_too_long
        self.num_skipped = 0
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(dim, frames_per_token * len(self.tokenizer))
        self.beam = None if beam is None else from_mapping(BeamOptions, beam, "ctc head: beam")
        if self.beam is not None:
            texts = self.beam.read_texts() if self.beam.texts is not None and not corpus else corpus
            self._scorer = build_scorer(self.beam, self.tokenizer, texts)

    @classmethod
    def options_for(cls, targets: Sequence[Any], beam: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """Return the characters of the training transcripts, and the texts that a beam search learns from.

        Word pieces are given (`mmattn.heads.speech.ctc_tokenizer.train_word_pieces`).

        Args:
            targets: training transcripts; None if unknown.
            beam: options of the search, as for the head.

        Raises:
            InputError: a target that is no text, an option of the search that does not exist, or a file of
                texts that cannot be read.
        """
        texts = [text for text in _check_transcripts(targets) if text is not None]
        options: dict[str, Any] = {"vocabulary": sorted(set("".join(texts)))}
        if beam is not None and (search := from_mapping(BeamOptions, beam, "ctc head: beam")).needs_texts:
            options["corpus"] = texts if search.texts is None else search.read_texts()
        return options

    @classmethod
    def metrics(cls, targets: Sequence[Any], name: str = "") -> TaskMetrics:
        """Return the metrics of predicted texts, see `mmattn.evaluation.tasks.text_metrics`.

        Args:
            targets: all known targets.
            name: "transcript" (the default) or "translation".

        Raises:
            InputError: another name.
        """
        return text_metrics(name)

    @classmethod
    def examples(cls, items: Sequence[PredictedItem]) -> TaskExamples:
        return text_examples(items)

    def forward(self, fused: Fused) -> Tokens:
        """Log-probabilities of the symbols at every frame.

        Args:
            fused: B samples.

        Returns:
            Tokens of this modality alone: `values` [N * frames, C], the blank first; `time` of the frames
            where the tokens have one.
        """
        return self.emissions(fused.tokens)

    def emissions(self, tokens: Tokens) -> Tokens:
        """Return the log-probabilities of symbols as `forward` does, from tokens that need no pooling
        (streams).

        Args:
            tokens: fused tokens.
        """
        tokens = tokens.select_modalities(self.modality)
        logits = self.project(self.dropout(tokens.values)).float()
        log_probs = logits.unflatten(1, (self.frames_per_token, -1)).log_softmax(-1).flatten(0, 1)
        return replace(
            Tokens.from_lengths(
                log_probs,
                tokens.lengths * self.frames_per_token,
                self.modality,
                time=_frame_times(tokens, self.frames_per_token),
            ),
            position=_frame_positions(tokens, self.frames_per_token),
        )

    def loss(self, fused: Fused, targets: Sequence[Any]) -> Tensor:
        """The negative log-probability of the transcripts, a symbol; samples without audio take no part.

        Args:
            fused: B samples.
            targets: [B] transcripts; None where there is none.

        Raises:
            InputError: a target is no text, has characters outside the alphabet or is too long for its
                audio, unless the head was told what to do with those.
        """
        emissions = self(fused)
        labels = [
            None if text is None else self.tokenizer.encode(text, drop_unknown=self.handle_unknown == "drop")
            for text in _check_transcripts(targets)
        ]
        rows = self._trainable_rows(labels, emissions.length_list)
        if not rows:
            return emissions.values.sum() * 0.0  # nothing to learn from, but a gradient to go on with
        chosen = [labels[row] or [] for row in rows]
        padded_BTC, _ = emissions.select(rows).to_padded()
        lengths_B = torch.tensor([len(label) for label in chosen], device=padded_BTC.device)
        costs_B = F.ctc_loss(
            padded_BTC.transpose(0, 1),
            torch.tensor([symbol for label in chosen for symbol in label], device=padded_BTC.device).long(),
            emissions.lengths[rows],
            lengths_B,
            blank=BLANK,
            reduction="none",
        )
        return (costs_B / lengths_B.clamp_min(1)).mean()

    def _trainable_rows(self, labels: Sequence[list[int] | None], sizes: Sequence[int]) -> list[int]:
        rows = []
        for row, (label, size) in enumerate(zip(labels, sizes, strict=True)):
            if label is None or not size:
                continue
            if (needed := min_frames(label)) <= size:
                rows.append(row)
            elif self.handle_too_long == "skip":
                self.num_skipped += 1
            else:
                raise InputError(
                    f"ctc head: sample {row} of the batch has {len(label)} symbols, "
                    f"{self.tokenizer.decode(label)[:40]!r}, which need {needed} frames with their repeats, "
                    f"and "
                    f"has {size}; expected more frames (`frames`, a shorter hop), or long='skip'"
                )
        return rows

    def build_decoder(self) -> StreamingDecoder:
        """Return a decoder for one utterance: the search that `beam` asks for, or the greedy one."""
        if self.beam is None:
            return GreedyDecoder(self.tokenizer)
        return PrefixBeamDecoder(self.tokenizer, self.beam.size, self._scorer)

    @torch.no_grad()
    def predict(self, fused: Fused) -> list[str]:
        """Return the transcript of each sample, found by `build_decoder`; "" without audio.

        Args:
            fused: B samples.
        """
        return transcribe(self(fused), self.build_decoder)

    @classmethod
    def example(cls, dim: int) -> tuple[CTCHead, Fused, dict[str, Any]]:
        """A head, fused samples and loss arguments, for `mmattn.testing.plugin_checks.check_head`.

        Args:
            dim: width D.
        """
        tokens = Tokens.from_lengths(torch.randn(19, dim), torch.tensor([7, 0, 5, 7]), "audio")
        fused = Fused(tokens, torch.randn(4, dim), torch.randn(4, 1, dim), tokens.presence)
        return cls(dim, vocabulary="abc"), fused, {"targets": ["abba", "a", "", None]}


def min_frames(label: Sequence[int]) -> int:
    """Return the smallest number of frames that can spell a label: equal neighbours need a blank between
    them.

    Args:
        label: symbols of a transcript.

    Example:
        >>> min_frames([1, 2, 2, 3]), min_frames([])
        (5, 0)
    """
    return len(label) + sum(symbol == other for symbol, other in pairwise(label))


def _check_transcripts(targets: Sequence[Any]) -> Sequence[str | None]:
    for row, target in enumerate(targets):
        if target is not None and not isinstance(target, str):
            raise InputError(
                f"ctc head: target {row} is {type(target).__name__} {target!r}, expected a transcript"
            )
    return targets


def _frame_positions(tokens: Tokens, frames: int) -> Tensor:
    return (tokens.position[:, None] * frames + torch.arange(frames, device=tokens.device)).flatten()


def _frame_times(tokens: Tokens, frames: int) -> Tensor | None:
    """A token's frames stand evenly around its time, as close as its sample's tokens stand by them."""
    if tokens.time is None or frames == 1:
        return tokens.time
    step_N = torch.zeros_like(tokens.time)
    follows_N = tokens.sample.diff() == 0  # token i + 1 is of the sample of token i
    step_N[1:][follows_N] = tokens.time.diff()[follows_N]
    first_N = torch.ones_like(step_N, dtype=torch.bool)
    first_N[1:] = ~follows_N
    step_N[:-1] = torch.where(first_N[:-1], step_N[1:], step_N[:-1])  # a sample's first: as its second
    shift = (torch.arange(frames, device=tokens.device) - (frames - 1) / 2) / frames
    return (tokens.time[:, None] + step_N[:, None] * shift).flatten()
