"""Columns of a table as tokens: categories, lists of categories, numbers, graph entities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from mmattn.encoders.base import Encoder, EncoderCard
from mmattn.encoders.tabular.columns import (
    as_row,
    check_column,
    check_kind,
    count_values,
    fit_columns,
    parse_cell,
)
from mmattn.encoders.tabular.periodic_features import PeriodicFeatures
from mmattn.errors import InputError
from mmattn.types import Tokens

__all__ = ["EncodedRow", "Tabular"]


@dataclass(frozen=True)
class EncodedRow:
    """The present values of one row, decoded; the result of `Tabular.read`.

    Args:
        column: column index of each value.
        value_index: row of each value in the embedding table; -1 for a number.
        number: each number, standardised; 0 for values that are not numbers.
        entity: graph entity of each value; -1 for values without one.
    """

    column: tuple[int, ...]
    value_index: tuple[int, ...]
    number: tuple[float, ...]
    entity: tuple[int, ...]


class Tabular(Encoder):
    """Encode each present value of a table row as one token; trained with the model.

    Kinds of column:

    * "category": one value;
    * "categories": a list of values, one token each;
    * "number": standardised, then periodic features of learned frequencies and a linear layer;
    * "entity": one or several integers, nodes of a knowledge graph; their tokens carry `entity`;
    * "node": the graph node of the row itself. All rows share one learned vector, so that new rows have it
      too, and the token carries `entity`, through which graph edges find it.

    None, NaN and values not seen in training are absent: no token. The position of a token is its column.
    Columns that are not named are ignored.

    Paper: Gorishniy et al. 2022, "On Embeddings for Numerical Features in Tabular Deep Learning",
    arXiv:2203.05556 (the periodic features).

    Args:
        columns: name -> {"kind": ..., "values": [...]}, or {"kind": "number", "mean": m, "std": s}.
            `Tabular.fit` derives these from training data.
        dim: width D of the tokens.
        frequencies: number of periodic features of a number.
        modality: name of the modality in the tokens.

    Raises:
        InputError: a column's specification does not fit its kind.

    Example:
        >>> rows = [{"year": 1995, "genres": ["Comedy", "Drama"]}, {"year": 1982, "genres": ["Drama"]}]
        >>> encoder = Tabular.fit(rows, {"year": "number", "genres": "categories"}, dim=8)
        >>> tokens = encoder([rows[0], {"year": None, "genres": ["Western"]}])
        >>> tokens.lengths.tolist(), tokens.position.tolist()
        ([3, 0], [0, 1, 1])
    """

    name = "tabular"

    def __init__(
        self,
        columns: Mapping[str, Mapping[str, Any]],
        *,
        dim: int = 64,
        frequencies: int = 16,
        modality: str = "tabular",
    ):
        super().__init__()
        self.columns = {name: check_column(name, spec) for name, spec in columns.items()}
        if not self.columns:
            raise InputError("tabular: got no columns, expected at least one")
        self.dim = dim
        self.frequencies = frequencies
        self.modality = modality
        self._value_index: dict[str, dict[Any, int]] = {}  # column -> value -> row of the embedding table
        num_values = 0
        for name, spec in self.columns.items():
            values = [None] if spec["kind"] == "node" else spec.get("values", [])
            self._value_index[name] = {value: num_values + index for index, value in enumerate(values)}
            num_values += len(values)
        self._has_entities = any(spec["kind"] in ("entity", "node") for spec in self.columns.values())
        self.value_embedding = nn.Embedding(num_values, dim)
        self.column_embedding = nn.Embedding(len(self.columns), dim)
        self.number_features = PeriodicFeatures(len(self.columns), frequencies, dim)
        # Tokens start with length about 1, and similar only where their values are.
        if num_values <= dim:
            nn.init.orthogonal_(self.value_embedding.weight)
        else:
            nn.init.normal_(self.value_embedding.weight, std=dim**-0.5)
        nn.init.zeros_(self.column_embedding.weight)

    @classmethod
    def fit(
        cls,
        contents: Iterable[Mapping[str, Any] | None],
        columns: Mapping[str, str | Mapping[str, Any]],
        *,
        min_count: int = 1,
        idf_scaling: bool = False,
        svd_init: bool = False,
        **options: Any,
    ) -> Self:
        """Build an encoder with the vocabularies, means and deviations of training rows.

        Args:
            contents: rows of the training data only.
            columns: name -> kind, or name -> {"kind": kind}.
            min_count: minimum count of a value in the vocabulary.
            idf_scaling: scale initial vectors by inverse document frequency, for columns in which sharing a
                rare value says more than sharing a common one.
            svd_init: with more values than dimensions, start on the principal axes of the training rows
                instead of random vectors: rows are then as similar as their values, without the noise of
                random vectors. Rows become somewhat shorter.
            **options: keyword arguments of the constructor.

        Returns:
            The encoder.

        Raises:
            InputError: an unknown kind.
            Unreadable: a value is not of its column's kind.
        """
        kinds = {
            name: check_kind(name, spec if isinstance(spec, str) else spec.get("kind"))
            for name, spec in columns.items()
        }
        rows = [as_row(content) for content in contents if content is not None]
        counts = count_values(rows, kinds)
        encoder = cls(fit_columns(counts, kinds, min_count), **options)
        scale_V = torch.ones(len(encoder.value_embedding.weight))
        if idf_scaling:
            scale_V = encoder._idf(counts, len(rows))
        with torch.no_grad():
            encoder.value_embedding.weight *= scale_V[:, None]
        if svd_init:
            encoder._init_from_svd(rows, scale_V)
        return encoder

    def _idf(self, counts: Mapping[str, Counter[Any]], num_rows: int) -> Tensor:
        """Inverse document frequencies [V] of the values, scaled to mean 1 over the training tokens."""
        count_V = torch.ones(len(self.value_embedding.weight))
        for name, indices in self._value_index.items():
            for value, index in indices.items():
                count_V[index] = counts[name].total() if value is None else counts[name][value]
        idf_V = (num_rows / count_V).log() + 1
        return idf_V * count_V.sum() / (idf_V * count_V).sum()

    @torch.no_grad()
    def _init_from_svd(self, contents: Sequence[Any], scale_V: Tensor) -> None:
        """Project orthogonal value vectors of the given lengths onto the principal axes of the rows.

        A row is the sum of its tokens over the root of their number. Of all projections to this width, the
        one onto the principal axes preserves the rows' inner products best.

        Paper: Deerwester et al. 1990, "Indexing by Latent Semantic Analysis".
        """
        if len(self.value_embedding.weight) <= self.dim:
            return  # the width holds orthogonal vectors, nothing is lost
        rows = [[index for index in self.read(content).value_index if index >= 0] for content in contents]
        row_N = [row for row, values in enumerate(rows) for _ in values]
        value_N = [index for values in rows for index in values]
        weight_N = torch.tensor([len(values) ** -0.5 for values in rows for _ in values])
        shape = (len(rows), len(scale_V))
        with torch.sparse.check_sparse_tensor_invariants(True):
            rows_RV = torch.sparse_coo_tensor(
                torch.tensor([row_N, value_N]), weight_N * scale_V[value_N], shape
            ).coalesce()
        axes_VD = torch.svd_lowrank(rows_RV, q=min(self.dim, *shape), niter=6)[2]
        self.value_embedding.weight.zero_()
        self.value_embedding.weight[:, : axes_VD.shape[1]] = scale_V[:, None] * axes_VD

    def describe(self) -> EncoderCard:
        return EncoderCard(
            name=self.name,
            modality=self.modality,
            dim=self.dim,
            revision="1",
            preprocessing={"columns": self.columns, "frequencies": self.frequencies},
        )

    def options(self) -> dict[str, Any]:
        return {
            "columns": self.columns,
            "dim": self.dim,
            "frequencies": self.frequencies,
            "modality": self.modality,
        }

    def read(self, content: Any) -> EncodedRow:
        if isinstance(content, EncodedRow):
            return content
        content = as_row(content)
        column: list[int] = []
        value_index: list[int] = []
        number: list[float] = []
        entity: list[int] = []
        for index, (name, spec) in enumerate(self.columns.items()):
            vocabulary = self._value_index[name]
            for value in parse_cell(name, spec["kind"], content.get(name)):
                if spec["kind"] == "number":
                    value_index.append(-1)
                    number.append((value - spec["mean"]) / spec["std"])
                elif (key := None if spec["kind"] == "node" else value) in vocabulary:
                    value_index.append(vocabulary[key])
                    number.append(0.0)
                else:
                    continue
                column.append(index)
                entity.append(value if spec["kind"] in ("entity", "node") else -1)
        return EncodedRow(tuple(column), tuple(value_index), tuple(number), tuple(entity))

    def encode(self, contents: Sequence[Any]) -> Tokens:
        empty = EncodedRow((), (), (), ())
        rows = [empty if content is None else self.read(content) for content in contents]

        def concatenated(field: str, dtype: torch.dtype) -> Tensor:
            values = [value for row in rows for value in getattr(row, field)]
            return torch.tensor(values, dtype=dtype, device=self.device)

        column_N = concatenated("column", torch.int64)
        index_N = concatenated("value_index", torch.int64)
        number_N = concatenated("number", torch.float32)
        is_number_N = index_N < 0
        values_ND = self.column_embedding(column_N)
        values_ND = values_ND.index_add(
            0, (~is_number_N).nonzero()[:, 0], self.value_embedding(index_N[~is_number_N])
        )
        values_ND = values_ND.index_add(
            0, is_number_N.nonzero()[:, 0], self.number_features(number_N[is_number_N], column_N[is_number_N])
        )
        lengths = torch.tensor([len(row.column) for row in rows], dtype=torch.int64, device=self.device)
        return Tokens(
            values=values_ND,
            offsets=torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]),
            modality=torch.zeros_like(column_N),
            position=column_N,
            modalities=(self.modality,),
            entity=concatenated("entity", torch.int64) if self._has_entities else None,
        )
