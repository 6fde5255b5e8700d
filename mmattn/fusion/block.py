"""One layer of the fusion core: attention by a program, then a token-wise network, each on a residual."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmattn.attention.layer.linear import Linear
from mmattn.fusion.activation_recompute import recompute_in_backward
from mmattn.types import Tokens

if TYPE_CHECKING:
    from mmattn.attention.layer.attention import Attention
    from mmattn.attention.layer.kv_cache import Cache

__all__ = ["BottleneckBlock", "FusionBlock"]

# Rows that the token-wise network works on at a time on a CPU: what lies between its two layers then stays
# in the cache, in memory that the next rows use again. On a GPU one piece is best.
_CHUNK_ROWS = 1024


class FusionBlock(nn.Module):
    """A pre-norm transformer block over jagged tokens. It starts as the identity and learns what to add.

    Paper: Xiong et al., "On Layer Normalization in the Transformer Architecture", 2020; Bachlechner et
    al., "ReZero is All You Need", 2020 (the start as the identity).

    Args:
        attention: the attention module, injected; any program, width `dim`.
        dim: width D.
        expansion: width of the hidden layer of the token-wise network, as a multiple of D.
        dropout: probability on both residual branches.

    Example:
        >>> import torch
        >>> from mmattn import Tokens
        >>> from mmattn import attention as A
        >>> block = FusionBlock(A.Attention(A.Program(score=A.dot()), dim=8, heads=2), dim=8)
        >>> block(Tokens.from_sequences([torch.randn(3, 8), torch.randn(5, 8)], "text")).length_list
        [3, 5]
    """

    def __init__(self, attention: Attention, dim: int, expansion: float = 4.0, dropout: float = 0.0):
        super().__init__()
        hidden = int(dim * expansion)
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = attention
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward = nn.Sequential(Linear(dim, hidden), nn.GELU(), Linear(hidden, dim))
        self.dropout = nn.Dropout(dropout)
        for last in (self.attention.o_proj, self.feed_forward[-1]):
            nn.init.zeros_(last.weight)  # type: ignore[arg-type]
            if last.bias is not None:
                nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, tokens: Tokens, context: Any = None) -> Tokens:
        """Tokens of width D in, tokens of the same layout and width out.

        Args:
            tokens: width D.
            context: what the program's terms ask for (edges, task), see `mmattn.attention`.
        """
        x_ND = tokens.values
        attended = self.attention(tokens.with_values(self.attention_norm(x_ND)), context=context)
        if x_ND.device.type == "cpu" and len(x_ND) > _CHUNK_ROWS:
            pieces = zip(x_ND.split(_CHUNK_ROWS), attended.values.split(_CHUNK_ROWS), strict=True)
            return tokens.with_values(torch.cat([self._after_attention(*piece) for piece in pieces]))
        return tokens.with_values(self._after_attention(x_ND, attended.values))

    def decode(self, tokens: Tokens, cache: Cache | None = None, context: Any = None) -> tuple[Tokens, Cache]:
        """As `forward` for tokens that follow those of the calls before, in programs that look back only.

        Args:
            tokens: the next ones of each sample, width D.
            cache: what the call before returned; left out, these are the first.
            context: as in `forward`.

        Raises:
            InputError: the program may look ahead.
        """
        normed = tokens.with_values(self.attention_norm(tokens.values))
        attended, cache = self.attention.decode(normed, cache, context)
        return tokens.with_values(self._after_attention(tokens.values, attended.values)), cache

    def _after_attention(self, x_ND: Tensor, attended_ND: Tensor) -> Tensor:
        """Everything that looks at one token at a time."""
        x_ND = x_ND + self.dropout(attended_ND)
        widen, activate, narrow = self.feed_forward
        with recompute_in_backward(activate, widen(self.feed_forward_norm(x_ND))) as active:
            return x_ND + self.dropout(narrow(active))


class BottleneckBlock(nn.Module):
    """A block at a smaller width: tokens are mapped down, go through it, and what comes out is added.

    The wide tokens keep what their encoders said, and attention costs only what the small width costs.

    Paper: Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", 2019 (the bottleneck).

    Args:
        block: a block of the small width.
        dim: width D of the tokens.
        width: the small width.

    Example:
        >>> import torch
        >>> from mmattn import Tokens
        >>> from mmattn import attention as A
        >>> inner = FusionBlock(A.Attention(A.Program(score=A.dot()), dim=8, heads=2), dim=8)
        >>> tokens = Tokens.from_sequences([torch.randn(3, 32)], "text")
        >>> bool((BottleneckBlock(inner, dim=32, width=8)(tokens).values == tokens.values).all())
        True
    """

    def __init__(self, block: FusionBlock, dim: int, width: int):
        super().__init__()
        self.down = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, width))
        self.block = block
        self.up = nn.Linear(width, dim, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, tokens: Tokens, context: Any = None) -> Tokens:
        """Tokens of width D in, tokens of the same layout and width out.

        A task's vector in the context is mapped down as the tokens are.

        Args:
            tokens: B samples of width D.
            context: for the attention programs.
        """
        inner = self.block(tokens.with_values(self.down(tokens.values)), self._project_task(context, tokens))
        return tokens.with_values(tokens.values + self.up(inner.values))

    def decode(self, tokens: Tokens, cache: Cache | None = None, context: Any = None) -> tuple[Tokens, Cache]:
        """As `forward` for tokens that follow, see `FusionBlock.decode`.

        Args:
            tokens: the new tokens of each sample.
            cache: keys and values so far; None begins.
            context: for the attention programs.
        """
        narrow = tokens.with_values(self.down(tokens.values))
        inner, cache = self.block.decode(narrow, cache, self._project_task(context, tokens))
        return tokens.with_values(tokens.values + self.up(inner.values)), cache

    def _project_task(self, context: Any, tokens: Tokens) -> Any:
        if not isinstance(task := (context or {}).get("task"), Tensor):
            return context
        return {**context, "task": self.down(task.to(tokens.dtype))}
