"""`mmattn compare` on run files and on folders as `mmattn fit` leaves them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mmattn.cli import main
from mmattn.experiments.seed_result import RankingResult, SeedResult, save_result
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
    content = json.loads(capsys.readouterr().out)
    (actual,) = content["comparisons"]
    assert content["policies"]["ties"] == {"policy": "trec", "rates": {"bad": 0.0, "good": 0.0}}
    assert (actual["system"], actual["baseline"], actual["metric"]) == ("good", "bad", "mrr")
    assert actual["difference"]["mean"] == pytest.approx(0.125)
    assert (actual["wins"], actual["losses"], actual["ties"]) == (2, 1, 1)
    assert actual["p_value"] == 1.0  # every sum of three signs of .5 is at least .5 away from 0
    assert main(["compare", *runs, "--metrics", "mrr", "--queries", "5"]) == 0
    text = capsys.readouterr().out
    assert "mrr     good    bad      +0.1250" in text
    assert "most won: 1 +0.5000, 0 +0.5000" in text
    assert "most lost: 3 -0.5000" in text
    assert "ties: policy trec; documents that share their score with another: bad 0.0%, good 0.0%" in text
    assert main(["compare", *runs, "--metrics", "mrr", "--queries", "1", "--json"]) == 0
    (actual,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert actual["largest"]["lost"] == [{"unit": "3", "difference": -0.5}]


def test_markdown_and_latex(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *runs, "--metrics", "mrr", "--format", "markdown"]) == 0
    text = capsys.readouterr().out
    assert "| mrr | good | bad | +0.1250 |" in text
    assert "ties: policy trec" in text
    assert main(["compare", *runs, "--metrics", "mrr", "--format", "latex"]) == 0
    assert r"mrr & good & bad & +0.1250 & " in capsys.readouterr().out


def test_missing_queries(runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`good` loses query 0, where it was better: counted as 0 it is worse there, left out it says nothing."""
    good = tmp_path / "good.txt"
    good.write_text("".join(line for line in good.read_text().splitlines(True) if not line.startswith("0 ")))
    requested = ["compare", *runs, "--metrics", "mrr", "--json"]
    assert main(requested) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["policies"]["missing"] == {"policy": "zero", "queries": {"bad": 0, "good": 1}}
    # Differences: 0 - .5, .5, 0, -.5 over four queries.
    assert content["comparisons"][0]["difference"]["mean"] == pytest.approx(-0.125)
    assert main([*requested, "--missing", "skip"]) == 0
    (actual,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert actual["difference"]["mean"] == pytest.approx(0.0)
    assert (actual["wins"], actual["losses"], actual["ties"]) == (1, 1, 1)
    assert main([*requested, "--missing", "error"]) == 2
    assert "1 judged queries are missing from the run, the first '0'" in capsys.readouterr().err


def test_ties_follow_the_declared_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """a and b tie, a is right: trec puts b first, stable the first line."""
    (tmp_path / "qrels.txt").write_text("q 0 a 1\n")
    (tmp_path / "tied.txt").write_text("q Q0 a 1 1 t\nq Q0 b 2 1 t\n")
    (tmp_path / "clear.txt").write_text("q Q0 a 1 2 t\nq Q0 b 2 1 t\n")
    runs = [str(tmp_path / name) for name in ("tied.txt", "clear.txt")]
    for ties, gain in (("trec", 0.5), ("stable", 0.0), ("expected", 0.25)):
        requested = [
            "compare",
            *runs,
            "--qrels",
            str(tmp_path / "qrels.txt"),
            "--metrics",
            "mrr",
            "--ties",
            ties,
        ]
        assert main([*requested, "--json"]) == 0
        content = json.loads(capsys.readouterr().out)
        assert content["comparisons"][0]["difference"]["mean"] == gain
        assert content["policies"]["ties"]["rates"] == {"tied": 1.0, "clear": 0.0}


def fitted(folder: Path, shift: float, card: str = "films", seeds: tuple[int, ...] = (0, 1)) -> str:
    write_text(
        folder / "config.yaml", f"data: {{card: {card}}}\nprotocol: {{split: cold, seeds: {list(seeds)}}}\n"
    )
    for seed in seeds:
        base = np.random.default_rng(seed).random(53)
        values = {"mmattn": {"ndcg@20": base + shift}, "baseline": {"ndcg@20": base}}
        result = SeedResult(seed, History(best_score=0.0), {}, {}, ranking=RankingResult(values, {}))
        save_result(folder / f"seed-{seed}" / "result.npz", result)
    return str(folder)


def test_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry, two = fitted(tmp_path / "one", 0.1), fitted(tmp_path / "two", 0.3)
    assert main(["compare", entry, two, "--json"]) == 0
    (actual,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert (actual["system"], actual["baseline"], actual["wins"]) == ("two", "one", 53)
    assert actual["difference"]["seeds"] == pytest.approx([0.2, 0.2])
    assert actual["adjusted_p_value"] < 0.001
    assert main(["compare", two, "--json"]) == 0  # within one run: the baselines against ours
    (actual,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert (actual["system"], actual["baseline"]) == ("baseline", "mmattn")
    assert actual["difference"]["mean"] == pytest.approx(-0.3)


def test_mistakes_are_one_line(runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = fitted(tmp_path / "one", 0.1)
    other = fitted(tmp_path / "other", 0.1, card="songs")
    fewer = fitted(tmp_path / "fewer", 0.1, seeds=(0,))
    killed = fitted(tmp_path / "killed", 0.1)
    (tmp_path / "killed" / "seed-1" / "result.npz").unlink()
    (tmp_path / "none").mkdir()
    broken, stranger = str(tmp_path / "broken.txt"), str(tmp_path / "stranger.txt")
    Path(broken).write_text("0 Q0 x 1 1 t\n1 Q0 x 1 high t\n")
    Path(stranger).write_text("q Q0 x 1 1 t\n")
    for arguments, message in (
        (runs[:2], "run files need --qrels"),
        ([*runs[2:], runs[0]], "got 1 systems, expected at least two"),
        ([entry, *runs], "got folders and files, expected one kind"),
        ([entry, other], "its card is 'songs', expected 'films'"),
        ([entry, fewer], "its seeds is [0], expected [0, 1]"),
        ([entry, killed], "has finished the seeds [0], expected [0, 1] as in"),
        ([*runs, "--metrics", "ndgc@5"], "'ndgc' is not one. Did you mean 'ndcg'?"),
        ([*runs, "--missing", "zreo"], "zreo"),
        ([*runs, "--baseline", "godo"], "no system 'godo' to be the baseline. Did you mean 'good'?"),
        ([broken, *runs[1:]], "broken.txt, line 2: got the score 'high', expected a number"),
        ([stranger, *runs[1:]], "no common query among 1 of the run (first 'q') and 4 of the judgements"),
        ([entry, str(tmp_path / "none")], "no config.yaml in it"),
        ([entry, "--metrics", "ndgc@20"], "no metric 'ndgc@20'. Did you mean 'ndcg@20'"),
        ([entry, entry], "expected each once"),
    ):
        assert main(["compare", *arguments]) == 2, arguments
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.err.count("\n") == 1
