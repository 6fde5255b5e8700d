"""The example of examples/ keeps its word."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples/detection.py"


@pytest.mark.slow
def test_what_is_asked_for_is_found_in_words_aloud_and_without(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, EXAMPLE, "--out", tmp_path], capture_output=True, text=True, check=True
    )
    figures = {name: float(value) for name, value in re.findall(r"asked by (\w+): AP50 ([\d.]+)", ran.stdout)}
    assert set(figures) == {"text", "audio", "nothing"}
    assert min(figures.values()) > 0.7
    for name in figures:
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
