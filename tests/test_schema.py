"""Configuration: round trips, and one clear line for each mistake."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from mmattn import InputError, schema


@dataclass(frozen=True)
class Part:
    name: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Whole:
    parts: dict[str, Part]
    rate: float = 0.1
    seeds: tuple[int, ...] = (0, 1, 2)
    kind: Literal["cold", "warm"] = "cold"
    out: Path | None = None
    fast: bool = False

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise InputError(f"rate: got {self.rate}, expected more than 0")


def test_round_trip_through_yaml(tmp_path: Path) -> None:
    whole = Whole({"text": Part("minilm", {"pool": "fields"})}, rate=1.0, seeds=(7,), out=Path("runs/a"))
    schema.dump_config(whole, tmp_path / "fit.yaml")
    assert schema.load_config(Whole, tmp_path / "fit.yaml") == whole


def test_overrides_reach_any_depth(tmp_path: Path) -> None:
    (tmp_path / "fit.yaml").write_text("parts: {text: {name: minilm}}\nrate: 2\n")
    whole = schema.load_config(
        Whole, tmp_path / "fit.yaml", {"parts.text.options.pool": "words", "seeds": [3]}
    )
    assert whole == Whole({"text": Part("minilm", {"pool": "words"})}, rate=2.0, seeds=(3,))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("parts: {}\nraet: 1", "unknown key 'raet'. Did you mean 'rate'"),
        ("rate: 1", "key 'parts' is missing"),
        ("parts: {text: {nam: x}}", "parts.text: unknown key 'nam'. Did you mean 'name'"),
        ("parts: {text: minilm}", "parts.text: got 'minilm', expected keys and values"),
        ("parts: {}\nrate: fast", r"rate: got 'fast' \(str\), expected a number"),
        ("parts: {}\nrate: -1", "rate: got -1.0, expected more than 0"),
        ("parts: {}\nseeds: 3", "seeds: got 3, expected a list"),
        ("parts: {}\nseeds: [1, x]", r"seeds\[1\]: got 'x' \(str\), expected a whole number"),
        ("parts: {}\nseeds: [true]", r"seeds\[0\]: got True \(bool\), expected a whole number"),
        ("parts: {}\nkind: hot", "kind: got 'hot', expected one of cold, warm"),
        ("parts: {}\nfast: 1", r"fast: got 1 \(int\), expected true or false"),
        ("parts: [", "not valid YAML"),
        ("just text", "got str, expected keys and values"),
    ],
)
def test_mistakes_are_answered_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "fit.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        schema.load_config(Whole, tmp_path / "fit.yaml")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "fit.yaml"))


def test_a_number_with_an_exponent_needs_no_point(tmp_path: Path) -> None:
    (tmp_path / "fit.yaml").write_text("parts: {}\nrate: 1e-3\n")
    assert schema.load_config(Whole, tmp_path / "fit.yaml").rate == 0.001


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"nowhere.yaml: cannot be read \(No such file"):
        schema.load_config(Whole, "nowhere.yaml")
