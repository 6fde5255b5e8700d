"""Columns of a table as tokens: categories, several categories at once, numbers, graph entities."""

from __future__ import annotations

import math
import numbers
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from mmattn.encoders.base import Encoder, EncoderCard, Unreadable
from mmattn.errors import InputError, did_you_mean
from mmattn.types import Tokens

__all__ = ["EncodedRow", "Tabular"]

KINDS = ("category", "categories", "number", "entity", "node")


@dataclass(frozen=True)
class EncodedRow:
    """The present values of one row, decoded: what `Tabular.read` gives.

    Args:
        column: of each value.
        value_index: of each value in the table of embeddings; -1 for a number.
        number: each value standardised; 0 for what is not a number.
        entity: graph entity of each value; -1 for what is none.
    """

    column: tuple[int, ...]
    value_index: tuple[int, ...]
    number: tuple[float, ...]
    entity: tuple[int, ...]


class Tabular(Encoder):
    """One token for each value of a table row that is there; trained with the rest.

    Kinds of column: "category" (one value), "categories" (a list of values, one token each), "entity"
    (one or several whole numbers that name nodes of a knowledge graph; their tokens carry `entity`),
    "node" (the node that the row itself is: all rows share one learned vector, so that new ones have it too,
    and the token carries `entity`, by which edges find it), and "number" (standardised, then periodic
    features of learned frequencies and a linear layer).
    A value that was not seen in training, None and NaN are absent: no token. The position of a
    token is its column. Columns that are not named are left alone.

    Paper: Gorishniy et al. 2022, "On Embeddings for Numerical Features in Tabular Deep Learning",
    arXiv:2203.05556 (the periodic features).

    Args:
        columns: name -> {"kind": ..., "values": [...]}, or {"kind": "number", "mean": m, "std": s}.
            `Tabular.fit` works these out from training data.
        dim: width D of the tokens.
        frequencies: periodic features of a number.
        modality: name of the modality in the tokens.

    Raises:
        InputError: a column's description does not fit its kind.
        Unreadable: a content is not a mapping, or a value is not of its column's kind.

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
        self.columns = {name: _validate_column(name, spec) for name, spec in columns.items()}
        if not self.columns:
            raise InputError("tabular: got no columns, expected at least one")
        self.dim = dim
        self.frequencies = frequencies
        self.modality = modality
        self._value_index: dict[str, dict[Any, int]] = {}  # column -> value -> row of the table
        total = 0
        for name, spec in self.columns.items():
            values = [None] if spec["kind"] == "node" else spec.get("values", [])
            self._value_index[name] = {value: total + index for index, value in enumerate(values)}
            total += len(values)
        self._has_entities = any(spec["kind"] in ("entity", "node") for spec in self.columns.values())
        self.value_embedding = nn.Embedding(total, dim)
        self.column_embedding = nn.Embedding(len(self.columns), dim)
        self.number_features = PeriodicFeatures(len(self.columns), frequencies, dim)
        # Tokens start with length about 1, and alike only where their values are.
        if total <= dim:
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
        """An encoder whose vocabularies, means and deviations come from training rows.

        Args:
            contents: rows of the training data, and of nothing else.
            columns: name -> kind, or name -> {"kind": kind}.
            min_count: how often a value must occur to be known.
            idf_scaling: let rare values start with longer vectors (inverse document frequency), for columns
                in which sharing a rare value says more than sharing a common one.
            svd_init: where there are more values than coordinates, let the vectors start on the principal axes of
                the training rows and not at random: rows are then alike as their values are, without the
                noise of random vectors. Somewhat shorter rows come of it.
            options: of the constructor.

        Raises:
            InputError: an unknown kind.
            Unreadable: a value is not of its column's kind.
        """
        kinds = {name: spec if isinstance(spec, str) else spec.get("kind") for name, spec in columns.items()}
        for name, kind in kinds.items():
            if kind not in KINDS:
                raise InputError(
                    f"tabular: column {name!r} has kind {kind!r}.{did_you_mean(str(kind), KINDS)}"
                )
        counts: dict[str, Counter[Any]] = {name: Counter() for name in kinds}
        known_rows = [_as_mapping(content) for content in contents if content is not None]
        rows = len(known_rows)
        for row in known_rows:
            for name, kind in kinds.items():
                counts[name].update(_cell_values(name, str(kind), row.get(name)))
        fitted: dict[str, dict[str, Any]] = {}
        for name, kind in kinds.items():
            if kind == "number":
                seen = np.array(sorted(counts[name].elements()) or [0.0])
                fitted[name] = {"kind": kind, "mean": float(seen.mean()), "std": float(seen.std()) or 1.0}
            elif kind == "node":
                fitted[name] = {"kind": kind}
            else:
                known = sorted(value for value, count in counts[name].items() if count >= min_count)
                fitted[name] = {"kind": kind, "values": known}
        encoder = cls(fitted, **options)
        lengths = (
            encoder._idf(counts, rows) if idf_scaling else torch.ones(len(encoder.value_embedding.weight))
        )
        with torch.no_grad():
            encoder.value_embedding.weight *= lengths[:, None]
        if svd_init:
            encoder._init_from_svd(known_rows, lengths)
        return encoder

    def _idf(self, counts: Mapping[str, Counter[Any]], rows: int) -> Tensor:
        """[values], the rarity of each, scaled so that the tokens' mean over the training rows is 1."""
        often = torch.ones(len(self.value_embedding.weight))
        for name, places in self._value_index.items():
            for value, place in places.items():
                often[place] = counts[name].total() if value is None else counts[name][value]
        idf = (rows / often).log() + 1
        return idf * often.sum() / (idf * often).sum()

    @torch.no_grad()
    def _init_from_svd(self, contents: Sequence[Any], lengths: Tensor) -> None:
        """Take the part of vectors of these lengths, without anything in common, that fits into the width.

        A row counts as the sum of its tokens over the root of their number. Of all vectors of this width,
        those on the rows' principal axes bring the rows' inner products nearest to the whole ones.

        Paper: Deerwester et al., "Indexing by Latent Semantic Analysis", 1990.
        """
        if len(self.value_embedding.weight) <= self.dim:
            return  # orthogonal vectors say it all
        cells = [[place for place in self.read(content).value_index if place >= 0] for content in contents]
        row = [number for number, own in enumerate(cells) for _ in own]
        place = [place for own in cells for place in own]
        share = torch.tensor([len(own) ** -0.5 for own in cells for _ in own])
        size = (len(cells), len(lengths))
        with torch.sparse.check_sparse_tensor_invariants(True):
            said_RV = torch.sparse_coo_tensor(torch.tensor([row, place]), share * lengths[place], size)
            said_RV = said_RV.coalesce()
        axes_VD = torch.svd_lowrank(said_RV, q=min(self.dim, *size), niter=6)[2]
        self.value_embedding.weight.zero_()
        self.value_embedding.weight[:, : axes_VD.shape[1]] = lengths[:, None] * axes_VD

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
        content = _as_mapping(content)
        column: list[int] = []
        row: list[int] = []
        number: list[float] = []
        entity: list[int] = []
        for index, (name, spec) in enumerate(self.columns.items()):
            known = self._value_index[name]
            for value in _cell_values(name, spec["kind"], content.get(name)):
                if spec["kind"] == "number":
                    row.append(-1)
                    number.append((value - spec["mean"]) / spec["std"])
                elif (place := None if spec["kind"] == "node" else value) in known:
                    row.append(known[place])
                    number.append(0.0)
                else:
                    continue
                column.append(index)
                entity.append(value if spec["kind"] in ("entity", "node") else -1)
        return EncodedRow(tuple(column), tuple(row), tuple(number), tuple(entity))

    def encode(self, contents: Sequence[Any]) -> Tokens:
        nothing = EncodedRow((), (), (), ())
        cells = [nothing if content is None else self.read(content) for content in contents]

        def joined(field: str, dtype: torch.dtype) -> Tensor:
            flat = [value for cell in cells for value in getattr(cell, field)]
            return torch.tensor(flat, dtype=dtype, device=self.device)

        column_N = joined("column", torch.int64)
        row_N = joined("value_index", torch.int64)
        number_N = joined("number", torch.float32)
        is_number_N = row_N < 0
        values_ND = self.column_embedding(column_N)
        values_ND = values_ND.index_add(
            0, (~is_number_N).nonzero()[:, 0], self.value_embedding(row_N[~is_number_N])
        )
        values_ND = values_ND.index_add(
            0, is_number_N.nonzero()[:, 0], self.number_features(number_N[is_number_N], column_N[is_number_N])
        )
        lengths = torch.tensor([len(cell.column) for cell in cells], dtype=torch.int64, device=self.device)
        return Tokens(
            values=values_ND,
            offsets=torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]),
            modality=torch.zeros_like(column_N),
            position=column_N,
            modalities=(self.modality,),
            entity=joined("entity", torch.int64) if self._has_entities else None,
        )


