"""Text through any Hugging Face language model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmattn.encoders.base import Unreadable
from mmattn.encoders.huggingface import HuggingFaceEncoder
from mmattn.encoders.pretrained import import_optional
from mmattn.encoders.text.word_lists import as_words, chunk_words
from mmattn.errors import InputError, did_you_mean
from mmattn.types import Tokens

__all__ = ["POOLS", "HuggingFaceText", "split_fields", "texts_to_encode"]

POOLS = ("words", "fields", "all")


class HuggingFaceText(HuggingFaceEncoder):
    """Tokens from the last hidden layer of any Hugging Face text encoder.

    A content is one string, or the fields of an item, `[title, plot, ...]`, where None or an empty
    string is a field that is not there. Text without any word piece has no tokens. With `is_split_into_words`, a content
    is one text as a list of its words instead: every piece of word i is at position i, every word has at
    least one, and what is longer than `max_length` is read in stretches of whole words.

    Args:
        model: a local folder, or a name on the Hugging Face hub (which then downloads it).
        pool: "words": one token a word piece (special pieces are dropped), the pieces of field f at
            positions f * max_length, f * max_length + 1, ...; "fields": one token a field, the mean
            over its pieces, at position f; "all": one token, the mean over the fields joined by ". ".
        max_length: word pieces that are kept of each text, special ones included.
        batch_size: texts that go through the network at once.
        revision: branch, tag or commit on the hub.
        frozen: False to fine-tune the model as `encoder.trained`.
        is_split_into_words: contents are lists of words; only with the pool "words".
        modality: name of the modality in the tokens.

    Returns:
        `Tokens` of width `dim`, the model's hidden size.

    Raises:
        InputError: the model cannot be loaded, or an option is out of range.
        Unreadable: a content is neither a string nor a list of strings.
        MissingDependency: transformers is not installed.

    Example:
        >>> from mmattn.registry import encoders
        >>> encoder = encoders.create("minilm", pool="fields")
        >>> tokens = encoder([["Heat (1995)", None, "Two men, one city."], None])
        >>> tokens.lengths.tolist(), tokens.position.tolist(), tokens.dim
        ([2, 0], [0, 2], 384)
    """

    name = "hf-text"

    def __init__(
        self,
        model: str | Path,
        *,
        pool: str = "words",
        max_length: int = 192,
        batch_size: int = 64,
        revision: str | None = None,
        frozen: bool = True,
        is_split_into_words: bool = False,
        modality: str = "text",
    ):
        if pool not in POOLS:
            raise InputError(f"{self.name}: got pool={pool!r}.{did_you_mean(pool, POOLS)}")
        if is_split_into_words and pool != "words":
            raise InputError(f"{self.name}: got pool={pool!r} for lists of words, expected 'words'")
        if max_length < 3:
            raise InputError(f"{self.name}: got max_length={max_length}, expected at least 3")
        super().__init__(
            model,
            revision=revision,
            tower="text_model",  # of CLIP and its kin
            frozen=frozen,
            batch_size=batch_size,
            modality=modality,
        )
        self.pool = pool
        self.max_length = max_length
        self.is_split_into_words = is_split_into_words

    @cached_property
    def tokenizer(self) -> Any:
        """The model's own tokenizer."""
        # Tokenizers that see spaces (RoBERTa's) have to see one before every word of a list.
        options = {"add_prefix_space": True} if self.is_split_into_words else {}
        return import_optional("transformers", "hf").AutoTokenizer.from_pretrained(
            self.model, revision=self.revision, **options
        )

    def preprocessing(self) -> Mapping[str, Any]:
        steps = {"pool": self.pool, "max_length": self.max_length, "tokenizer": self.processor_hash}
        return {**steps, "words": True} if self.is_split_into_words else steps

    def options(self) -> dict[str, Any]:
        own = {"pool": self.pool, "max_length": self.max_length, "is_split_into_words": self.is_split_into_words}
        return {**super().options(), **own}

    def read(self, content: Any) -> tuple[str | None, ...]:
        return as_words(content) if self.is_split_into_words else split_fields(content)

    def size_hint(self, content: Any) -> int:
        return sum(len(part) for part in self.read(content) if part)

    def encode(self, contents: Sequence[Any]) -> Tokens:
        if self.is_split_into_words:
            return self._encode_words([() if content is None else as_words(content) for content in contents])
        items = [
            [] if content is None else texts_to_encode(split_fields(content), self.pool)
            for content in contents
        ]
        texts = list(dict.fromkeys(text for item in items for _, text in item))
        rows = dict(zip(texts, self._encode_texts(texts), strict=True))
        stride = self.max_length if self.pool == "words" else 1
        sequences, positions = [], []
        for item in items:
            sequences += [rows[text] for _, text in item]
            positions += [
                place * stride + torch.arange(len(rows[text]), device=self.device) for place, text in item
            ]
        return self._join_item_texts(sequences, positions, [len(item) for item in items])

    def _join_item_texts(self, sequences: list[Tensor], positions: list[Tensor], counts: list[int]) -> Tokens:
        """Join the texts of each item, `counts` of them."""
        joined: list[Tensor | None] = []
        places: list[Tensor | None] = []
        start = 0
        for count in counts:
            chosen = slice(start, start + count)
            joined.append(torch.cat(sequences[chosen]) if count else None)
            places.append(torch.cat(positions[chosen]) if count else None)
            start += count
        return self.pack(joined, places)

    def _encode_texts(self, texts: list[str]) -> list[Tensor]:
        """[T, D] for each text, with T = 1 where the pieces are pooled, and 0 where there is none."""
        if not texts:
            return []
        pieces = self.tokenizer(
            texts, truncation=True, max_length=self.max_length, return_special_tokens_mask=True
        )
        ids = [torch.tensor(row) for row in pieces["input_ids"]]
        words = [~torch.tensor(row, dtype=torch.bool) for row in pieces["special_tokens_mask"]]
        rows: list[Tensor] = [torch.zeros(0, self.dim, device=self.device)] * len(texts)
        some = [index for index in range(len(texts)) if words[index].any()]
        for index, row_TD in zip(some, self._all_hidden_states([ids[index] for index in some]), strict=True):
            keep_T = words[index].to(self.device)
            rows[index] = row_TD[keep_T] if self.pool == "words" else row_TD.mean(0, keepdim=True)
        return rows

    def _encode_words(self, texts: list[tuple[str, ...]]) -> Tokens:
        """The pieces of each text, at the positions of their words."""
        room = self.max_length - self.tokenizer.num_special_tokens_to_add()
        runs, firsts, counts = [], [], []
        for words in texts:
            sizes = self._pieces_per_word(words)
            # A word that the tokenizer sees nothing in (a lone joiner) is an unknown one, not none.
            seen = [
                word if size else self.tokenizer.unk_token for word, size in zip(words, sizes, strict=True)
            ]
            cut = chunk_words([max(size, 1) for size in sizes], room)
            runs += [seen[first:end] for first, end in cut]
            firsts += [first for first, _ in cut]
            counts.append(len(cut))
        if not runs:
            return self.pack([None] * len(texts))
        pieces = self.tokenizer(runs, is_split_into_words=True, truncation=True, max_length=self.max_length)
        sequences, positions = [], []
        for run, row_TD in enumerate(
            self._all_hidden_states([torch.tensor(row) for row in pieces["input_ids"]])
        ):
            place_T = torch.tensor([-1 if word is None else word for word in pieces.word_ids(run)])
            place_T = place_T.to(self.device)
            sequences.append(row_TD[place_T >= 0])
            positions.append(place_T[place_T >= 0] + firsts[run])
        return self._join_item_texts(sequences, positions, counts)

    def _pieces_per_word(self, words: Sequence[str]) -> list[int]:
        """Pieces of each word."""
        if not words:
            return []
        pieces = self.tokenizer(
            list(words), is_split_into_words=True, add_special_tokens=False, verbose=False
        )
        counts = Counter(pieces.word_ids())
        return [counts[place] for place in range(len(words))]

    def _all_hidden_states(self, ids: list[Tensor]) -> list[Tensor]:
        """The last hidden layer [T, D] of each text, from its piece ids [T]."""
        # Texts of like length together: little padding, which is most of the speed.
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]), reverse=True)
        rows: dict[int, Tensor] = {}
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            rows.update(zip(batch, self._hidden_states([ids[index] for index in batch]), strict=True))
        return [rows[index] for index in range(len(ids))]

    def _hidden_states(self, ids: list[Tensor]) -> list[Tensor]:
        """The same of texts that go through the network at once."""
        lengths = [len(row) for row in ids]
        padded_BT = pad_sequence(ids, batch_first=True, padding_value=self.tokenizer.pad_token_id or 0)
        mask_BT = torch.arange(padded_BT.shape[1]) < torch.tensor(lengths)[:, None]
        with self.grad_context():
            hidden_BTD = self.network(
                input_ids=padded_BT.to(self.device), attention_mask=mask_BT.long().to(self.device)
            ).last_hidden_state
        return [row[:length] for row, length in zip(hidden_BTD, lengths, strict=True)]


