"""Every public docstring documents its arguments and the errors it raises: pydoclint, without private names.

    python -m tests.lint_docstrings [PATH ...]

pydoclint has no switch for private functions, whose docstrings may be one line; this filters its report.
Checked are DOC101 to DOC105 (arguments) and DOC501 (a `raise` without a `Raises` section).
"""

from __future__ import annotations

import re
import subprocess
import sys

CODES = re.compile(r"^\s+\d+: (DOC10[1-5]|DOC501): (?:Function|Method|Class) `([\w.]+)`")
PACKAGES = ("mmattn", "adapters/mmattn_adapters", "datasets/mmattn_datasets")


def violations(paths: list[str]) -> list[str]:
    """Lines of the report, `FILE:LINE: CODE: ...`, about public functions and classes.

    Args:
        paths: files or folders.
    """
    ran = subprocess.run(
        [sys.executable, "-m", "pydoclint.main", *paths], capture_output=True, text=True, check=False
    )
    if ran.returncode not in (0, 1):
        raise RuntimeError(ran.stderr)
    lines, file = [], ""
    for line in ran.stdout.splitlines() + ran.stderr.splitlines():
        if line.strip().endswith(".py"):
            file = line.strip()
        elif (match := CODES.match(line)) and not _is_private(match[2]):
            lines.append(f"{file}:{line.strip()}")
    return lines


def _is_private(name: str) -> bool:
    return any(part.startswith("_") and part != "__init__" for part in name.split("."))


if __name__ == "__main__":
    found = violations(sys.argv[1:] or list(PACKAGES))
    print("\n".join(found) or "docstrings: all arguments and errors are documented")
    sys.exit(bool(found))
