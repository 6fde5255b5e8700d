"""Convolutions over time that look back only and continue where the previous chunk stopped."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn.attention.layer.linear import Linear

__all__ = ["CausalBlock", "CausalConvolution", "CausalHalving"]


class CausalConvolution(nn.Module):
    """A causal convolution over time, zero-padded at the start, that processes a sequence in chunks.

    Args:
        channels: input channels.
        dim: output channels.
        kernel_size: time steps that a result depends on.
        stride: time steps from one result to the next, at most `kernel_size`.
        groups: as in `nn.Conv1d`.

    Example:
        >>> layer, x = CausalConvolution(3, 5, kernel_size=4, stride=2), torch.randn(1, 7, 3)
        >>> complete, _ = layer(x)
        >>> first, state = layer(x[:, :3])
        >>> second, state = layer(x[:, 3:], state)
        >>> complete.shape, torch.allclose(complete, torch.cat([first, second], 1), atol=1e-6)
        (torch.Size([1, 3, 5]), True)
    """

    def __init__(self, channels: int, dim: int, kernel_size: int, stride: int = 1, groups: int = 1):
        super().__init__()
        self.convolution = nn.Conv1d(channels, dim, kernel_size, stride=stride, groups=groups)
        self.kernel_size, self.stride = kernel_size, stride

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute the results that a chunk completes.

        Args:
            x: [B, T, channels]; T may be 0.
            state: state from the previous chunk; None at the start of the sequence.

        Returns:
            Results [B, T', dim], and the state for the next chunk.
        """
        if state is None:
            state = x.new_zeros(len(x), self.kernel_size - self.stride, x.shape[2])
        x = torch.cat([state, x], dim=1)
        count = max(0, (x.shape[1] - self.kernel_size) // self.stride + 1)
        state = x[:, count * self.stride :]
        if not count:
            return x.new_zeros(len(x), 0, self.convolution.out_channels), state
        return self.convolution(x.transpose(1, 2)).transpose(1, 2), state


class CausalHalving(nn.Module):
    """A causal convolution with stride 2, layer norm and GELU.

    Args:
        channels: input channels.
        dim: output channels.
    """

    def __init__(self, channels: int, dim: int):
        super().__init__()
        self.convolution = CausalConvolution(channels, dim, kernel_size=5, stride=2)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Process a chunk.

        Args:
            x: [B, T, channels].
            state: as in `CausalConvolution`.

        Returns:
            [B, T', dim], and the state for the next chunk.
        """
        x, state = self.convolution(x, state)
        return F.gelu(self.norm(x)), state


class CausalBlock(nn.Module):
    """A residual block: a depthwise causal convolution, then a token-wise network.

    Paper: Liu et al. 2022, "A ConvNet for the 2020s", arXiv:2201.03545.

    Args:
        dim: width of the tokens.
        kernel_size: tokens that the convolution looks at.
        dropout: dropout probability of the residual branch.
    """

    def __init__(self, dim: int, kernel_size: int, dropout: float):
        super().__init__()
        self.convolution = CausalConvolution(dim, dim, kernel_size, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.network = nn.Sequential(Linear(dim, 2 * dim), nn.GELU(), Linear(2 * dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Process a chunk.

        Args:
            x: [B, T, dim].
            state: as in `CausalConvolution`.

        Returns:
            [B, T, dim], and the state for the next chunk.
        """
        convolved, state = self.convolution(x, state)
        residual_ND = self.network(self.norm(convolved).flatten(0, 1))
        return x + self.dropout(residual_ND).view_as(x), state