def split_fields(content: Any) -> tuple[str | None, ...]:
    """The fields of a text content, stripped; None for a field that is not there.

    Raises:
        Unreadable: it is neither a string nor a list of strings.

    Example:
        >>> split_fields("  Toy Story "), split_fields(["Heat", "", None])
        (('Toy Story',), ('Heat', None, None))
    """
    fields = (content,) if isinstance(content, str) else content
    if not isinstance(fields, (list, tuple)):
        raise Unreadable(f"got {type(content).__name__}, expected a string or a list of strings")
    for field in fields:
        if field is not None and not isinstance(field, str):
            raise Unreadable(f"got a field of {type(field).__name__}, expected a string or None")
    return tuple((field.strip() or None) if field else None for field in fields)


def texts_to_encode(fields: Sequence[str | None], pool: str) -> list[tuple[int, str]]:
    """The texts to encode, each with its place: the fields by themselves, or joined for pool "all".

    Example:
        >>> texts_to_encode(("Heat", None, "Crime"), "fields"), texts_to_encode(("Heat", None, "Crime"), "all")
        ([(0, 'Heat'), (2, 'Crime')], [(0, 'Heat. Crime')])
    """
    present = [(place, field) for place, field in enumerate(fields) if field]
    if pool == "all" and present:
        return [(0, ". ".join(field for _, field in present))]
    return present
