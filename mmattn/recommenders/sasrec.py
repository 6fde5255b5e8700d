"""SASRec, the sequential baseline: the sequence tower with learned item and position embeddings only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from torch import Tensor, nn

from mmattn.array_types import Floats32
from mmattn.data.histories import Histories
from mmattn.errors import InputError
from mmattn.heads.recommendation.next_item_loss import full_softmax
from mmattn.heads.recommendation.sequence_steps import (
    SequenceSteps,
    final_states,
    history_steps,
    sample_training_steps,
)
from mmattn.heads.recommendation.user_towers import SequenceTower

__all__ = ["SASRec"]

ValidateFn = Callable[[Callable[[ArrayLike, ArrayLike], Floats32]], float]

PROGRAM = "Program(score=dot(), mask=causal, norm=softmax())"


class SASRec:
    """Causal self-attention over the items of a history, with learned item and position embeddings.

    W. Kang, J. McAuley, Self-Attentive Sequential Recommendation, ICDM 2018,
    https://arxiv.org/abs/1808.09781, with cross-entropy over all known items instead of one sampled negative
    (A. Klenitskiy, A. Vasilev, Turning Dross Into Gold Loss: is BERT4Rec really better than SASRec?, RecSys
    2023, https://arxiv.org/abs/2309.07602), which makes it much stronger. A user without a history is scored
    from the learned start token. Items without interactions score lowest.

    Args:
        dim: width of the vectors.
        layers: attention layers.
        heads: attention heads per layer.
        max_length: number of most recent events used of each history.
        dropout: dropout rate on items and in the layers.
        epochs: maximum number of epochs.
        learning_rate: learning rate of Adam.
        batch_size: histories per step.
        validate_fn: computes a validation metric (higher is better) from a `score` function. If given, the
            state of the best epoch is kept and training stops early; None trains all epochs.
        validate_every: epochs between two validations.
        patience: validations without improvement before training stops.
        seed: seed of the initial weights and of the batches.
        device: device of the training.

    Raises:
        InputError: an argument out of range.

    Example:
        >>> event = np.arange(35)  # 35 users go round a ring of 7, five items each
        >>> users, items = np.repeat(event, 5), (event[:, None] + np.arange(5)).ravel() % 7
        >>> turns = Histories.from_events(users, items, np.arange(175.0), num_users=35)
        >>> model = SASRec(dim=8, layers=1, epochs=60, learning_rate=0.03, dropout=0.0)
        >>> scores = model.fit(turns.to_sparse(7), turns).score([0], range(7))  # after 3, 4 comes 5
        >>> int(scores.argmax())
        5
    """

    def __init__(
        self,
        dim: int = 64,
        layers: int = 2,
        heads: int = 1,
        max_length: int = 200,
        dropout: float = 0.2,
        epochs: int = 50,
        learning_rate: float = 1e-3,
        batch_size: int = 128,
        validate_fn: ValidateFn | None = None,
        validate_every: int = 5,
        patience: int = 2,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ):
        sizes = {"dim": dim, "max_length": max_length, "epochs": epochs, "batch_size": batch_size}
        for name, value in sizes.items():
            if value < 1:
                raise InputError(f"SASRec: {name}: got {value}, expected a number from 1")
        self.dim, self.layers, self.heads = dim, layers, heads
        self.max_length, self.dropout = max_length, dropout
        self.epochs, self.learning_rate, self.batch_size = epochs, learning_rate, batch_size
        self.validate_fn, self.validate_every, self.patience = validate_fn, validate_every, patience
        self.seed, self.device = seed, torch.device(device)

    def fit(
        self,
        interactions: sparse.csr_array,
        features: Histories | None = None,
        known: ArrayLike | None = None,
    ) -> Self:
        """Train on histories.

        Args:
            interactions: [U, I]; only I is used.
            features: histories with the same interactions in order of time.
            known: not used; the items of the histories are the known ones.

        Raises:
            InputError: no histories, or histories without events.
        """
        if features is None or not len(features.items):
            raise InputError("SASRec.fit: got no histories, expected interactions in the order of time")
        self._histories, item_count = features, interactions.shape[1]
        self._known_W = np.unique(features.items)
        place_I = np.full(item_count, -1)
        place_I[self._known_W] = np.arange(len(self._known_W))
        self._column_I = place_I
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            net = _Net(len(self._known_W), self).to(self.device)
            optimizer = torch.optim.Adam(net.parameters(), lr=self.learning_rate, betas=(0.9, 0.98))
            generator = torch.Generator().manual_seed(self.seed)
            self._train(net, optimizer, generator)
        return self

    def _train(self, net: _Net, optimizer: torch.optim.Optimizer, generator: torch.Generator) -> None:
        best, waited = -np.inf, 0
        for epoch in range(1, self.epochs + 1):
            net.train()
            for users in self._batches(generator):
                steps = sample_training_steps(
                    self._histories, users, self._column_I, max_length=self.max_length, generator=generator
                ).to(self.device)
                loss = full_softmax(net(steps) @ net.items.weight.T, steps.targets)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
            if self.validate_fn is None or (epoch % self.validate_every and epoch != self.epochs):
                continue
            vectors = self._export_vectors(net)
            value = self.validate_fn(partial(self._score, vectors))
            waited = 0 if value > best else waited + 1
            if not waited:
                best, self.best_epoch, self._vectors = value, epoch, vectors
            elif waited >= self.patience:
                break
        if self.validate_fn is None:
            self.best_epoch, self._vectors = self.epochs, self._export_vectors(net)

    def _batches(self, generator: torch.Generator) -> Iterator[NDArray[np.int64]]:
        active = np.flatnonzero(self._histories.lengths)
        order = active[torch.randperm(len(active), generator=generator).numpy()]
        yield from np.array_split(order, -(-len(order) // self.batch_size))

    @torch.inference_mode()
    def _export_vectors(self, net: _Net) -> tuple[Floats32, Floats32]:
        """[U, dim] states after the whole histories, and [W, dim] item vectors."""
        net.eval()
        recent, states = self._histories.last_events(self.max_length), []
        for users in np.array_split(np.arange(len(recent)), -(-len(recent) // 256)):
            some = recent.slice_events(users, np.zeros(len(users), np.int64), recent.lengths[users])
            steps = history_steps(some, self._column_I).to(self.device)
            states.append(final_states(steps, net(steps)))
        return torch.cat(states).cpu().numpy(), net.items.weight.cpu().numpy().copy()

    def score(self, users: ArrayLike, items: ArrayLike) -> Floats32:
        """Score items for users.

        Args:
            users: B user ids.
            items: C item ids.

        Returns:
            [B, C] float32, higher is better; items without interactions score below all others.
        """
        return self._score(self._vectors, users, items)

    def _score(self, vectors: tuple[Floats32, Floats32], users: ArrayLike, items: ArrayLike) -> Floats32:
        users_UK, items_WK = vectors
        column_C = self._column_I[np.asarray(items, np.int64)]
        scores_UC = users_UK[np.asarray(users, np.int64)] @ items_WK[column_C].T
        # Items without interactions have no vector: rank them below all known items.
        lowest_U1 = (users_UK @ items_WK.T).min(1)[np.asarray(users, np.int64), None] - 1
        return np.where(column_C >= 0, scores_UC, lowest_U1).astype(np.float32)


class _Net(nn.Module):
    def __init__(self, num_items: int, config: SASRec):
        super().__init__()
        self.items = nn.Embedding(num_items, config.dim)
        nn.init.normal_(self.items.weight, std=config.dim**-0.5)
        self.tower = SequenceTower(
            config.dim, config.layers, config.heads, PROGRAM, config.max_length,
            positional_encoding=True, dropout=config.dropout, expansion=1.0,
        )  # fmt: skip

    def forward(self, steps: SequenceSteps) -> Tensor:
        """[N, dim] state after each step."""
        return self.tower(steps, self.items.weight)
