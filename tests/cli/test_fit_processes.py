"""`mmattn fit` in two processes: the numbers of one with twice the accumulation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mmattn.registry import datasets

SETTINGS = {
    "data": {"card": "data", "features": "features"},
    "protocol": {"seeds": [0], "metrics": ["ndcg@5", "recall@5"]},
    # Not standardised: running statistics would be those of the main process's share of the batches.
    "encoders": {
        "image": {"name": "tiny-image", "options": {"dim": 16, "grid": 1}},
        "text": {"name": "tiny-text", "options": {"dim": 16, "layers": 1}},
    },
    "fusion": {"dim": 32, "heads": 2},
    "evaluation": {"ablations": ["drop"], "subsets": False, "index_dim": 0},
}


@pytest.mark.slow
def test_two_processes_fit_as_one_does(tmp_path: Path) -> None:
    datasets.create("digits").prepare(None, tmp_path / "data", items=120, users=60)

    def fitted(name: str, grad_accumulation: int, *launcher: str) -> tuple[dict[str, float], str]:
        training = {
            "epochs": 2, "steps_per_epoch": 3, "users_per_batch": 50,
            "grad_accumulation": grad_accumulation, "alignment": 0.1,
        }  # fmt: skip
        content = yaml.safe_dump({**SETTINGS, "name": name, "training": training})
        (tmp_path / f"{name}.yaml").write_text(content)
        # What `accelerate launch` starts for several GPUs; on CPUs it would want MPI, where this takes gloo.
        command = [sys.executable, *launcher, "-m", "mmattn", "fit", "--config", f"{name}.yaml", "--quiet"]
        environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        ran = subprocess.run(
            command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True, timeout=900
        )
        assert ran.returncode == 0, ran.stderr[-3000:]
        metrics = json.loads((tmp_path / "runs" / name / "metrics.json").read_text())
        ours = metrics["systems"]["mmattn"]
        seeds = {f"{key} {index}": our for key in ours for index, our in enumerate(ours[key]["seeds"])}
        return seeds, ran.stdout

    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    (alone, _), (together, answer) = fitted("one", 2), fitted("two", 1, *launcher)
    assert len(alone) == 2
    assert together == pytest.approx(alone, abs=2e-3)
    assert answer.count("report: ") == 1
