"""A deprecated name still works, and says what replaces it where it is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmattn.deprecation import deprecated


@deprecated(since="0.2", removed_in="0.4", instead="`total`")
def add(first: int, second: int = 2) -> int:
    """Add."""
    return first + second


@deprecated(since="0.2", removed_in="0.4", instead="`Shape`")
class Form:
    """A form."""

    def __init__(self, sides: int):
        self.sides = sides


def test_a_function_warns_at_its_caller_and_works() -> None:
    with pytest.warns(
        FutureWarning, match=r"^add is deprecated since mmattn 0\.2 and will be removed in 0\.4: use `total`$"
    ) as caught:
        assert add(3) == 5
    assert Path(caught[0].filename) == Path(__file__)
    assert (add.__name__, add.__doc__) == ("add", "Add.")


def test_a_class_warns_when_one_is_made() -> None:
    with pytest.warns(FutureWarning, match="Form is deprecated"):
        form = Form(3)
    assert form.sides == 3
