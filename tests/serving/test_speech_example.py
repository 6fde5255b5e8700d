"""The speech example runs, and streams say in it what the wholes do."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples/speech.py"


def test_streams_say_what_the_wholes_do(capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("speech_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    error, same = module.main(steps=3, tests=5)
    assert same
    assert 0 < error <= 1
    assert "the same text True" in capsys.readouterr().out
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 80
