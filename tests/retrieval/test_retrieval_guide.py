"""The guide's lines run, in their order, and the example does what it says."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import mmattn.retrieval

FOLDER = Path(mmattn.retrieval.__path__[0])
README = (FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_guide_s_lines_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 5
    scope: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "mmattn/retrieval/README.md", "exec"), scope)
    assert scope["films"].ids.tolist() == [f"film-{number}" for number in range(1000) if number != 3]


def test_the_guide_names_every_file() -> None:
    indices = README.split("## Where what is")[1]
    named = set(re.findall(r"`(\w+\.py)`", indices))
    assert named == {path.name for path in FOLDER.rglob("*.py")} - {"__init__.py"}


def test_the_example_finds_what_it_looks_for() -> None:
    actual = runpy.run_path(str(Path(__file__).parents[2] / "examples/retrieval.py"))["main"]()
    assert {genre for genre, _ in actual["old"]} <= {"western", "drama"}
    assert actual["old"][0][0] == "western"
    assert all(year < 1960 for _, year in actual["old"])
    assert actual["still there"] is False
    assert actual["first"][0] == "new"  # it lies where the query does
    assert actual["first"][1:] == actual["alike"][:2]  # and so do their neighbours
    assert actual["fused"] == ["western"] * 5
