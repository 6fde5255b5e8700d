from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmattn.encoders.base import Unreadable
from mmattn.encoders.tabular.periodic_features import PeriodicFeatures
from mmattn.encoders.tabular.tabular import Tabular
from mmattn.errors import InputError

ROWS: list[dict[str, Any] | None] = [
    {"year": 1990, "genres": ["Crime", "Drama"], "country": "US", "people": [3, 11], "title": "not a column"},
    {"year": 1994, "genres": ["Drama"], "country": "FR", "people": 3},
    None,
    {"year": 1992, "genres": ["Drama", "Drama", "Western"], "country": None, "people": []},
]
COLUMNS = {"year": "number", "genres": "categories", "country": "category", "people": "entity"}


class TestFit:
    def test_vocabularies_and_scales(self) -> None:
        encoder = Tabular.fit(ROWS, COLUMNS, dim=7)
        assert encoder.columns == {
            "year": {"kind": "number", "mean": 1992.0, "std": pytest.approx(math.sqrt(8 / 3))},
            "genres": {"kind": "categories", "values": ["Crime", "Drama", "Western"]},
            "country": {"kind": "category", "values": ["FR", "US"]},
            "people": {"kind": "entity", "values": [3, 11]},
        }

    def test_rare_values_stay_unknown(self) -> None:
        encoder = Tabular.fit(ROWS, COLUMNS, min_count=2)
        assert encoder.columns["genres"]["values"] == ["Drama"]
        assert encoder.columns["people"]["values"] == [3]

    def test_a_constant_and_an_empty_column(self) -> None:
        encoder = Tabular.fit([{"a": 5}, {"a": 5}], {"a": "number", "b": "category", "c": "number"}, dim=5)
        assert encoder.columns["a"] == {"kind": "number", "mean": 5.0, "std": 1.0}
        assert encoder([{"a": 5, "b": "x", "c": 2.0}]).position.tolist() == [0, 2]


class TestTokens:
    def test_one_a_value_with_its_column_and_entity(self) -> None:
        tokens = Tabular.fit(ROWS, COLUMNS, dim=7)(ROWS)
        assert tokens.lengths.tolist() == [6, 4, 0, 3]
        assert tokens.position.tolist() == [0, 1, 1, 2, 3, 3, 0, 1, 2, 3, 0, 1, 1]
        assert tokens.entity is not None
        assert tokens.entity.tolist() == [-1, -1, -1, -1, 3, 11, -1, -1, -1, 3, -1, -1, -1]

    def test_no_entities_where_no_column_has_them(self) -> None:
        assert Tabular.fit(ROWS, {"year": "number"})(ROWS).entity is None

    def test_values_by_hand(self) -> None:
        encoder = Tabular.fit(ROWS, COLUMNS, dim=7)
        tokens = encoder(ROWS[1:2])
        drama = encoder.column_embedding.weight[1] + encoder.value_embedding.weight[1]
        france = encoder.column_embedding.weight[2] + encoder.value_embedding.weight[3]
        torch.testing.assert_close(tokens.values[1], drama)
        torch.testing.assert_close(tokens.values[2], france)
        z = (1994 - 1992) / math.sqrt(8 / 3)
        year = (
            encoder.column_embedding.weight[0]
            + encoder.number_features(torch.tensor([z]), torch.tensor([0]))[0]
        )
        torch.testing.assert_close(tokens.values[0], year)

    @pytest.mark.parametrize("nothing", [None, float("nan"), "", []])
    def test_what_is_not_there_has_no_token(self, nothing: Any) -> None:
        encoder = Tabular.fit(ROWS, COLUMNS)
        row = dict.fromkeys(["genres", "people"], nothing)
        row |= dict.fromkeys(["year", "country"], None if nothing == [] else nothing)
        assert encoder([row, {}]).lengths.tolist() == [0, 0]

    def test_unknown_values_have_no_token(self) -> None:
        encoder = Tabular.fit(ROWS, COLUMNS)
        assert encoder([{"genres": ["Horror", "Crime"], "people": 99, "country": "DE"}]).lengths.tolist() == [
            1
        ]

    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            ("Heat", "got str, expected a mapping"),
            ({"year": "1995"}, "column 'year': got '1995', expected a finite number"),
            ({"year": math.inf}, "column 'year': got inf, expected a finite number"),
            ({"year": [1995]}, "column 'year': got"),
            ({"genres": {"Drama": 1}}, "column 'genres': got"),
            ({"country": 1.5}, "column 'country': got 1.5, expected a string or a whole number"),
            ({"people": -2}, "column 'people': got -2, expected a whole number from 0"),
            ({"people": "Pacino"}, "column 'people': got 'Pacino'"),
        ],
    )
    def test_unreadable(self, row: Any, reason: str) -> None:
        with pytest.raises(Unreadable, match=reason):
            Tabular.fit(ROWS, COLUMNS)([row])

    def test_numpy_values_are_values(self) -> None:
        encoder = Tabular.fit(ROWS, COLUMNS)
        plain = encoder([{"year": 1990, "people": [3, 11], "genres": ["Drama"]}])
        numpy = encoder(
            [{"year": np.float32(1990), "people": np.array([3, 11]), "genres": np.array(["Drama"])}]
        )
        torch.testing.assert_close(plain.values, numpy.values)


