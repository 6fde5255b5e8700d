"""When each word of a known text was said."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmattn.errors import InputError
from mmattn.heads.speech.ctc import min_frames
from mmattn.heads.speech.ctc_tokenizer import BLANK, CTCTokenizer

__all__ = ["AlignedWord", "align_transcript"]


@dataclass(frozen=True)
class AlignedWord:
    """A word and its place in the sound.

    Args:
        text: of it.
        start: seconds from the beginning of the clip.
        end: as well.
        score: mean probability of its symbols at their frames.
    """

    text: str
    start: float
    end: float
    score: float


def align_transcript(
    log_probs: Tensor, frame_times: Tensor, text: str, tokenizer: CTCTokenizer
) -> list[AlignedWord]:
    """The likeliest places of a text's words.

    A network that was trained by CTC says a symbol at a few frames, somewhere in its sound: a word lasts
    from the first frame of its first symbol to the last frame of its last one, which is often shorter than
    what is heard. One that looks back only says it late.

    Paper: Kuerzinger et al., "CTC-Segmentation of Large Corpora for German End-to-end Speech Recognition",
    2020; the path is that of `torchaudio.functional.forced_align`.

    Args:
        log_probs: [T, C] as `CTCHead.forward` gives them for one sample.
        frame_times: [T] seconds, the middles of the frames (`time` of those tokens).
        text: what was said.
        tokenizer: of the head.

    Raises:
        InputError: the text has characters outside the alphabet, or needs more frames than there are.

    Example:
        >>> from mmattn.heads.speech.ctc_tokenizer import CharacterTokenizer
        >>> likely = torch.full((6, 4), 0.01)
        >>> for frame, symbol in enumerate([1, 1, 0, 3, 2, 0]):
        ...     likely[frame, symbol] = 0.97
        >>> words = align_transcript(likely.log(), torch.arange(6) * 0.02 + 0.01, "a b",
        ...     CharacterTokenizer("ab "))
        >>> [(word.text, round(word.start, 3), round(word.end, 3)) for word in words]
        [('a', 0.0, 0.04), ('b', 0.08, 0.1)]
    """
    from torchaudio.functional import forced_align, merge_tokens

    symbols = tokenizer.encode(text)
    if not symbols:
        return []
    if (needed := min_frames(symbols)) > len(log_probs):
        raise InputError(
            f"align: {text[:40]!r} needs {needed} frames, and the sound has {len(log_probs)}; "
            "is it the text of this sound?"
        )
    path, scores = forced_align(
        log_probs[None].detach().float(), torch.tensor([symbols], device=log_probs.device), blank=BLANK
    )
    spans = merge_tokens(path[0], scores[0].exp(), blank=BLANK)
    half = float(frame_times.diff().median()) / 2 if len(frame_times) > 1 else 0.0
    words = []
    for group in _group_by_word(symbols, tokenizer):
        word_spans = [spans[index] for index in group]
        frames = sum(len(span) for span in word_spans)
        words.append(
            AlignedWord(
                text=tokenizer.decode(symbols[index] for index in group).strip(),
                start=max(0.0, float(frame_times[word_spans[0].start]) - half),
                end=float(frame_times[word_spans[-1].end - 1]) + half,
                score=sum(span.score * len(span) for span in word_spans) / frames,
            )
        )
    return words


def _group_by_word(symbols: list[int], tokenizer: CTCTokenizer) -> list[list[int]]:
    """Places of the symbols of each word, without spaces."""
    groups: list[list[int]] = [[]]
    for index, symbol in enumerate(symbols):
        surface = tokenizer.symbol_texts[symbol]
        if surface.startswith(" "):
            groups.append([])
        if surface.strip():
            groups[-1].append(index)
    return [group for group in groups if group]
