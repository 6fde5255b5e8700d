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

    A content is one string, or the fields of an item, `[title, plot, ...]`, where None or an empty string is
    an absent field. Text without any word piece has no tokens. With `is_split_into_words`, a content is one
    text as a list of its words instead: every piece of word i is at position i, every word has at least one,
    and a text longer than `max_length` is encoded in chunks of whole words.

    Args:
        model: a local folder, or a name on the Hugging Face hub, from which it is downloaded.
        pool: "words": one token per word piece (special pieces are dropped), the pieces of field f at
            positions f * max_length, f * max_length + 1, ...; "fields": one token per field, the mean
            over its pieces, at position f; "all": one token, the mean over the fields joined by ". ".
        max_length: maximum word pieces of each text, including special ones.
        batch_size: texts per batch of the network.
        revision: branch, tag or commit on the hub.
        frozen: False to fine-tune the model as `encoder.trained`.
        is_split_into_words: contents are lists of words; only with the pool "words".
        modality: name of the modality in the tokens.

    Raises:
        InputError: the model cannot be loaded, or an option is out of range.
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
            tower="text_model",  # of CLIP and similar models
            frozen=frozen,
            batch_size=batch_size,
            modality=modality,
        )
        self.pool = pool
        self.max_length = max_length
        self.is_split_into_words = is_split_into_words

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        # Tokenizers that encode spaces (RoBERTa's) need one before every word of a list.
        options = {"add_prefix_space": True} if self.is_split_into_words else {}
        return import_optional("transformers", "hf").AutoTokenizer.from_pretrained(
            self.model, revision=self.revision, **options
        )

    def preprocessing(self) -> Mapping[str, Any]:
        steps = {"pool": self.pool, "max_length": self.max_length, "tokenizer": self.processor_hash}
        return {**steps, "words": True} if self.is_split_into_words else steps

    def options(self) -> dict[str, Any]:
        return {
            **super().options(),
            "pool": self.pool,
            "max_length": self.max_length,
            "is_split_into_words": self.is_split_into_words,
        }

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
                field * stride + torch.arange(len(rows[text]), device=self.device) for field, text in item
            ]
        return self._join_item_texts(sequences, positions, [len(item) for item in items])

    def _join_item_texts(self, sequences: list[Tensor], positions: list[Tensor], counts: list[int]) -> Tokens:
        """Concatenate the texts of each item; item i has `counts[i]` of them."""
        item_sequences: list[Tensor | None] = []
        item_positions: list[Tensor | None] = []
        start = 0
        for count in counts:
            texts = slice(start, start + count)
            item_sequences.append(torch.cat(sequences[texts]) if count else None)
            item_positions.append(torch.cat(positions[texts]) if count else None)
            start += count
        return self.pack(item_sequences, item_positions)

    def _encode_texts(self, texts: list[str]) -> list[Tensor]:
        """Encode each text as [T, D]; T is 1 where pieces are pooled, and 0 for a text without pieces."""
        if not texts:
            return []
        pieces = self.tokenizer(
            texts, truncation=True, max_length=self.max_length, return_special_tokens_mask=True
        )
        ids = [torch.tensor(row) for row in pieces["input_ids"]]
        is_word = [~torch.tensor(row, dtype=torch.bool) for row in pieces["special_tokens_mask"]]
        rows: list[Tensor] = [torch.zeros(0, self.dim, device=self.device)] * len(texts)
        nonempty = [index for index in range(len(texts)) if is_word[index].any()]
        hidden_states = self._all_hidden_states([ids[index] for index in nonempty])
        for index, row_TD in zip(nonempty, hidden_states, strict=True):
            is_word_T = is_word[index].to(self.device)
            rows[index] = row_TD[is_word_T] if self.pool == "words" else row_TD.mean(0, keepdim=True)
        return rows

    def _encode_words(self, texts: list[tuple[str, ...]]) -> Tokens:
        """Encode texts given as words; each piece is at the position of its word."""
        max_pieces = self.max_length - self.tokenizer.num_special_tokens_to_add()
        chunks, starts, counts = [], [], []
        for words in texts:
            sizes = self._pieces_per_word(words)
            # A word without pieces (a lone joiner) becomes the unknown word, so that it has a token.
            known = [
                word if size else self.tokenizer.unk_token for word, size in zip(words, sizes, strict=True)
            ]
            spans = chunk_words([max(size, 1) for size in sizes], max_pieces)
            chunks += [known[start:end] for start, end in spans]
            starts += [start for start, _ in spans]
            counts.append(len(spans))
        if not chunks:
            return self.pack([None] * len(texts))
        pieces = self.tokenizer(chunks, is_split_into_words=True, truncation=True, max_length=self.max_length)
        hidden_states = self._all_hidden_states([torch.tensor(row) for row in pieces["input_ids"]])
        sequences, positions = [], []
        for chunk, row_TD in enumerate(hidden_states):
            word_T = torch.tensor([-1 if word is None else word for word in pieces.word_ids(chunk)])
            word_T = word_T.to(self.device)
            sequences.append(row_TD[word_T >= 0])
            positions.append(word_T[word_T >= 0] + starts[chunk])
        return self._join_item_texts(sequences, positions, counts)

    def _pieces_per_word(self, words: Sequence[str]) -> list[int]:
        """Count the word pieces of each word."""
        if not words:
            return []
        pieces = self.tokenizer(
            list(words), is_split_into_words=True, add_special_tokens=False, verbose=False
        )
        counts = Counter(pieces.word_ids())
        return [counts[index] for index in range(len(words))]

    def _all_hidden_states(self, ids: list[Tensor]) -> list[Tensor]:
        """Compute the last hidden layer [T, D] of each text from its piece ids [T]."""
        # Sorting by length keeps padding small.
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]), reverse=True)
        rows: dict[int, Tensor] = {}
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            rows.update(zip(batch, self._hidden_states([ids[index] for index in batch]), strict=True))
        return [rows[index] for index in range(len(ids))]

    def _hidden_states(self, ids: list[Tensor]) -> list[Tensor]:
        """Compute the last hidden layer [T, D] of the texts of one batch."""
        lengths = [len(row) for row in ids]
        padded_BT = pad_sequence(ids, batch_first=True, padding_value=self.tokenizer.pad_token_id or 0)
        mask_BT = torch.arange(padded_BT.shape[1]) < torch.tensor(lengths)[:, None]
        with self.grad_context():
            hidden_BTD = self.network(
                input_ids=padded_BT.to(self.device), attention_mask=mask_BT.long().to(self.device)
            ).last_hidden_state
        return [row[:length] for row, length in zip(hidden_BTD, lengths, strict=True)]


def split_fields(content: Any) -> tuple[str | None, ...]:
    """Split a text content into its fields, stripped; None for an absent field.

    Args:
        content: a string, or a list of strings and None.

    Returns:
        The fields.

    Raises:
        Unreadable: the content is neither a string nor a list of strings.

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
    """Return the texts to encode, each with the index of its field.

    Args:
        fields: fields of a content; None where absent.
        pool: a pool of `HuggingFaceText`; "all" joins the fields.

    Returns:
        (index, text) of each present field, or one (0, text) for all.

    Example:
        >>> fields = ("Heat", None, "Crime")
        >>> texts_to_encode(fields, "fields"), texts_to_encode(fields, "all")
        ([(0, 'Heat'), (2, 'Crime')], [(0, 'Heat. Crime')])
    """
    present = [(index, field) for index, field in enumerate(fields) if field]
    if pool == "all" and present:
        return [(0, ". ".join(field for _, field in present))]
    return present