@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=7))
def test_near_numbers_have_near_features(numbers: list[float]) -> None:
    torch.manual_seed(0)
    periodic = PeriodicFeatures(2, 5, 11)
    column = torch.ones(len(numbers), dtype=torch.int64)
    here = periodic(torch.tensor(numbers), column)
    near = periodic(torch.tensor(numbers) + 1e-3, column)
    assert bool(((here - near).norm(dim=1) < 0.02).all())


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "got no columns"),
        ({"a": {"kind": "numbr"}}, "column 'a' has kind 'numbr'. Did you mean 'number'"),
        ({"a": {"kind": "number"}}, r"column 'a' has \['kind'\], expected \['kind', 'mean', 'std'\]"),
        ({"a": {"kind": "number", "mean": 0, "std": 0}}, "mean 0 and std 0"),
        ({"a": {"kind": "category", "values": ["x", "x"]}}, "names a value twice"),
    ],
)
def test_columns_that_do_not_fit(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Tabular(columns)


def test_a_kind_with_a_typing_mistake() -> None:
    with pytest.raises(InputError, match="has kind 'numbr'"):
        Tabular.fit([], {"a": "numbr"})


def test_learns_what_a_column_says() -> None:
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    rows = [
        {"x": float(x), "g": str(g)}
        for x, g in zip(generator.normal(size=97), generator.integers(0, 3, 97), strict=True)
    ]
    wanted = torch.tensor([math.sin(2 * row["x"]) + int(row["g"]) for row in rows])
    encoder = Tabular.fit(rows, {"x": "number", "g": "category"}, dim=13)
    head = torch.nn.Linear(13, 1)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=0.02)
    for _ in range(200):
        tokens = encoder(rows)
        summed = torch.zeros(len(rows), 13).index_add(0, tokens.sample, tokens.values)
        loss = (head(summed)[:, 0] - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05  # the variance of what is wanted is about 1.2


def test_thousands_of_rows_are_quick() -> None:
    generator = np.random.default_rng(0)
    rows = [{"e": generator.integers(0, 500, 10).tolist(), "y": float(y)} for y in range(5000)]
    encoder = Tabular.fit(rows, {"e": "entity", "y": "number"})
    start = time.perf_counter()
    encoder(rows)
    assert time.perf_counter() - start < 3  # a tenth of that where nothing else runs


def test_numbers_start_as_alike_as_a_gaussian_of_their_difference() -> None:
    torch.manual_seed(0)
    numbers = torch.tensor([0.0, 0.15, 0.3, 0.9])
    vectors = PeriodicFeatures(1, 997, 1994, kernel_width=0.3)(numbers, torch.zeros(4, dtype=torch.int64))
    difference = numbers[:, None] - numbers
    expected = torch.exp(-0.5 * (difference / 0.3) ** 2)
    torch.testing.assert_close(vectors @ vectors.T, expected, rtol=0, atol=0.08)


def test_values_start_apart_and_rare_ones_longer() -> None:
    rows = [{"genres": ["Drama", "War"]}, {"genres": ["Drama"]}, {"genres": ["Drama"]}]
    encoder = Tabular.fit(rows, {"genres": "categories"}, dim=7)
    products = encoder.value_embedding.weight @ encoder.value_embedding.weight.T
    torch.testing.assert_close(products, torch.eye(2), rtol=0, atol=1e-5)
    lengths = Tabular.fit(
        rows, {"genres": "categories"}, dim=7, idf_scaling=True
    ).value_embedding.weight.norm(dim=1)
    torch.testing.assert_close(lengths[1] / lengths[0], torch.tensor(3.0).log() + 1)  # idf of 1 in 3
    torch.testing.assert_close((3 * lengths[0] + lengths[1]) / 4, torch.tensor(1.0))


def test_a_node_is_known_by_its_edges_and_not_by_its_vector() -> None:
    rows = [{"node": 3, "around": [11, 7]}, {"node": 5, "around": [11]}]
    columns = {"node": "node", "around": "entity"}
    encoder = Tabular.fit(rows, columns, dim=8, idf_scaling=True)
    assert encoder.columns == {"node": {"kind": "node"}, "around": {"kind": "entity", "values": [7, 11]}}
    tokens = encoder([{"node": 4242, "around": [11, 9]}, {"around": [7]}, rows[0]])  # the first is new
    assert tokens.lengths.tolist() == [2, 1, 3]
    assert tokens.entity is not None
    assert tokens.entity.tolist() == [4242, 11, 7, 3, 11, 7]
    assert torch.equal(tokens.values[0], tokens.values[3])
    assert torch.isfinite(encoder.value_embedding.weight).all()
    again = Tabular(**encoder.options())
    assert again.columns == encoder.columns
    with pytest.raises(Unreadable, match="column 'node': got -1, expected a whole number from 0"):
        encoder.read({"node": -1})


def rows_of_words(rows: int, words: int) -> list[dict[str, Any]]:
    drawn = np.random.default_rng(0).random((rows, words)) < 0.15
    return [{"words": [f"w{word}" for word in np.flatnonzero(group)]} for group in drawn]


def likeness(encoder: Tabular, rows: list[dict[str, Any]]) -> np.ndarray:
    """Inner products of the rows, each the sum of its tokens over the root of their number."""
    tokens = encoder(rows)
    total = tokens.values.new_zeros(len(rows), encoder.dim).index_add(0, tokens.sample, tokens.values)
    pooled = (total / tokens.lengths.clamp_min(1)[:, None].sqrt()).detach().double().numpy()
    return pooled @ pooled.T


def test_vectors_on_the_axes_are_the_best_of_their_width() -> None:
    torch.manual_seed(0)
    rows = rows_of_words(41, 29)
    whole = likeness(
        Tabular.fit(rows, {"words": "categories"}, dim=31, idf_scaling=True), rows
    )  # as wide as needed
    drawn = likeness(Tabular.fit(rows, {"words": "categories"}, dim=13, idf_scaling=True), rows)
    axes = likeness(Tabular.fit(rows, {"words": "categories"}, dim=13, idf_scaling=True, svd_init=True), rows)
    best = np.linalg.eigvalsh(whole)[:-13]  # what no 13 coordinates can say (Eckart and Young)
    assert np.linalg.norm(axes - whole) == pytest.approx(np.linalg.norm(best), rel=0.06)
    assert np.linalg.norm(drawn - whole) > 2 * np.linalg.norm(axes - whole)


def test_axes_change_nothing_where_every_value_has_a_coordinate() -> None:
    rows = rows_of_words(41, 29)
    both = []
    for axes in (False, True):
        torch.manual_seed(0)
        both.append(Tabular.fit(rows, {"words": "categories"}, dim=31, svd_init=axes).value_embedding.weight)
    assert torch.equal(*both)
