"""The examples of classification, tagging and several tasks keep their word."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def printed(name: str, *arguments: str, cwd: Path) -> str:
    script = str(ROOT / "examples" / name)
    run = subprocess.run(
        [sys.executable, script, *arguments], cwd=cwd, capture_output=True, text=True, check=True
    )
    assert f"({name})" in (ROOT / "examples/README.md").read_text("utf-8")
    assert len(Path(script).read_text("utf-8").splitlines()) < 80
    return run.stdout


def figure(text: str, name: str) -> float:
    actual = re.search(rf"^{re.escape(name)} +([\d.]+)", text, re.MULTILINE)
    assert actual
    return float(actual[1])


@pytest.mark.slow
def test_numbers_that_were_in_no_sentence_of_training_are_tagged(tmp_path: Path) -> None:
    text = printed("tagging.py", cwd=tmp_path)
    assert figure(text, "f1") > 0.95
    assert "[B-French]" in text


@pytest.mark.slow
def test_a_digit_is_known_from_whatever_is_there(tmp_path: Path) -> None:
    text = printed("classification.py", cwd=tmp_path)
    for name in ("audio", "image", "text"):
        assert figure(text, name) > 0.9
    assert figure(text, "audio + image + text") > 0.98
    assert (tmp_path / "confusion.svg").stat().st_size > 1000


@pytest.mark.slow
def test_several_tasks_on_one_core_stand_beside_each_alone(tmp_path: Path) -> None:
    text = printed("multitask.py", cwd=tmp_path)
    rows = [line.split()[:2] for line in text.splitlines()[1:-1]]
    assert rows == [["digit", "accuracy"], ["voice", "accuracy"], ["language", "accuracy"]]
    assert figure(text, "digit      accuracy") > 0.8
    assert (tmp_path / "runs/digits-tasks/report.html").exists()
