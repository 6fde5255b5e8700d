"""Filters: what they find, and everything that they refuse."""

from __future__ import annotations

import pandas as pd
import pytest

from mmattn.errors import InputError
from mmattn.retrieval.filters import filter_mask

FILMS = pd.DataFrame(
    {
        "genre": ["Comedy", "Drama", None, "Comedy", "War"],
        "year": [1995, 1999, 1980, None, 2001],
        "genres": [["Comedy"], ["Drama", "War"], None, [], ["War"]],
        "seen": [True, False, True, False, True],
        "day": pd.to_datetime(["1995-03-01", "1999-01-01", "1980-01-01", None, "2001-05-05"]),
    }
)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("genre == 'Comedy'", [0, 3]),
        ("genre == 'Comedy' and year > 1990", [0]),
        ("genre != 'Comedy'", [1, 4]),
        ("year < 1990 or genre == 'War'", [2, 4]),
        ("1985 <= year <= 2000", [0, 1]),
        ("1990 < year", [0, 1, 4]),
        ("year in [1995, 2001]", [0, 4]),
        ("year not in (1995, 2001)", [1, 2]),
        ("'War' in genres", [1, 4]),
        ("'War' not in genres", [0, 3]),
        ("'om' in genre", [0, 3]),
        ("genre is None", [2]),
        ("genre is not None and not seen", [1, 3]),
        ("seen", [0, 2, 4]),
        ("not (year > 1990)", [2, 3]),
        ("year > -1", [0, 1, 2, 4]),
        ("day >= '1999-01-01'", [1, 4]),
        (" year == 1995.0 ", [0]),
    ],
)
def test_what_meets_a_condition(where: str, expected: list[int]) -> None:
    assert filter_mask(where, FILMS).nonzero()[0].tolist() == expected


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("", "does not parse"),
        ("genre ==", "does not parse"),
        ("genre = 'Comedy'", "does not parse"),
        ("year > 1; year", "does not parse"),
        ("genre == '\x00'", "does not parse"),
        ("(" * 3000 + "year" + ")" * 3000, "does not parse"),
        ("not " * 2000 + "seen", "does not parse"),
        ("__import__('os').system('true')", "a call at column 0 is not allowed"),
        ("year > open('x')", "a call at column 7 is not allowed"),
        ("genre.str.len() > 3", "a call at column 0"),
        ("year > genre.x", "an attribute at column 7"),
        ("year + 1 > 3", "a computation at column 0"),
        ("year > 9**9**9", "a computation at column 7"),
        ("genre[0] == 'C'", "a subscript at column 0"),
        ("year > f'{seen}'", "is not allowed"),
        ("(lambda: 1) == year", "is not allowed"),
        ("[x for x in genre] == 1", "is not allowed"),
        ("year", "expected a comparison"),
        ("'a' == 'a'", "compares two constants"),
        ("year == None", "expected `is None`"),
        ("year is 3", "`is` is for"),
        ("year > 'x'", "column 'year' (float64) and 'x' cannot be compared"),
        ("'x' in year", "expected lists or text"),
        ("gerne == 'Comedy'", "no column 'gerne'. Did you mean 'genre'?"),
        ("year in [open]", "is not allowed"),
        ("year > 1 " + " and year > 1" * 1000, "expected text of at most"),
    ],
)
def test_what_is_refused(where: str, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        filter_mask(where, FILMS)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value).replace(where, "")


def test_text_that_is_no_text() -> None:
    with pytest.raises(InputError, match="got int, expected text"):
        filter_mask(3, FILMS)  # type: ignore[arg-type]
