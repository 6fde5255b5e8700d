"""History completion: what a user would have chosen too, judged by all users, before content is asked.

Somebody who met two films has left out hundreds that the same people like. Attention over the two alone
takes the rest for indifferent; completed, the history speaks for all items that go with it.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from mmattn.errors import InputError

__all__ = ["complete_history_weights", "cooccurrence_counts"]


def complete_history_weights(
    weights: Tensor, cooccurrence: Tensor, dropout: float = 0.7, ridge: float = 10.0
) -> Tensor:
    """The weights that score plain histories as `weights` would score completed ones.

    A denoising autoencoder, linear and in closed form, fills the histories in: of all maps P it brings back
    best what is left when each choice is dropped with probability p. With G the co-occurrence counts,

        P = (G + p / (1 - p) diag(G) + ridge I)^-1 G

    and history @ (P @ weights) = (history @ P) @ weights: whoever multiplies weights by histories needs to
    know nothing of the completion, and a user whom it never saw is completed as well as any.

    Paper: Steck, "Autoencoders that don't overfit towards the Identity", 2020.

    Args:
        weights: [I, C], what each of I known items says of each candidate; gradients pass.
        cooccurrence: [I, I] numbers of users who chose both items, as `cooccurrence_counts` counts them.
            Items that are not to be known must not be among the I.
        dropout: p, from 0 to below 1: the larger, the less an item stands for itself.
        ridge: in users, above 0: how many it takes before an item is believed.

    Returns:
        [I, C], of the type of `weights`.

    Raises:
        InputError: counts that do not fit the weights, or a dropout or ridge out of range.

    Example:
        >>> together = torch.tensor([[3.0, 3.0], [3.0, 3.0]])  # the same three users chose both items
        >>> says = torch.tensor([[1.0], [0.0]])  # the first alone says something of the candidate
        >>> complete_history_weights(says, together, dropout=0.5, ridge=1.0)
        tensor([[0.3000],
                [0.3000]])
    """
    if cooccurrence.shape != (len(weights), len(weights)):
        raise InputError(
            f"completion: got counts {tuple(cooccurrence.shape)}, expected [{len(weights)}, {len(weights)}], "
            "a row and a column for each known item"
        )
    if not 0 <= dropout < 1 or not ridge > 0:
        raise InputError(
            f"completion: got dropout {dropout} and ridge {ridge}, expected 0 to below 1 and above 0"
        )
    # Counts of frequent items beside a small ridge: single precision would lose the rare ones.
    with torch.autocast(weights.device.type, enabled=False):
        gram_II = cooccurrence.to(weights.device, torch.float64)
        penalty_I = dropout / (1 - dropout) * gram_II.diagonal() + ridge
        factor_II = torch.linalg.cholesky(gram_II + penalty_I.diag())
        return torch.cholesky_solve(gram_II @ weights.double(), factor_II).to(weights.dtype)


def cooccurrence_counts(interactions: sparse.csr_array) -> Tensor:
    """Numbers of users who chose both of two items.

    Args:
        interactions: [U, I], a stored entry where the user chose the item, whatever its value.

    Returns:
        [I, I] float32; the diagonal holds the numbers of users who chose the item.

    Example:
        >>> cooccurrence_counts(sparse.csr_array(np.array([[5.0, 2.0], [1.0, 0.0]]))).tolist()
        [[2.0, 1.0], [1.0, 1.0]]
    """
    chosen_UI = interactions.astype(np.float32)
    chosen_UI.sum_duplicates()
    chosen_UI.data[:] = 1
    return torch.from_numpy((chosen_UI.T @ chosen_UI).toarray())
