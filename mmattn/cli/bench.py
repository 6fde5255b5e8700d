"""`mmattn bench NAME [...]`: the speed comparisons, of a source checkout.

Everything after the name goes to the benchmark's own script, tests/benchmarks/bench_NAME.py: most know
`--repeat N`, `--cases WORD ...`, `--device cpu|cuda` and `--json`; `mmattn bench NAME --help` says what else.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

import mmattn
from mmattn.errors import InputError, did_you_mean

_FOLDER = Path("tests", "benchmarks")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", help="attention, fusion, retrieval, evaluation, or another that is there")


def run(arguments: Namespace) -> int:
    scripts = find_scripts(Path(mmattn.__file__).parents[1])
    if arguments.name not in scripts:
        raise InputError(f"bench: no benchmark {arguments.name!r}.{did_you_mean(arguments.name, scripts)}")
    return subprocess.run(
        [sys.executable, str(scripts[arguments.name]), *arguments.overrides], check=False
    ).returncode


def find_scripts(root: Path) -> dict[str, Path]:
    """Benchmark -> its script.

    Args:
        root: the folder that the package lies in.

    Raises:
        InputError: the scripts are not there; the message says where they are.
    """
    scripts = sorted((root / _FOLDER).glob("bench_*.py"))
    if not scripts:
        raise InputError(
            f"bench: the scripts come with the source only, and {root / _FOLDER} is not there; unpack the "
            "source distribution (pip download --no-deps --no-binary :all: mmattn) or a checkout and run "
            "pip install -e '.[bench]' in it"
        )
    return {script.stem.removeprefix("bench_"): script for script in scripts}


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split the benchmark's name (or `--help`) from the arguments of its script.

    Args:
        arguments: command line.

    Example:
        >>> split_overrides(["fusion", "--repeat", "3", "--json"])
        (['fusion'], ['--repeat', '3', '--json'])
    """
    return list(arguments[:1]), list(arguments[1:])