class PeriodicFeatures(nn.Module):
    """Numbers as sines and cosines of learned frequencies beside the number itself, then a linear layer.

    It starts as random Fourier features: where the result is wide enough to hold them all, the
    likeness of two numbers is at first a Gaussian of their difference.

    Papers: Gorishniy et al., "On Embeddings for Numerical Features in Tabular Deep Learning", 2022;
    Rahimi and Recht, "Random Features for Large-Scale Kernel Machines", 2007 (the start).

    Args:
        columns: each has frequencies and a linear layer of its own.
        frequencies: F, sines and cosines each.
        dim: width D of the result.
        kernel_width: of the first Gaussian, in standard deviations of the column.

    Example:
        >>> import torch
        >>> PeriodicFeatures(3, 4, 8)(torch.tensor([0.5, -1.0]), torch.tensor([0, 2])).shape
        torch.Size([2, 8])
    """

    def __init__(self, columns: int, frequencies: int, dim: int, kernel_width: float = 0.3):
        super().__init__()
        self.frequency = nn.Parameter(torch.randn(columns, frequencies) / (2 * math.pi * kernel_width))
        # The number itself has no part in the likeness at first: its row is zero.
        self.weight = nn.Parameter(torch.zeros(columns, 2 * frequencies + 1, dim))
        for column in self.weight.data:
            column[1:] = nn.init.orthogonal_(torch.empty(2 * frequencies, dim)) * frequencies**-0.5
        self.bias = nn.Parameter(torch.zeros(columns, dim))

    def forward(self, number: Tensor, column: Tensor) -> Tensor:
        """[N, D] from standardised numbers [N] and the column [N] of each."""
        angle_NF = 2 * math.pi * self.frequency[column] * number[:, None]
        features_NW = torch.cat([number[:, None], angle_NF.sin(), angle_NF.cos()], dim=1)
        return torch.einsum("nw,nwd->nd", features_NW, self.weight[column]) + self.bias[column]


