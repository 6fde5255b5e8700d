"""The index: ids, filters that still return k, changes, and every wrong input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from mmattn.errors import InputError
from mmattn.retrieval.index import Index

RNG = np.random.default_rng(0)
VECTORS = RNG.standard_normal((101, 7)).astype(np.float32)
NAMES = [f"film-{number}" for number in range(101)]
TABLE = pd.DataFrame(
    {"year": 1950 + np.arange(101) % 53, "genre": ["Comedy", "Drama", None] * 33 + ["War"] * 2}
)
ORIGIN = {"encoder text": "aaaa", "weights": "bbbb"}


def made(**changes: Any) -> Index:
    options: dict[str, Any] = {"ids": NAMES, "metadata": TABLE, "provenance": ORIGIN}
    return Index.build(VECTORS, **{**options, **changes})


def best(query: np.ndarray, rows: np.ndarray, k: int) -> list[str]:
    order = rows[np.argsort(-(VECTORS[rows].astype(np.float64) @ query))]
    return [NAMES[row] for row in order[:k]]


def test_ids_come_back_as_they_were_given() -> None:
    query = VECTORS[5:6]
    assert made().search(query, 3).ids[0].tolist() == best(query[0], np.arange(101), 3)
    assert made(ids=None).search(query, 3).ids.dtype == np.int64
    numbers = np.arange(101)[::-1] * 7
    assert made(ids=numbers).search(query, 1).ids[0, 0] == 7 * (
        100 - NAMES.index(best(query[0], np.arange(101), 1)[0])
    )


def test_a_filter_still_returns_k() -> None:
    index, query = made(), VECTORS[9:10]
    rows = np.flatnonzero((TABLE.genre == "War") | (TABLE.year < 1955))
    assert index.search(query, 9, where="genre == 'War' or year < 1955").ids[0].tolist() == best(
        query[0], rows, 9
    )
    some = NAMES[40:60]
    assert index.search(query, 9, allowed_ids=some).ids[0].tolist() == best(query[0], np.arange(40, 60), 9)
    both = index.search(query, 9, allowed_ids=set(some), where="genre == 'Drama'")
    assert both.ids[0].tolist() == best(query[0], np.arange(40, 60)[TABLE.genre[40:60] == "Drama"], 9)
    assert index.search(query, 9, where="genre == 'War'").ids.shape == (1, 2)  # there are only two
    assert index.search(query, 9, where="year > 3000").ids.shape == (1, 0)


def test_an_item_does_not_find_itself() -> None:
    index = made(metric="cosine")
    hits = index.search_ids(NAMES[3:6], 100)
    assert hits.ids.shape == (3, 100)
    assert not set(NAMES[3:6]) & {hits.ids[row, 0] for row in range(3) if hits.scores[row, 0] > 0.9999}
    assert all(NAMES[3 + row] not in hits.ids[row] for row in range(3))
    assert index.search_ids([NAMES[3]], 2, allowed_ids=NAMES[5:7]).ids.shape == (1, 2)
    assert index.search_ids(NAMES[3:5], 9, allowed_ids=NAMES[4:9]).ids.shape == (2, 4)
    assert index.search_ids([NAMES[4]], 3, allowed_ids=NAMES[4:9]).ids.shape == (1, 3)


def test_changes() -> None:
    index = made()
    index.remove(NAMES[:50])
    assert len(index) == 51
    assert NAMES[3] not in index
    assert NAMES[77] in index
    query = 100 * VECTORS[3]
    index.add([query], ["new"], metadata={"year": [2020], "genre": ["Comedy"]}, provenance=ORIGIN)
    assert index.search([query], 1).ids.tolist() == [["new"]]
    index.update([-query], ["new"], metadata={"genre": ["War"], "year": [2021]}, provenance=ORIGIN)
    assert index.search([-query], 1, where="genre == 'War' and year == 2021").ids.tolist() == [["new"]]
    assert len(index) == 52
    assert index.vectors(["new"]).tolist() == [(-query).tolist()]
    index.remove(index.ids.tolist())
    with pytest.raises(InputError, match="the index is empty"):
        index.search([query], 1)
    index.add(VECTORS, NAMES, metadata=TABLE, provenance=ORIGIN)
    assert index.search(VECTORS[5:6], 3).ids.tolist() == made().search(VECTORS[5:6], 3).ids.tolist()


def with_nan() -> np.ndarray:
    spoilt = VECTORS.copy()
    spoilt[13, 2] = np.nan
    return spoilt


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vectors": with_nan()}, "1 of 101 hold NaN or infinity (in float32), the first is id 'film-13'"),
        ({"vectors": VECTORS.astype(np.float64) * 1e300}, "hold NaN or infinity"),
        ({"vectors": VECTORS[:, 0]}, "got float32 [101], expected numbers [N, D]"),
        ({"vectors": np.array([["a"]]), "ids": ["a"], "metadata": None}, "expected numbers"),
        ({"vectors": VECTORS[:0]}, "got no vectors, expected at least one"),
        ({"ids": NAMES[:100]}, "got 100 ids for 101 vectors"),
        ({"ids": [*NAMES[:100], NAMES[7]]}, "id 'film-7' comes twice"),
        ({"ids": [*NAMES[:100], 7]}, "got ids of type int, str"),
        ({"ids": [*range(100), 2**70]}, "beyond 64 bits"),
        ({"ids": [1.5] * 101}, "got ids of type float"),
        ({"metric": "euclid"}, "no metric 'euclid'. Known: cosine, ip, l2."),
        (
            {"metric": "cosine", "vectors": VECTORS * (np.arange(101) != 4)[:, None]},
            "id 'film-4' is all zeros",
        ),
        ({"metadata": TABLE[:9]}, "got metadata of 9 rows for 101 vectors"),
        ({"metadata": {"id": NAMES}}, "names other than 'id'"),
    ],
)
def test_what_cannot_be_built(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Index.build(**{"vectors": VECTORS, "ids": NAMES, "metadata": TABLE, **changes})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queries": VECTORS[:, :5]}, "got width 5, expected 7 as in the index"),
        ({"queries": np.full((2, 7), np.inf)}, "the first is query 0"),
        ({"k": 102}, "got k=102, expected 1 to 101"),
        ({"k": 0}, "got k=0, expected 1 to 101"),
        ({"k": 2.5}, "got k=2.5"),
        (
            {"allowed_ids": ["film-3", "film-3000"]},
            "1 unknown ids, the first is 'film-3000'. Did you mean 'film-",
        ),
        ({"allowed_ids": [5]}, "unknown ids, the first is 5"),
        ({"where": "year >"}, "does not parse"),
        ({"where": "yaer > 3"}, "Did you mean 'year'?"),
        (
            {"provenance": {**ORIGIN, "weights": "cccc"}},
            "of another weights: they come from cccc, expected bbbb",
        ),
        ({"provenance": {"weights": "bbbb"}}, "another encoder text: they come from none, expected aaaa"),
    ],
)
def test_what_cannot_be_searched(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        made().search(**{"queries": VECTORS[:2], **options})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ids": ["film-7"]}, "id 'film-7' is there already"),
        ({"ids": [5]}, "got ids that are whole numbers, expected text"),
        ({"vectors": VECTORS[:1, :3]}, "got vectors of width 3, expected 7"),
        ({"metadata": {"year": [3]}}, "got metadata columns ['year'], expected ['genre', 'year']"),
        ({"provenance": None}, "they do not say what made them; expected the same"),
        ({"provenance": {**ORIGIN, "encoder text": "dddd"}}, "they come from dddd, expected aaaa"),
    ],
)
def test_what_cannot_be_added(options: dict[str, Any], message: str) -> None:
    index = made()
    good = {"vectors": VECTORS[:1], "ids": ["new"], "metadata": TABLE[:1], "provenance": ORIGIN}
    with pytest.raises(InputError) as caught:
        index.add(**{**good, **options})
    assert message in str(caught.value)
    assert len(index) == 101
    assert "new" not in index


def test_what_cannot_be_removed_or_updated() -> None:
    index = made()
    with pytest.raises(InputError, match="1 unknown ids, the first is 'film'"):
        index.remove(["film-3", "film"])
    with pytest.raises(InputError, match="unknown ids"):
        index.update(VECTORS[:1], ["film"], metadata=TABLE[:1], provenance=ORIGIN)
    assert len(index) == 101
