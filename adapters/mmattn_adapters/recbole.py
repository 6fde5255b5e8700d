"""RecBole: our item tower as one of its models, and our item vectors for its own models.

RecBole 1.2.1 needs numpy 1, so it wants an environment of its own: `make test-hosts` builds one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.utils import InputType
from torch import Tensor

from mmattn import schema
from mmattn.config import FusionConfig
from mmattn.encoders.base import Encoder
from mmattn.encoders.model_inputs import ModelInputs
from mmattn.encoders.tabular.tabular import Tabular
from mmattn.encoders.text.tiny_text import TinyText
from mmattn.errors import InputError, did_you_mean
from mmattn.files import atomic_path
from mmattn.model.build import build_item_tower
from mmattn_adapters.two_tower import TwoTower

__all__ = ["TowerConfig", "TowerRecommender", "dataset_contents", "item_ids", "write_preload"]


@dataclass(frozen=True)
class TowerConfig:
    """What stands under `mmattn` in RecBole's configuration.

    Args:
        text_fields: item fields that are read as text.
        categorical_fields: item fields whose values are categories.
        dim: width of the user vectors; an item vector is twice as wide.
        use_item_embeddings: learn a vector of each item with a training interaction, beside its content.
        item_embedding_dropout: share of the items whose learned vector is dropped in a training step.
        modality_dropout: probability of dropping a modality of an item in a training step.
        dropout: probability of dropping a component of a user vector in training.
        fusion: the core.
    """

    text_fields: tuple[str, ...] = ()
    categorical_fields: tuple[str, ...] = ()
    dim: int = 64
    use_item_embeddings: bool = True
    item_embedding_dropout: float = 0.1
    modality_dropout: float = 0.1
    dropout: float = 0.5
    fusion: FusionConfig = field(default_factory=lambda: FusionConfig(dim=32, width=32, expansion=1.0))


class TowerRecommender(GeneralRecommender):
    """Two towers over the items' content as a RecBole model, trained by RecBole's own `Trainer`.

    A user is the items of the training interactions, see `mmattn_adapters.two_tower`. A batch's pairs are
    taken out of their users' histories and found again among all items by a softmax, so there are no
    negatives to draw, and batches should be large, but hold at most half of the interactions:

        columns = {"inter": ["user_id", "item_id"], "item": ["item_id", "movie_title", "class"]}
        fields = {"text_fields": ["movie_title"], "categorical_fields": ["class"]}
        settings = {"train_neg_sample_args": None, "train_batch_size": 40_000, "learning_rate": 0.01,
                    "load_col": columns, "mmattn": fields}
        config = Config(model=TowerRecommender, dataset="ml-100k", config_dict=settings)
        train, valid, test = data_preparation(config, create_dataset(config))
        model = TowerRecommender(config, train.dataset).to(config["device"])
        Trainer(config, model).fit(train, valid)

    (`run_recbole` looks among RecBole's own models only.) An item that nobody met in training is scored
    by its content alone; item 0 is RecBole's padding and has none.

    Args:
        config: RecBole's.
        dataset: RecBole's data set of training interactions.
        items: contents and tokens of all items in RecBole's order (see `item_ids`), item 0 empty; left
            out, they come from the item fields that `TowerConfig` names.
        sources: modality -> encoder, or width of the stored tokens, of these items.

    Raises:
        InputError: a field that is not there, or items that do not fit.
    """

    input_type = InputType.LISTWISE

    def __init__(
        self,
        config: Any,
        dataset: Any,
        items: ModelInputs | None = None,
        sources: Mapping[str, Encoder | int] | None = None,
    ):
        super().__init__(config, dataset)
        options = schema.from_mapping(
            TowerConfig, dict(config["mmattn"] or {}), location="recbole config, mmattn"
        )
        if items is None:
            items, sources = dataset_contents(dataset, options.text_fields, options.categorical_fields)
        if len(items) != self.n_items or sources is None:
            raise InputError(
                f"recbole: got {len(items)} items and {'some' if sources else 'no'} sources, expected "
                f"{self.n_items} (the padding and {self.n_items - 1} items) and the encoder or width of each"
            )
        self.items = items
        tower = build_item_tower(
            sources,
            options.fusion,
            dim=2 * options.dim,
            num_ids=self.n_items if options.use_item_embeddings else 0,
            id_dropout=options.item_embedding_dropout,
            modality_dropout=options.modality_dropout,
        )
        tower.calibrate(items)
        self.model = TwoTower(tower, dropout=options.dropout)
        self.histories = dataset.inter_matrix(form="csr").sign()
        self.known = torch.from_numpy(np.flatnonzero(self.histories.getnnz(axis=0)))
        self.candidates: Tensor
        self.register_buffer("candidates", torch.arange(self.n_items) > 0, persistent=False)
        self._vectors: Tensor | None = None  # of all items, while the weights stay as they are

    def train(self, mode: bool = True) -> Self:
        """As in `torch.nn.Module`; RecBole calls it whenever the weights have changed.

        Args:
            mode: training or evaluation.
        """
        self._vectors = None
        return super().train(mode)

    def calculate_loss(self, interaction: Any) -> Tensor:
        """The loss of a batch of pairs.

        Args:
            interaction: a batch of RecBole.

        Raises:
            InputError: the batch holds all interactions, which leaves no history.
        """
        user_U, row_B = interaction[self.USER_ID].unique(return_inverse=True)
        met_UI = self._user_histories(user_U)
        positives_UI = torch.zeros_like(met_UI)
        positives_UI[row_B, interaction[self.ITEM_ID]] = 1.0
        history_UI = (met_UI - positives_UI).clamp_min(0)
        if not bool(history_UI.any()):
            raise InputError(
                f"recbole: a batch of {len(row_B)} pairs is all that its users have, and leaves no history; "
                f"expected a train_batch_size of at most {self.histories.nnz // 2}"
            )
        return self.model.loss(self.items, history_UI, positives_UI, self.candidates)

    def predict(self, interaction: Any) -> Tensor:
        """Scores [B] of pairs.

        Args:
            interaction: a batch of RecBole with B pairs.
        """
        vectors_ID = self._item_vectors()
        users_BD = self.model.user_vectors(vectors_ID, self._user_histories(interaction[self.USER_ID]))
        return (users_BD * self.model.score_vectors(vectors_ID)[interaction[self.ITEM_ID]]).sum(1)

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Scores [B * n_items] of all items for each user, user by user.

        Args:
            interaction: a batch of RecBole with B users.
        """
        return self.model.score(self._item_vectors(), self._user_histories(interaction[self.USER_ID])).view(
            -1
        )

    def _item_vectors(self) -> Tensor:
        if self._vectors is None or self.training:
            self._vectors = self.model.tower.vectors(self.items, known_ids=self.known)
        return self._vectors

    def _user_histories(self, users: Tensor) -> Tensor:
        rows = self.histories[users.cpu().numpy()].toarray().astype(np.float32, copy=False)
        return torch.from_numpy(rows).to(users.device)

    @classmethod
    def example(cls) -> None:
        """Train an epoch on RecBole's own small data set, for `mmattn.testing.plugin_checks`."""
        from recbole.config import Config
        from recbole.data import create_dataset, data_preparation
        from recbole.trainer import Trainer

        config = Config(
            model=cls,
            dataset="ml-100k",
            config_dict={
                "train_neg_sample_args": None,
                "train_batch_size": 40_000,
                "epochs": 1,
                "load_col": {"inter": ["user_id", "item_id"], "item": ["item_id", "movie_title", "class"]},
                "mmattn": {"text_fields": ["movie_title"], "categorical_fields": ["class"]},
            },
        )
        train, valid, _ = data_preparation(config, create_dataset(config))
        model = cls(config, train.dataset).to(config["device"])
        Trainer(config, model).fit(train, valid, saved=False, verbose=False)


def item_ids(dataset: Any) -> list[str]:
    """The items' ids in RecBole's order; the first one is its padding.

    Args:
        dataset: RecBole's.
    """
    return [str(token) for token in dataset.id2token(dataset.iid_field, np.arange(dataset.item_num))]


def dataset_contents(
    dataset: Any, text_fields: Sequence[str] = (), categorical_fields: Sequence[str] = ()
) -> tuple[ModelInputs, dict[str, Encoder | int]]:
    """Contents of a RecBole data set's items, and new encoders for them that learn along.

    Args:
        dataset: with item features.
        text_fields: token or token_seq fields that are read as one text each; modality "text".
        categorical_fields: token or token_seq fields whose values are categories; modality "tags".

    Returns:
        The catalogue in RecBole's order, and modality -> encoder. An item without a value in any of the
        fields does not have the modality; the padding has none.

    Raises:
        InputError: no field, or one that the items do not have.
    """
    if not text_fields and not categorical_fields:
        raise InputError("recbole config, mmattn: got no item field, expected some in texts or tags")
    values = {field: _field_values(dataset, field) for field in (*text_fields, *categorical_fields)}
    contents: dict[str, list[Any]] = {}
    sources: dict[str, Encoder | int] = {}
    if text_fields:
        fields = [[" ".join(row) or None for row in values[field]] for field in text_fields]
        text = TinyText(dim=32, layers=0)
        contents["text"] = [
            text.read(list(item)) if any(item) else None for item in zip(*fields, strict=True)
        ]
        sources["text"] = text
    if categorical_fields:
        rows = [
            dict(zip(categorical_fields, item, strict=True))
            for item in zip(*(values[field] for field in categorical_fields), strict=True)
        ]
        present_rows = [row if any(row.values()) else None for row in rows]
        table = Tabular.fit(
            present_rows, columns=dict.fromkeys(categorical_fields, "categories"), dim=32, modality="tags"
        )
        contents["tags"] = [None if row is None else table.read(row) for row in present_rows]
        sources["tags"] = table
    return ModelInputs(contents=contents), sources


def _field_values(dataset: Any, field: str) -> list[list[str]]:
    """The words or values of a field for each item; RecBole's own number 0 stands for nothing."""
    feature = dataset.get_item_feature()
    if field not in feature.columns or field not in dataset.field2id_token:
        known = [name for name in feature.columns if name in dataset.field2id_token]
        raise InputError(f"recbole: the items have no token field {field!r}.{did_you_mean(field, known)}")
    names = dataset.field2id_token[field]
    numbers = feature[field].view(dataset.item_num, -1).tolist()
    return [[str(names[number]) for number in row if number] for row in numbers]


def write_preload(folder: str | Path, dataset: str, ids: Sequence[str], vectors: Tensor) -> dict[str, Any]:
    """Item vectors as an additional feature file that RecBole's own models preload.

    Args:
        folder: of the data set's atomic files; `DATASET.ent` is written beside them.
        dataset: RecBole's name of the data set.
        ids: I item ids as in the data set's files.
        vectors: [I, D]. Rows of zeros, items without any content, are left out.

    Returns:
        What to put into RecBole's configuration; a model then finds the vectors under
        `dataset.get_preload_weight("ent_id")`, rows of zeros for items that have none.

    Raises:
        InputError: another number of ids than of vectors, or a vector that is not finite.
    """
    if vectors.dim() != 2 or len(ids) != len(vectors) or not bool(vectors.isfinite().all()):
        raise InputError(
            f"write_preload: got {len(ids)} ids and vectors {tuple(vectors.shape)}, expected finite [I, D]"
        )
    lines = [
        f"{name}\t{' '.join(f'{value:.7g}' for value in row)}\n"
        for name, row in zip(ids, vectors.tolist(), strict=True)
        if any(row)
    ]
    with atomic_path(Path(folder) / f"{dataset}.ent") as temporary:
        temporary.write_text("ent_id:token\tent_emb:float_seq\n" + "".join(lines), encoding="utf-8")
    return {
        "additional_feat_suffix": ["ent"],
        "load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"], "ent": ["ent_id", "ent_emb"]},
        "alias_of_item_id": ["ent_id"],
        "preload_weight": {"ent_id": "ent_emb"},
        "embedding_size": vectors.shape[1],
    }
