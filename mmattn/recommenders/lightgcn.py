"""LightGCN: user and item vectors propagated over the interaction graph."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn

from mmattn.recommenders.base import check_at_least_one
from mmattn.recommenders.pairwise import InteractionPairs, PairwiseModel, PairwiseRecommender

__all__ = ["LightGCN", "normalized_adjacency"]


class LightGCN(PairwiseRecommender):
    """BPR on vectors that are propagated along the edges between users and items.

    A layer replaces each vector by the sum of its neighbours' vectors, each divided by the square root of
    both degrees; the final vectors are the mean over all layers, the input included. There are no layer
    weights, non-linearities or biases.

    X. He et al., LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation, SIGIR
    2020, https://arxiv.org/abs/2002.02126. Items that are not known score zero.

    Args:
        layers: number of propagation layers.
        batch_size: pairs per step. Every step propagates the whole graph, which takes most of the time, so
            larger batches make an epoch faster.
        **settings: the other arguments of `mmattn.recommenders.pairwise.PairwiseRecommender`.

    Raises:
        InputError: an argument out of range.

    Example:
        >>> seen = sparse.csr_array(np.kron(np.eye(2), np.ones((5, 3))))  # two tastes, five users each
        >>> scores = LightGCN(dim=2, epochs=200, learning_rate=0.05).fit(seen).score([0], range(6))[0]
        >>> bool(scores[:3].min() > scores[3:].max())
        True
    """

    def __init__(self, layers: int = 3, batch_size: int = 16384, **settings: Any):
        super().__init__(batch_size=batch_size, **settings)
        self.layers = check_at_least_one("LightGCN: layers", layers)

    def _build_model(
        self, pairs: InteractionPairs, features: NDArray[Any] | None, generator: torch.Generator
    ) -> PairwiseModel:
        return _LightGCNModel(
            *pairs.init_vectors(self.dim, generator),
            _to_torch_sparse(normalized_adjacency(pairs)),
            self.layers,
        )


class _LightGCNModel(PairwiseModel):
    graph: Tensor

    def __init__(self, users: nn.Parameter, items: nn.Parameter, graph: Tensor, layers: int):
        super().__init__()
        self.users = users
        self.items = items
        self.layers = layers
        self.register_buffer("graph", graph)

    def forward(self, users: Tensor, positive_items: Tensor, negative_items: Tensor) -> tuple[Tensor, Tensor]:
        users_UK, items_IK, _ = self.factors()
        margin_B = (users_UK[users] * (items_IK[positive_items] - items_IK[negative_items])).sum(1)
        # The penalty applies to the learned vectors, before propagation.
        touched = (self.users[users], self.items[positive_items], self.items[negative_items])
        return margin_B, torch.stack([part.square().sum(1) for part in touched]).sum(0)

    def factors(self) -> tuple[Tensor, Tensor, Tensor]:
        layer = total = torch.cat([self.users, self.items])
        for _ in range(self.layers):
            layer = _SymmetricMatmul.apply(self.graph, layer)
            total = total + layer
        mean_UK, mean_IK = (total / (self.layers + 1)).split([len(self.users), len(self.items)])
        return mean_UK, mean_IK, mean_IK.new_zeros(len(mean_IK))


class _SymmetricMatmul(torch.autograd.Function):
    """graph @ vectors for a symmetric graph, with graph @ gradient as the backward pass.

    The backward pass of torch would first convert the transposed matrix, which takes far longer than the
    product.
    """

    @staticmethod
    def forward(ctx: Any, graph: Tensor, vectors: Tensor) -> Tensor:
        ctx.graph = graph
        return graph @ vectors

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, ctx.graph @ gradients[0]


def normalized_adjacency(pairs: InteractionPairs) -> sparse.csr_array:
    """Symmetrically normalized adjacency matrix of the user-item graph.

    Args:
        pairs: the interactions.

    Returns:
        [U + I, U + I] with 1 / sqrt(degree of user * degree of item) where a user chose an item; symmetric.

    Example:
        >>> pairs = InteractionPairs.from_interactions(sparse.csr_array(np.array([[1, 1], [0, 1]])),
        ...     np.array([0, 1]))
        >>> normalized_adjacency(pairs).toarray()[0].round(2)
        array([0.  , 0.  , 0.71, 0.5 ], dtype=float32)
    """
    users, items = pairs.users, pairs.items
    degree_U = np.bincount(users, minlength=pairs.num_users)
    degree_I = np.bincount(items, minlength=pairs.num_items)
    weights = (1 / np.sqrt(degree_U[users] * degree_I[items])).astype(np.float32)
    shape = (pairs.num_users, pairs.num_items)
    chosen_UI = sparse.csr_array((weights, (users, items)), shape=shape)
    return sparse.csr_array(sparse.block_array([[None, chosen_UI], [chosen_UI.T, None]], format="csr"))


def _to_torch_sparse(matrix: sparse.csr_array) -> Tensor:
    with warnings.catch_warnings():
        # torch warns once per process that CSR is in beta and that it does not check the invariants.
        warnings.filterwarnings("ignore", message="Sparse (CSR|invariant)")
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr.astype(np.int64)),
            torch.from_numpy(matrix.indices.astype(np.int64)),
            torch.from_numpy(matrix.data),
            size=matrix.shape,
        )
