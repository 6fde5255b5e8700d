"""`make bench`: every benchmark in turn, each in a process of its own; a failure does not stop the others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

failed = []
for script in sorted(Path(__file__).parent.glob("bench_*.py")):
    name = script.stem.removeprefix("bench_")
    print(f"\n== {name}", flush=True)
    if subprocess.run([sys.executable, str(script)], check=False).returncode:
        failed.append(name)
if failed:
    sys.exit(f"failed: {', '.join(failed)}")
