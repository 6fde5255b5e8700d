"""Cornac: our two towers as one of its recommenders, with what is absent staying absent.

pip install 'mmattn[cornac]'
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from cornac.eval_methods.base_method import ranking_eval
from cornac.metrics import NDCG
from cornac.models.recommender import MEASURE_DOT, ANNMixin, Recommender
from scipy import sparse
from torch import Tensor

from mmattn.config import FusionConfig
from mmattn.encoders.base import Encoder
from mmattn.encoders.model_inputs import ModelInputs
from mmattn.encoders.text.tiny_text import TinyText
from mmattn.errors import InputError, did_you_mean
from mmattn.model.build import build_item_tower
from mmattn.types import Tokens
from mmattn_adapters.two_tower import TwoTower

__all__ = ["TowerRecommender", "dataset_contents"]

_FUSION = FusionConfig(dim=32, width=32, expansion=1.0)


class TowerRecommender(Recommender, ANNMixin):
    """Two towers over the items' content as a Cornac model, for `cornac.Experiment`.

    A user is the items of the training ratings, see `mmattn_adapters.two_tower`; nothing is learned about
    single users. Items come with Cornac's own modalities (`item_text`, `item_image`, `item_feature`), with
    `contents`, or with both. Every item is scored, those that came with the test set as well; one that has
    neither content nor a training rating is given the lowest score, as Cornac does.

    In Cornac 3.0.1 an item without a row in a modality gets another item's row. Here it has none.

    Args:
        name: in Cornac's tables.
        contents: modality -> item id -> its content: what the modality's encoder reads, or, without an
            encoder, an array of tokens, [W] or [T, W]. Items that are left out do not have the modality.
        encoders: modality -> encoder that learns along; each `fit` starts from a copy of it.
        dim: width of the user vectors; an item vector is twice as wide.
        use_item_embeddings: learn a vector of each item with a training rating, beside its content.
        item_embedding_dropout: share of the items whose learned vector is dropped in a training step.
        modality_dropout: probability of dropping a modality of an item in a training step.
        dropout: probability of dropping a component of a user vector in training.
        fusion: the core's configuration.
        hidden_fraction: share of each user's items that a training step hides and finds again.
        epochs: at most.
        users_per_batch: users a step.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        patience: epochs without a better NDCG@20 on the validation set, where there is one, after which
            training stops and the best epoch's weights come back; 0 trains for all epochs.
        seed: of everything random.
        trainable: as in Cornac.
        verbose: as in Cornac.

    Raises:
        InputError: in `fit`: no item has any content, contents that do not fit their encoders, or other
            items than a model that is not trained again knows.

    Example:
        >>> from cornac.data import Dataset
        >>> ratings = [(user, (user * 3 + step) % 7, 1.0) for user in range(11) for step in range(3)]
        >>> texts = {item: f"film {item}" for item in range(6)}  # item 6 has none
        >>> model = TowerRecommender(contents={"text": texts}, encoders={"text": TinyText(dim=8)}, epochs=2)
        >>> model.fit(Dataset.from_uir(ratings)).score(0).shape
        (7,)
    """

    def __init__(
        self,
        name: str = "mmattn",
        contents: Mapping[str, Mapping[Any, Any]] | None = None,
        encoders: Mapping[str, Encoder] | None = None,
        dim: int = 64,
        use_item_embeddings: bool = True,
        item_embedding_dropout: float = 0.2,
        modality_dropout: float = 0.1,
        dropout: float = 0.5,
        fusion: FusionConfig = _FUSION,
        hidden_fraction: float = 0.5,
        epochs: int = 50,
        users_per_batch: int = 512,
        learning_rate: float = 0.01,
        weight_decay: float = 0.1,
        patience: int = 0,
        seed: int = 0,
        trainable: bool = True,
        verbose: bool = False,
    ):
        super().__init__(name=name, trainable=trainable, verbose=verbose)
        self.contents = contents
        self.encoders = encoders
        self.dim = dim
        self.use_item_embeddings = use_item_embeddings
        self.item_embedding_dropout = item_embedding_dropout
        self.modality_dropout = modality_dropout
        self.dropout = dropout
        self.fusion = fusion
        self.hidden_fraction = hidden_fraction
        self.epochs = epochs
        self.users_per_batch = users_per_batch
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.patience = patience
        self.seed = seed
        self.model: TwoTower | None = None

    def fit(self, train_set: Any, val_set: Any = None) -> TowerRecommender:
        """Fit to a `cornac.data.Dataset`, with early stopping where there is a validation set.

        A model that was loaded, and is not `trainable`, takes the data set's ratings as histories only.

        Args:
            train_set: a `cornac.data.Dataset`.
            val_set: the same for early stopping; None without.

        Raises:
            InputError: another number of items than the model was trained with.
        """
        super().fit(train_set, val_set)
        self._histories = _binary_matrix(train_set, self.total_items)
        if self.trainable or self.model is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                self._items, sources = self._catalogue(train_set)
                self.model = self._build_model(sources)
                self._train(train_set, val_set)
            self._trained_on = list(train_set.iid_map)
        elif self._trained_on != list(train_set.iid_map):
            raise InputError(
                f"cornac: got {self.total_items} items to score without training, expected the "
                f"{len(self._trained_on)} of the training, in their order"
            )
        self._cache_vectors()
        return self

    def score(self, user_idx: int, item_idx: int | None = None) -> Any:
        """Scores of all items, [total_items], or of one; a user unknown to training has no history.

        Args:
            user_idx: index of the user.
            item_idx: index of the item; None for all.
        """
        user = self._user_vectors[user_idx] if self.knows_user(user_idx) else self._empty_history_vector
        scores = self._item_score_vectors @ user
        scores = np.where(self._items_without_anything, scores.min(), scores)
        return scores if item_idx is None else scores[item_idx]

    def monitor_value(self, train_set: Any, val_set: Any) -> float | None:
        """NDCG@20 on the validation set; None without one.

        Args:
            train_set: a `cornac.data.Dataset`.
            val_set: the same for early stopping.
        """
        if val_set is None:
            return None
        self._cache_vectors()
        (value,), _ = ranking_eval(self, [NDCG(k=20)], train_set, val_set)
        return float(value)

    def get_vector_measure(self) -> str:
        """Scores are inner products."""
        return MEASURE_DOT

    def get_user_vectors(self) -> np.ndarray:
        """[num_users, dim]."""
        return self._user_vectors

    def get_item_vectors(self) -> np.ndarray:
        """[total_items, dim]; zeros for an item of which nothing is known, which `score` puts last."""
        return self._item_score_vectors

    # --- fitting ----------------------------------------------------------------------------------

    def _catalogue(self, train_set: Any) -> tuple[ModelInputs, dict[str, Encoder | int]]:
        """All items in Cornac's order, and modality -> encoder or width."""
        contents = {**dataset_contents(train_set), **(self.contents or {})}
        if not any(contents.values()):
            raise InputError(
                "cornac: got no content of any item, expected some in `contents` or in the data's item_text, "
                "item_image or item_feature"
            )
        encoders = copy.deepcopy(dict(self.encoders or {}))
        if "text" in contents and "text" not in encoders and "text" not in (self.contents or {}):
            encoders["text"] = TinyText(dim=32, layers=0)
        for name in encoders:
            if name not in contents:
                raise InputError(f"cornac: got an encoder of {name!r}.{did_you_mean(name, contents)}")
        read: dict[str, list[Any]] = {}
        stored: dict[str, Tokens] = {}
        for name, by_item in contents.items():
            results = [by_item.get(item) for item in train_set.iid_map]
            if name in encoders:
                read[name] = [None if entry is None else encoders[name].read(entry) for entry in results]
            else:
                stored[name] = _stack_tokens(name, results)
        sources: dict[str, Encoder | int] = {name: encoders.get(name, 0) for name in contents}
        sources |= {name: tokens.dim for name, tokens in stored.items()}
        return ModelInputs(stored, read), sources

    def _build_model(self, sources: Mapping[str, Encoder | int]) -> TwoTower:
        tower = build_item_tower(
            sources,
            self.fusion,
            dim=2 * self.dim,
            num_ids=self.total_items if self.use_item_embeddings else 0,
            id_dropout=self.item_embedding_dropout,
            modality_dropout=self.modality_dropout,
        )
        tower.calibrate(self._items, self._known_items())
        return TwoTower(tower, self.dropout)

    def _train(self, train_set: Any, val_set: Any) -> None:
        assert self.model is not None
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )
        best = None
        for _ in range(self.epochs):
            self.model.train()
            for history, positives in self._batches():
                loss = self.model.loss(self._items, history, positives, self._has_rating())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if self.patience and val_set is not None:
                stop = self.early_stop(train_set, val_set, patience=self.patience)
                if self.wait == 0:
                    best = copy.deepcopy(self.model.state_dict())
                if stop:
                    break
        if best is not None:
            self.model.load_state_dict(best)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Histories and what is hidden from them, [U, I] each, for users with at least two items."""
        able = torch.from_numpy(np.flatnonzero(np.diff(self._histories.indptr) > 1))
        for users in able[torch.randperm(len(able))].split(self.users_per_batch):
            met_UI = self._user_histories(users.numpy())
            hidden_UI = met_UI * (torch.rand(met_UI.shape) < self.hidden_fraction)
            yield met_UI - hidden_UI, hidden_UI

    def _user_histories(self, users: np.ndarray) -> Tensor:
        return torch.from_numpy(self._histories[users].toarray())

    def _has_rating(self) -> Tensor:
        """[I] True for items with a training rating: others are no candidates in training."""
        return torch.from_numpy(np.bincount(self._histories.indices, minlength=self.total_items) > 0)

    def _known_items(self) -> Tensor:
        return self._has_rating().nonzero()[:, 0]

    # --- what scoring needs -----------------------------------------------------------------------

    @torch.no_grad()
    def _cache_vectors(self) -> None:
        assert self.model is not None
        model = self.model.eval()
        vectors = model.tower.vectors(self._items, known_ids=self._known_items())
        blocks = torch.arange(self._histories.shape[0]).split(self.users_per_batch)
        users = [model.user_vectors(vectors, self._user_histories(block.numpy())) for block in blocks]
        self._user_vectors = torch.cat(users).numpy()
        self._empty_history_vector = model.user_vectors(vectors, torch.zeros(1, len(vectors)))[0].numpy()
        self._item_score_vectors = model.score_vectors(vectors).numpy()
        self._items_without_anything = ~vectors.any(dim=1).numpy()

    @classmethod
    def example(cls) -> None:
        """Trains on eleven users, for `mmattn.testing.plugin_checks.check_adapter`."""
        from cornac.data import Dataset

        ratings = [(user, (user * 3 + step) % 7, 1.0) for user in range(11) for step in range(3)]
        texts = {item: f"film {item}" for item in range(6)}
        model = cls(contents={"text": texts}, encoders={"text": TinyText(dim=8)}, dim=4, epochs=1)
        model.fit(Dataset.from_uir(ratings)).recommend(3, k=2)


def dataset_contents(dataset: Any) -> dict[str, dict[Any, Any]]:
    """What a Cornac data set says of its items: modality -> item id -> a text or an array [W].

    Cornac puts rows in the order of the items and leaves another item's row where an item has none;
    `ids` tells which row is whose.

    Args:
        dataset: a `cornac.data.Dataset` of an evaluation method, with `item_text` (then modality "text"),
            `item_image` ("image") or `item_feature` ("feature").
    """
    results: dict[str, dict[Any, Any]] = {}
    for name, values in (("text", "corpus"), ("image", "features"), ("feature", "features")):
        modality = getattr(dataset, f"item_{name}", None)
        if modality is None or (rows := getattr(modality, values)) is None:
            continue
        owners: Sequence[Any] = list(dataset.iid_map) if modality.ids is None else modality.ids
        pairs = zip(dataset.iid_map, owners, rows, strict=False)  # rows beyond the items belong to none
        results[name] = {item: row for item, owner, row in pairs if item == owner}
    return results


def _binary_matrix(dataset: Any, num_items: int) -> sparse.csr_array:
    """[num_users, items] float32 ones where there is a rating."""
    met = dataset.csr_matrix.tocsr()
    return sparse.csr_array(
        (np.ones(len(met.indices), np.float32), met.indices, met.indptr), shape=(met.shape[0], num_items)
    )


def _stack_tokens(name: str, result: Sequence[Any]) -> Tokens:
    """Arrays of tokens, [W] or [T, W], None where absent, as one batch."""
    tokens = [
        torch.as_tensor(np.atleast_2d(entry), dtype=torch.float32) for entry in result if entry is not None
    ]
    if not tokens or len({entry.shape[1:] for entry in tokens}) > 1 or tokens[0].dim() != 2:
        raise InputError(
            f"cornac: got {name!r} of shapes {sorted({tuple(rows.shape) for rows in tokens})[:5]}, expected "
            "arrays [W] or [T, W] of one width W, or an encoder for what is no array"
        )
    rows = iter(tokens)
    nothing = tokens[0][:0]
    return Tokens.from_sequences([nothing if entry is None else next(rows) for entry in result], name)
