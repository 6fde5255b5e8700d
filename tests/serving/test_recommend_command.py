"""`mmattn recommend` from the outside."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from mmattn import RecommenderService
from mmattn.cli import main


def told(run: Path, *arguments: str, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert main(["recommend", str(run), "--quiet", "--json", *arguments]) == 0
    actual: dict[str, object] = json.loads(capsys.readouterr().out)
    return actual


def test_one_user(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    actual = told(run, "--history", "3", "5", "-k", "4", "--where", "digit == '7'", capsys=capsys)
    expected = RecommenderService.open(run).recommend([3, 5], 4, "digit == '7'")
    assert actual["basis"] == "history"
    items: list[dict[str, dict[str, str]]] = actual["items"]  # type: ignore[assignment]
    assert [item["item"] for item in items] == expected.ids
    assert {item["columns"]["digit"] for item in items} == {"7"}
    assert main(["recommend", str(run), "--history", "3", "5", "--k", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 items, by the history"
    assert len(lines) == 3


def test_somebody_new_is_told_so(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", str(run), "--history"]) == 0
    assert "no history: what the catalogue as a whole speaks for" in capsys.readouterr().out
    assert told(run, "--history", capsys=capsys)["basis"] == "catalogue"


def test_a_new_item_comes_in_and_is_met(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new.csv").write_text("item,text\n900,nine\n901,\n")
    actual = told(run, "--add-items", str(tmp_path / "new.csv"), "--history", "900", capsys=capsys)
    assert actual["added"] == {"ids": [900], "existing": 0, "skipped_no_content": [901]}
    assert told(run, "--history", "900", "-k", "1", capsys=capsys)["basis"] == "history"
    assert main(["recommend", str(run), "--add-items", str(tmp_path / "new.csv"), "--quiet"]) == 0
    assert "0 items added, 1 were there, 1 left out for lack of content, the first is 901" in (
        capsys.readouterr().out
    )


def test_many_users(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    users, out = tmp_path / "users.parquet", tmp_path / "out.parquet"
    pa.parquet.write_table(pa.table({"user": ["a", "b", "a"], "item": [3, 5, 7]}), users)
    actual = told(run, "--users", str(users), "--out", str(out), "-k", "3", capsys=capsys)
    assert actual == {"users": 2, "rows": 6, "unknown": 0}
    rows = pa.parquet.read_table(out).to_pandas()
    assert rows["item"][rows["user"] == "a"].tolist() == RecommenderService.open(run).recommend([3, 7], 3).ids


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "got none of --history, --users and --add-items"),
        (["--history", "1", "--users", "u.parquet", "--out", "o.parquet"], "got --history and --users"),
        (["--users", "u.parquet"], "--users FILE and --out FILE belong together"),
        (["--history", "1", "--out", "o.parquet"], "--users FILE and --out FILE belong together"),
        (["--history", "777"], "history: 1 item not among the 113 of catalogue 'digits': '777'."),
        (["--history", "1", "--where", "digt == '7'"], "no column 'digt'. Did you mean 'digit'?"),
        (["--history", "1", "-k", "0"], "got k=0, expected a whole number from 1"),
        (["--users", "nowhere.parquet", "--out", "o.parquet"], "nowhere.parquet: cannot be read as parquet"),
        (["--add-items", "nowhere.csv"], "nowhere.csv: no such file"),
    ],
)
def test_mistakes_end_with_one_line(
    finished: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recommend", str(finished), *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("mmattn: ")
    assert message in line


def test_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", str(tmp_path), "--history"]) == 2
    assert "holds no index/ to recommend from, expected a run that `mmattn fit` finished" in (
        capsys.readouterr().err
    )