def _validate_column(name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    kind = spec.get("kind")
    if kind not in KINDS:
        raise InputError(f"tabular: column {name!r} has kind {kind!r}.{did_you_mean(str(kind), KINDS)}")
    wanted = {"number": {"kind", "mean", "std"}, "node": {"kind"}}.get(str(kind), {"kind", "values"})
    if set(spec) != wanted:
        raise InputError(
            f"tabular: column {name!r} has {sorted(spec)}, expected {sorted(wanted)}; see Tabular.fit"
        )
    if kind == "number" and not (math.isfinite(spec["mean"]) and 0 < spec["std"] < math.inf):
        raise InputError(
            f"tabular: column {name!r} has mean {spec['mean']} and std {spec['std']}, expected numbers"
        )
    if "values" in wanted and len(set(spec["values"])) != len(spec["values"]):
        raise InputError(f"tabular: column {name!r} names a value twice")
    return dict(spec)


def _as_mapping(content: Any) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise Unreadable(f"got {type(content).__name__}, expected a mapping from column to value")
    return content


def _cell_values(name: str, kind: str, value: Any) -> list[Any]:
    """The values of a cell that are there, each once: strings, floats or whole numbers by kind."""
    if kind in ("categories", "entity") and isinstance(value, (list, tuple, set, frozenset, np.ndarray)):
        found = [_cell_value(name, kind, one) for one in value]
    else:
        found = [_cell_value(name, kind, value)]
    return list(dict.fromkeys(one for one in found if one is not None))


def _cell_value(name: str, kind: str, value: Any) -> str | float | int | None:
    if value is None or value == "" or (isinstance(value, numbers.Real) and math.isnan(value)):
        return None
    if kind == "number" and isinstance(value, numbers.Real) and math.isfinite(value):
        return float(value)
    if kind in ("entity", "node") and isinstance(value, numbers.Integral) and int(value) >= 0:
        return int(value)
    if kind in ("category", "categories") and isinstance(value, (str, numbers.Integral)):
        return str(value)
    expected = {
        "number": "a finite number",
        "entity": "a whole number from 0",
        "node": "a whole number from 0",
    }.get(kind, "a string or a whole number")
    raise Unreadable(f"column {name!r}: got {value!r}, expected {expected}")
