"""`mmattn bench`: every script runs at a tiny size, and says what it was asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mmattn import InputError
from mmattn.cli import main
from mmattn.cli.bench import find_scripts

ROOT = Path(__file__).parents[2]
SMALL = {
    "attention": ["--length", "64", "--cases", "window", "bias", "made", "--device", "cpu", "--no-memory"],
    "fusion": ["--samples", "7", "--dim", "32", "--heads", "2", "--device", "cpu"],
    "retrieval": ["--count", "3001", "--dim", "16", "--threads", "1", "--cases", "exact"],
    "evaluation": ["--queries", "31", "--depth", "11", "--cases", "random", "decimal"],
}


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mmattn", "bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def small(name: str) -> dict[str, Any]:
    ran = bench(name, *SMALL[name], "--repeat", "1", "--json")
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_attention() -> None:
    content = small("attention")
    (table,) = content["tables"]
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    cases = ["window(64)", "modality bias, ragged", "64 tokens, made and planned anew"]
    assert [row["case"] for row in rows] == [case for case in cases for _ in range(2)]
    assert [row["pass"] for row in rows] == ["forward", "forward + backward"] * 3
    for row in rows:
        assert row["SDPA / mmattn"] == pytest.approx(row["padded SDPA"] / row["mmattn"])
        assert row["padded SDPA, MB"] is None  # it was not measured


def test_fusion() -> None:
    content = small("fusion")
    assert content["header"]["command"].startswith("python tests/benchmarks/bench_fusion.py --samples 7")
    for table in content["tables"]:
        rows = {row[0]: dict(zip(table["columns"], row, strict=True)) for row in table["rows"]}
        assert {"mmattn", "padded layer", "sub-batches of 32", "eager layer", "x-transformers"} <= set(rows)
        for name in ("padded layer", "sub-batches of 32", "eager layer"):
            assert rows[name]["peak MB"] >= 0
            assert float(rows[name]["gap"]) < 1e-5  # they compute what the block computes
            assert rows[name]["times mmattn's"] == pytest.approx(rows[name]["s"] / rows["mmattn"]["s"])


def test_retrieval() -> None:
    (table,) = small("retrieval")["tables"]
    assert [row[0] for row in table["rows"]][-1] == "mmattn exact"


def test_evaluation() -> None:
    (table,) = small("evaluation")["tables"]
    assert [row[0] for row in table["rows"]] == ["random", "one decimal"]


def test_options_go_to_the_script_and_so_does_its_failure() -> None:
    assert "--samples" in bench("fusion", "--help").stdout
    failed = bench("fusion", "--samples", "many")
    assert failed.returncode == 2
    assert "invalid int value: 'many'" in failed.stderr
    if not torch.cuda.is_available():
        without = bench("fusion", "--device", "cuda")
        assert without.returncode == 1
        assert without.stderr.splitlines()[-1].startswith(
            "bench: --device cuda, but torch sees no CUDA device"
        )


def test_a_name_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "fusoin"]) == 2
    assert "no benchmark 'fusoin'. Did you mean 'fusion'?" in capsys.readouterr().err


def test_an_installation_without_the_scripts_says_where_they_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"come with the source only.* is not there; unpack the source"):
        find_scripts(tmp_path)
    assert set(SMALL) <= set(find_scripts(ROOT))
