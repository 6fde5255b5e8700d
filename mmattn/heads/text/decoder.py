"""A decoder that writes symbols while it looks at fused tokens, whole texts at once or step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmattn.attention.layer.kv_cache import Cache, check_supports_decoding
from mmattn.attention.layer.linear import Linear
from mmattn.fusion.input_projection import sinusoidal_encoding
from mmattn.types import Tokens

if TYPE_CHECKING:
    from mmattn.attention.layer.attention import Attention

__all__ = ["GENERATED_MODALITY", "DecodingState", "TextDecoder", "TextDecoderLayer"]

GENERATED_MODALITY = "written"  # the modality of what the decoder writes, for programs that route


class TextDecoderLayer(nn.Module):
    """Attention to what was written before, attention to what is read, a token-wise network; pre-norm.

    Args:
        self_attention: attention of the written tokens to each other; its program looks back only.
        cross_attention: attention of the written tokens to the memory.
        expansion: width of the network's hidden layer, as a multiple of D.
        dropout: probability on the three residual branches.

    Raises:
        InputError: the program of `self_attention` may look ahead.
    """

    def __init__(
        self, self_attention: Attention, cross_attention: Attention, expansion: float, dropout: float
    ):
        super().__init__()
        dim = self_attention.dim
        hidden = int(dim * expansion)
        check_supports_decoding(self_attention.program)
        self.self_attention_norm, self.cross_attention_norm, self.feed_forward_norm = (
            nn.LayerNorm(dim) for _ in range(3)
        )
        self.self_attention, self.cross_attention = self_attention, cross_attention
        self.feed_forward = nn.Sequential(
            Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), Linear(hidden, dim)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tokens, memory: Tokens) -> Tokens:
        """Whole texts [N, D], a sample each, and the memory of the same samples.

        Args:
            x: whole texts, one a sample.
            memory: tokens of the same samples.
        """
        x = self._residual_add(x, self.self_attention(self._normalize(x, self.self_attention_norm)))
        x = self._residual_add(x, self.cross_attention(self._normalize(x, self.cross_attention_norm), memory))
        return self._apply_feed_forward(x)

    def step(self, x: Tokens, past: Cache | None, memory: Cache, counts_B: Tensor) -> tuple[Tokens, Cache]:
        """One more token a row.

        Args:
            x: R samples of one token each: rows that belong to one sample of the memory lie together.
            past: keys and values of what the rows hold so far; None before the first step.
            memory: of B samples.
            counts_B: rows of each of them.
        """
        attended, past = self.self_attention.decode(self._normalize(x, self.self_attention_norm), past)
        x = self._residual_add(x, attended)
        normed = self._normalize(x, self.cross_attention_norm)
        # All rows of a sample ask the same memory, which therefore need not be there once a row.
        asking = replace(
            Tokens.from_lengths(normed.values, counts_B, GENERATED_MODALITY), position=x.position
        )
        return self._apply_feed_forward(
            self._residual_add(x, self.cross_attention.attend_cached(asking, memory))
        ), past

    def _normalize(self, x: Tokens, norm: nn.LayerNorm) -> Tokens:
        return x.with_values(norm(x.values))

    def _residual_add(self, x: Tokens, update: Tokens) -> Tokens:
        return x.with_values(x.values + self.dropout(update.values))

    def _apply_feed_forward(self, x: Tokens) -> Tokens:
        return x.with_values(x.values + self.dropout(self.feed_forward(self.feed_forward_norm(x.values))))


class TextDecoder(nn.Module):
    """Symbols in, logits of the next symbol out, in the light of a memory.

    What is read gets a code of its positions here, by a learned weight a coordinate: words, frames and
    patches have an order that the fusion core may not have kept. The embedding of a symbol is also its row
    in the last layer.

    Paper: Vaswani et al., "Attention Is All You Need", 2017; Press and Wolf, "Using the Output Embedding to
    Improve Language Models", 2017 (the shared rows).

    Args:
        dim: width D, even, of symbols and memory.
        vocab_size: V.
        layers: injected.
        dropout: probability on the embedded symbols.

    Example:
        >>> from mmattn import attention as A
        >>> own, other = A.Attention(A.Program(mask=A.causal), 8, 2), A.Attention(A.Program(), 8, 2)
        >>> decoder = TextDecoder(8, 5, [TextDecoderLayer(own, other, expansion=2.0, dropout=0.0)])
        >>> memory = Tokens.from_sequences([torch.randn(3, 8), torch.randn(1, 8)], "image")
        >>> decoder([torch.tensor([0, 4]), torch.tensor([0])], memory).shape
        torch.Size([3, 5])
    """

    def __init__(self, dim: int, vocab_size: int, layers: Sequence[TextDecoderLayer], dropout: float = 0.0):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, dim)
        nn.init.normal_(self.embedding.weight, std=dim**-0.5)
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.memory_norm = nn.LayerNorm(dim)
        self.memory_position_scale = nn.Parameter(torch.ones(dim))
        self.layers: Any = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    @property
    def dim(self) -> int:
        return self.embedding.embedding_dim

    def forward(self, texts: Sequence[Tensor], memory: Tokens) -> Tensor:
        """Logits of the symbol after each one.

        Args:
            texts: B times [T_b] int64, each beginning with the start symbol.
            memory: B samples of width D.

        Returns:
            [N, V], the texts one behind the other.
        """
        lengths = torch.tensor([len(text) for text in texts], device=memory.device)
        x = Tokens.from_lengths(self.embedding(torch.cat(list(texts))), lengths, GENERATED_MODALITY)
        x = self._add_positions(x)
        memory = self.encode_memory(memory)
        for layer in self.layers:
            x = layer(x, memory)
        return self.logits(x)

    def encode_memory(self, memory: Tokens) -> Tokens:
        """Normalize the memory and add its positions, as the layers expect it.

        Args:
            memory: tokens of B samples.
        """
        code_ND = sinusoidal_encoding(memory.position, self.dim).to(memory.dtype) * self.memory_position_scale
        return memory.with_values(self.memory_norm(memory.values) + code_ND)

    def start_decoding(self, memory: Tokens) -> DecodingState:
        """Start decoding step by step, one empty row a sample.

        Args:
            memory: tokens of B samples.
        """
        return DecodingState(self, self.encode_memory(memory))

    def embed(self, symbols: Tensor, position: int) -> Tokens:
        """One symbol [R] a row, all at one position.

        Args:
            symbols: [R] one symbol a row.
            position: of all of them.
        """
        x = Tokens.from_lengths(self.embedding(symbols), torch.ones_like(symbols), GENERATED_MODALITY)
        return self._add_positions(replace(x, position=torch.full_like(symbols, position)))

    def logits(self, x: Tokens) -> Tensor:
        """[N, V].

        Args:
            x: N tokens of width D.
        """
        return nn.functional.linear(self.norm(x.values), self.embedding.weight, self.bias)

    def _add_positions(self, x: Tokens) -> Tokens:
        code_ND = sinusoidal_encoding(x.position, self.dim).to(x.dtype)
        return x.with_values(self.dropout(x.values * self.dim**0.5 + code_ND))


class DecodingState:
    """Rows of symbols that grow by one a step; what was computed for the earlier ones is kept.

    Args:
        decoder: the trained decoder.
        memory: tokens of B samples, as `encode_memory` returns them.

    Example:
        See `mmattn.heads.text.beam_search.beam_search`, which drives it.
    """

    def __init__(self, decoder: TextDecoder, memory: Tokens):
        self.decoder = decoder
        self.memory_caches = [layer.cross_attention.cache_keys(memory) for layer in decoder.layers]
        self.past_caches: list[Cache | None] = [None] * len(self.memory_caches)
        self.counts_B = torch.ones(len(memory), dtype=torch.int64, device=memory.device)
        self.length = 0

    def step(self, symbols: Tensor) -> Tensor:
        """Append a symbol to each row and return the log-probabilities of the next one, [R, V].

        Args:
            symbols: [R] next symbol of each row.
        """
        x = self.decoder.embed(symbols, self.length)
        for layer_index, layer in enumerate(self.decoder.layers):
            x, self.past_caches[layer_index] = layer.step(
                x, self.past_caches[layer_index], self.memory_caches[layer_index], self.counts_B
            )
        self.length += 1
        return self.decoder.logits(x).float().log_softmax(1)

    def select(self, rows: Tensor, counts: Tensor) -> None:
        """Go on from the named rows [R'], `counts` [B] of them for each sample of the memory.

        Args:
            rows: [R'] rows to continue, which may repeat.
            counts: [B] number of rows of each sample.
        """
        self.past_caches = [None if past is None else past.select(rows) for past in self.past_caches]
        self.counts_B = counts
