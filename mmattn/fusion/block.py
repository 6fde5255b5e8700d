"""One layer of the fusion core: attention by a program, then a token-wise network, each on a residual."""

from __future__ import annotations

from typing import Any

from torch import nn

from mmattn.attention import Attention
from mmattn.types import Tokens

__all__ = ["FusionBlock"]


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
        >>> block(Tokens.from_sequences([torch.randn(3, 8), torch.randn(5, 8)], "text")).sizes
        [3, 5]
    """

    def __init__(self, attention: Attention, dim: int, expansion: float = 4.0, dropout: float = 0.0):
        super().__init__()
        hidden = int(dim * expansion)
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = attention
        self.network_norm = nn.LayerNorm(dim)
        self.network = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.dropout = nn.Dropout(dropout)
        for last in (self.attention.o_proj, self.network[-1]):
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
        x_ND = x_ND + self.dropout(attended.values)
        x_ND = x_ND + self.dropout(self.network(self.network_norm(x_ND)))
        return tokens.with_values(x_ND)
