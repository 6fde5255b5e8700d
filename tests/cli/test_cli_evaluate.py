"""`mmattn evaluate` as a trec_eval user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval

from mmattn.cli import main


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """Two files as trec_eval's users have them, with ties; query 6 is missing from the run."""
    rng = np.random.default_rng(0)
    run, qrels = [], []
    for query in range(7):
        for rank, document in enumerate(rng.choice(97, 31, replace=False)):
            if query != 6:
                run.append(f"{query} Q0 {document} {rank} {rng.integers(0, 9)} tag")
        qrels += [f"{query} 0 {d} {rng.integers(0, 3)}" for d in rng.choice(97, 29, replace=False)]
    for name, lines in (("run.txt", run), ("qrels.txt", qrels)):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    return str(tmp_path / "run.txt"), str(tmp_path / "qrels.txt")


NAMES = {"ndcg@10": "ndcg_cut_10", "map": "map", "mrr": "recip_rank", "recall@5": "recall_5"}


def test_the_same_digits_as_trec_eval(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    run, qrels = files
    with Path(qrels).open() as file:
        judged = pytrec_eval.parse_qrel(file)
    with Path(run).open() as file:
        official = pytrec_eval.RelevanceEvaluator(judged, set(NAMES.values())).evaluate(
            pytrec_eval.parse_run(file)
        )
    arguments = ["evaluate", "--run-file", run, "--qrels", qrels, "--metrics", *NAMES]
    assert main([*arguments, "--missing", "skip", "--json", "--per-query"]) == 0
    actual = json.loads(capsys.readouterr().out)
    assert set(actual) == {
        "queries",
        "metrics",
        "ties",
        "missing",
        "without_relevant",
        "unjudged",
        "per_query",
    }
    assert (actual["queries"], actual["missing"], actual["ties"]["policy"]) == (7, 1, "trec")
    assert actual["ties"]["rate"] > 0.5
    for ours, theirs in NAMES.items():
        values = [row[theirs] for row in official.values()]
        assert actual["metrics"][ours]["mean"] == pytest.approx(np.mean(values), abs=1e-9)
        assert (
            actual["metrics"][ours]["low"] < actual["metrics"][ours]["mean"] < actual["metrics"][ours]["high"]
        )
        assert actual["per_query"]["3"][ours] == pytest.approx(official["3"][theirs], abs=1e-9)
        assert actual["per_query"]["6"][ours] is None
    assert main(arguments) == 0
    text = capsys.readouterr().out
    mean = sum(row["map"] for row in official.values()) / 7
    assert f"map       {mean:.4f}  (" in text
    assert "1 judged queries are missing from the run: counted as 0" in text
    assert "ties: policy trec;" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--metrics", "ndgc@10"], "metric 'ndgc@10': 'ndgc' is not one. Did you mean 'ndcg'?"),
        (["--ties", "trek"], "trek"),
        (["--missing", "error"], "1 judged queries are missing from the run, the first '6'"),
        (["--run-file", "nowhere.txt"], "nowhere.txt: No such file"),
    ],
)
def test_mistakes_are_one_line(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str], change: list[str], message: str
) -> None:
    assert main(["evaluate", "--run-file", files[0], "--qrels", files[1], *change]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1
