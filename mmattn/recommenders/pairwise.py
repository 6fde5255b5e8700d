"""Pairwise learning to rank (BPR): a chosen item should score above one the same user did not choose.

S. Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback, UAI 2009,
https://arxiv.org/abs/1205.2618. Subclasses define how users and items are represented as vectors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from torch import Tensor, nn

from mmattn.array_types import Floats32, Ints
from mmattn.errors import InputError
from mmattn.recommenders.base import check_at_least_one, check_positive, known_items
from mmattn.recommenders.factors import Factors

__all__ = ["INIT_STD", "InteractionPairs", "PairwiseModel", "PairwiseRecommender", "ValidateFn", "bpr_loss"]

ValidateFn = Callable[[Callable[[ArrayLike, ArrayLike], Floats32]], float]
INIT_STD = 0.1  # standard deviation of the initial vectors
_MAX_REDRAWS = 20  # redraws of a negative that the user has chosen, before the pair is left out


class PairwiseModel(nn.Module, ABC):
    """Trainable user and item vectors; the score is their inner product plus the item's bias."""

    @abstractmethod
    def forward(self, users: Tensor, positive_items: Tensor, negative_items: Tensor) -> tuple[Tensor, Tensor]:
        """Score margins of pairs, and the squared norms for the L2 penalty.

        Args:
            users: [B] user ids.
            positive_items: [B] items that the users chose.
            negative_items: [B] items that they did not choose.

        Returns:
            Margins [B], score of the positive minus the negative item, and summed squares [B] of the
            parameters used.
        """

    @abstractmethod
    def factors(self) -> tuple[Tensor, Tensor, Tensor]:
        """User vectors [U, K], item vectors [I, K] and item biases [I]."""


class PairwiseRecommender(ABC):
    """Base class of recommenders trained with Adam on sampled pairs, one negative per interaction and epoch.

    The same seed gives the same factors on the same machine (on a CPU).

    Args:
        dim: width of the vectors.
        epochs: maximum number of epochs; an epoch uses every interaction once.
        learning_rate: learning rate of Adam.
        regularization: weight of the L2 penalty: half the squared norm of the vectors and biases of a pair,
            averaged over the pairs.
        batch_size: pairs per step.
        validate_fn: computes a validation metric (higher is better) from a `score` function. If given, the
            factors of the best epoch are kept and training stops early; None trains all epochs.
        validate_every: epochs between two validations.
        patience: validations without improvement before training stops.
        seed: seed of the initial vectors and of the pairs.
        device: device of the training.

    Raises:
        InputError: an argument out of range.
    """

    def __init__(
        self,
        dim: int = 64,
        epochs: int = 50,
        learning_rate: float = 5e-3,
        regularization: float = 1e-3,
        batch_size: int = 8192,
        validate_fn: ValidateFn | None = None,
        validate_every: int = 5,
        patience: int = 2,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ):
        name = type(self).__name__
        self.dim = check_at_least_one(f"{name}: dim", dim)
        self.epochs = check_at_least_one(f"{name}: epochs", epochs)
        self.learning_rate = check_positive(f"{name}: learning_rate", learning_rate)
        if not regularization >= 0:
            raise InputError(f"{name}: regularization: got {regularization}, expected 0 or more")
        self.regularization = regularization
        self.batch_size = check_at_least_one(f"{name}: batch_size", batch_size)
        self.validate_fn = validate_fn
        self.validate_every = check_at_least_one(f"{name}: validate_every", validate_every)
        self.patience = check_at_least_one(f"{name}: patience", patience)
        self.seed = seed
        self.device = torch.device(device)

    def fit(
        self,
        interactions: sparse.csr_array,
        features: NDArray[Any] | None = None,
        known: ArrayLike | None = None,
    ) -> Self:
        """Train on the interactions with known items.

        Afterwards `factors` holds the vectors, and `best_epoch` the epoch that they are from.

        Args:
            interactions: [U, I], a stored entry where the user chose the item.
            features: content of all I items, in the form that the class documents; None if it uses none.
            known: ids of the known items; None means those with an interaction.

        Raises:
            InputError: known items out of range, features that do not match, no interaction with a known
                item, or no user who left out a known item.
        """
        name = type(self).__name__
        known_W = known_items(name, interactions, known)
        pairs = InteractionPairs.from_interactions(interactions, known_W)
        if not len(pairs.pair_keys):
            raise InputError(f"{name}.fit: got no interaction with a known item, expected some")
        generator = torch.Generator().manual_seed(self.seed)
        vectors = self._build_model(pairs, features, generator).to(self.device)
        optimizer = torch.optim.Adam(vectors.parameters(), lr=self.learning_rate)
        rng = np.random.default_rng(self.seed)
        best, waited = -np.inf, 0
        for epoch in range(1, self.epochs + 1):
            self._train_epoch(vectors, optimizer, pairs, rng)
            if self.validate_fn is None or (epoch % self.validate_every and epoch != self.epochs):
                continue
            factors = _to_factors(vectors)
            value = self.validate_fn(factors.score)
            waited = 0 if value > best else waited + 1
            if not waited:
                best, self.factors, self.best_epoch = value, factors, epoch
            elif waited >= self.patience:
                break
        if self.validate_fn is None:
            self.factors, self.best_epoch = _to_factors(vectors), self.epochs
        return self

    def score(self, users: ArrayLike, items: ArrayLike) -> Floats32:
        """Score items for users.

        Args:
            users: B user ids.
            items: C item ids.

        Returns:
            [B, C] float32, higher is better.
        """
        return self.factors.score(users, items)

    @abstractmethod
    def _build_model(
        self, pairs: InteractionPairs, features: NDArray[Any] | None, generator: torch.Generator
    ) -> PairwiseModel:
        """Model with the initial vectors."""

    def _train_epoch(
        self,
        vectors: PairwiseModel,
        optimizer: torch.optim.Optimizer,
        pairs: InteractionPairs,
        rng: np.random.Generator,
    ) -> None:
        """Train one epoch."""
        for users, better, worse in pairs.sample_triplets(rng, self.batch_size):
            margin_B, squares_B = vectors(
                *(torch.from_numpy(ids).to(self.device) for ids in (users, better, worse))
            )
            loss = bpr_loss(margin_B) + self.regularization / 2 * squares_B.mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()


