"""The example of program tuning runs as it stands, and what it prints bears it out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "program_tuning.py"


def test_the_example_of_program_tuning() -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr
    rows = dict(re.findall(r"^([a-z ]+?) +\d+  (0\.\d+)$", ran.stdout, re.MULTILINE))
    assert list(rows) == ["the head", "head and program", "everything"]
    assert 0.2 < float(rows["the head"]) < float(rows["head and program"]) < float(rows["everything"])
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 80
