"""Numbers as periodic features of learned frequencies."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["PeriodicFeatures"]


class PeriodicFeatures(nn.Module):
    """Map a number, with sines and cosines of it at learned frequencies, through a linear layer.

    The initial weights are random Fourier features: where `dim` is at least twice `frequencies`, the inner
    product of two numbers' vectors is at first a Gaussian of their difference.

    Papers: Gorishniy et al. 2022, "On Embeddings for Numerical Features in Tabular Deep Learning",
    arXiv:2203.05556; Rahimi and Recht 2007, "Random Features for Large-Scale Kernel Machines" (the
    initialisation).

    Args:
        columns: number of columns; each has its own frequencies and linear layer.
        frequencies: number F of sines and of cosines.
        dim: width D of the result.
        kernel_width: width of the initial Gaussian, in standard deviations of the column.

    Example:
        >>> import torch
        >>> PeriodicFeatures(3, 4, 8)(torch.tensor([0.5, -1.0]), torch.tensor([0, 2])).shape
        torch.Size([2, 8])
    """

    def __init__(self, columns: int, frequencies: int, dim: int, kernel_width: float = 0.3):
        super().__init__()
        self.frequency = nn.Parameter(torch.randn(columns, frequencies) / (2 * math.pi * kernel_width))
        # The row of the number itself starts at zero, so that the initial kernel is Gaussian.
        self.weight = nn.Parameter(torch.zeros(columns, 2 * frequencies + 1, dim))
        for column in self.weight.data:
            column[1:] = nn.init.orthogonal_(torch.empty(2 * frequencies, dim)) * frequencies**-0.5
        self.bias = nn.Parameter(torch.zeros(columns, dim))

    def forward(self, number: Tensor, column: Tensor) -> Tensor:
        """Compute the features of numbers.

        Args:
            number: [N] standardised numbers.
            column: [N] int64 column of each number.

        Returns:
            [N, D].
        """
        angle_NF = 2 * math.pi * self.frequency[column] * number[:, None]
        features_NW = torch.cat([number[:, None], angle_NF.sin(), angle_NF.cos()], dim=1)
        return torch.einsum("nw,nwd->nd", features_NW, self.weight[column]) + self.bias[column]
