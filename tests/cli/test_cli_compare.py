"""`mmattn compare` on run files and on folders as `mmattn fit` leaves them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mmattn.cli import main
from mmattn.evaluation.seed import SeedResult, save_result
from mmattn.files import write_text
from mmattn.training.loop import History


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """Four queries with one relevant document x; `good` has it first but for query 3."""
    (tmp_path / "qrels.txt").write_text("".join(f"{q} 0 x 1\n" for q in range(4)))
    for name, scores in (("good", [3, 3, 3, 1]), ("bad", [1, 1, 3, 3])):
        lines = (f"{q} Q0 x 1 {s} t\n{q} Q0 y 2 2 t\n" for q, s in enumerate(scores))
        (tmp_path / f"{name}.txt").write_text("".join(lines))
    return [str(tmp_path / "bad.txt"), str(tmp_path / "good.txt"), "--qrels", str(tmp_path / "qrels.txt")]


def test_run_files(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *runs, "--metrics", "mrr", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["system"], found["baseline"], found["metric"]) == ("good", "bad", "mrr")
    assert found["difference"]["mean"] == pytest.approx(0.125)
    assert (found["wins"], found["losses"], found["draws"]) == (2, 1, 1)
    assert found["p_value"] == 1.0  # every sum of three signs of .5 is at least .5 away from 0
    assert main(["compare", *runs, "--metrics", "mrr", "--queries", "5"]) == 0
    text = capsys.readouterr().out
    assert "mrr     good    bad      +0.1250" in text
    assert "most won: 1 +0.5000, 0 +0.5000" in text
    assert "most lost: 3 -0.5000" in text


def fitted(folder: Path, shift: float, card: str = "films", seeds: tuple[int, ...] = (0, 1)) -> str:
    write_text(
        folder / "config.yaml", f"data: {{card: {card}}}\nprotocol: {{split: cold, seeds: {list(seeds)}}}\n"
    )
    for seed in seeds:
        base = np.random.default_rng(seed).random(53)
        values = {"mmattn": {"ndcg@20": base + shift}, "rival": {"ndcg@20": base}}
        nothing = np.zeros(0, np.int64)
        result = SeedResult(seed, values, {}, History(best_score=0.0), {}, {}, nothing, nothing)
        save_result(folder / f"seed-{seed}" / "result.npz", result)
    return str(folder)


def test_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = fitted(tmp_path / "one", 0.1), fitted(tmp_path / "two", 0.3)
    assert main(["compare", one, two, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["system"], found["baseline"], found["wins"]) == ("two", "one", 53)
    assert found["difference"]["seeds"] == pytest.approx([0.2, 0.2])
    assert found["adjusted"] < 0.001
    assert main(["compare", two, "--json"]) == 0  # within one run: the rivals against ours
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["system"], found["baseline"]) == ("rival", "mmattn")
    assert found["difference"]["mean"] == pytest.approx(-0.3)


def test_mistakes_are_one_line(runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = fitted(tmp_path / "one", 0.1)
    other = fitted(tmp_path / "other", 0.1, card="songs")
    fewer = fitted(tmp_path / "fewer", 0.1, seeds=(0,))
    (tmp_path / "none").mkdir()
    for arguments, message in (
        (runs[:2], "run files need --qrels"),
        ([*runs[2:], runs[0]], "got 1 systems, expected at least two"),
        ([one, *runs], "got folders and files, expected one kind"),
        ([one, other], "its card is 'songs', expected 'films'"),
        ([one, fewer], "its seeds is [0], expected [0, 1]"),
        ([one, str(tmp_path / "none")], "no config.yaml in it"),
        ([one, "--metrics", "ndgc@20"], "no metric 'ndgc@20'. Did you mean 'ndcg@20'"),
        ([one, one], "expected each once"),
    ):
        assert main(["compare", *arguments]) == 2, arguments
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.err.count("\n") == 1