def bpr_loss(margin: Tensor) -> Tensor:
    """Mean of -log sigmoid(margin), numerically stable for any margin.

    Args:
        margin: [B] score of the chosen item minus that of the other.

    Returns:
        Scalar loss.

    Example:
        >>> bpr_loss(torch.tensor([0.0])).item()  # log 2
        0.6931471824645996
    """
    return nn.functional.softplus(-margin).mean()


@dataclass(frozen=True, eq=False)
class InteractionPairs:
    """Interactions with known items, and the items that negatives are sampled from.

    Args:
        pair_keys: [n] user * I + item of each interaction with a known item, ascending.
        known_items_W: [W] ids that negatives are sampled from.
        num_users: U.
        num_items: I.
    """

    pair_keys: Ints
    known_items_W: Ints
    num_users: int
    num_items: int

    @classmethod
    def from_interactions(cls, interactions: sparse.csr_array, known: Ints) -> InteractionPairs:
        """Take the interactions with known items.

        Args:
            interactions: [U, I], a stored entry where the user chose the item.
            known: [W] ids of the known items.
        """
        pairs = interactions.tocoo()
        kept = np.isin(pairs.col, known)
        keys = pairs.row[kept].astype(np.int64) * interactions.shape[1] + pairs.col[kept]
        return cls(np.unique(keys), np.unique(known), *interactions.shape)

    @property
    def users(self) -> Ints:
        """[n] user of each interaction, ascending."""
        return self.pair_keys // self.num_items

    @property
    def items(self) -> Ints:
        """[n] item of each interaction, ascending within a user."""
        return self.pair_keys % self.num_items

    def init_vectors(self, dim: int, generator: torch.Generator) -> tuple[nn.Parameter, nn.Parameter]:
        """Random initial user vectors [U, dim] and item vectors [I, dim].

        Users without interactions and items that are not known get zero vectors, which training never
        changes; random ones would rank them at random.

        Args:
            dim: width of the vectors.
            generator: random generator.
        """
        users = INIT_STD * torch.randn(self.num_users, dim, generator=generator)
        items = INIT_STD * torch.randn(self.num_items, dim, generator=generator)
        users[np.setdiff1d(np.arange(self.num_users), self.users)] = 0
        items[np.setdiff1d(np.arange(self.num_items), self.known_items_W)] = 0
        return nn.Parameter(users), nn.Parameter(items)

    def sample_triplets(self, rng: np.random.Generator, batch_size: int) -> Iterator[tuple[Ints, Ints, Ints]]:
        """Sample one epoch of batches: users, items they chose, and known items they did not choose.

        Each interaction occurs at most once; it is left out if no negative is found after several draws, for
        a user who chose nearly every known item.

        Args:
            rng: random generator.
            batch_size: triplets per batch, the last batch may be smaller.

        Yields:
            Users, positive items and negative items, each [batch_size].

        Raises:
            InputError: no negative was found for any interaction.
        """
        keys = rng.permutation(self.pair_keys)
        users = keys // self.num_items
        worse = rng.choice(self.known_items_W, len(keys))
        clashing = np.flatnonzero(self._is_interaction(users, worse))
        for _ in range(_MAX_REDRAWS):
            worse[clashing] = rng.choice(self.known_items_W, len(clashing))
            clashing = clashing[self._is_interaction(users[clashing], worse[clashing])]
        left = np.delete(np.arange(len(keys)), clashing)
        if not len(left):
            raise InputError("BPR: every user chose every known item, expected some to compare with")
        for start in range(0, len(left), batch_size):
            rows = left[start : start + batch_size]
            yield users[rows], keys[rows] % self.num_items, worse[rows]

    def _is_interaction(self, users: Ints, items: Ints) -> NDArray[np.bool_]:
        wanted = users * self.num_items + items
        indices = np.searchsorted(self.pair_keys, wanted).clip(max=len(self.pair_keys) - 1)
        return self.pair_keys[indices] == wanted


@torch.no_grad()
def _to_factors(vectors: PairwiseModel) -> Factors:
    users, items, bias = (part.cpu().numpy().copy() for part in vectors.factors())
    return Factors(users, items, bias)
