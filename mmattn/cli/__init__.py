"""The command line: `mmattn COMMAND ...`, one file a command.

A command is a module with `add_arguments(parser)` and `run(arguments)`. Mistakes end with one line on
standard error and status 2, an interruption with 130.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence
from typing import NoReturn

from jsonargparse import ArgumentParser

from mmattn.errors import InputError, MmattnError, did_you_mean

__all__ = ["main"]

# Command -> one line for the overview. A command's module is imported when it is asked for.
COMMANDS = {
    "demo": "the embedded tour: offline, minutes on two cores",
    "plugins": "what is installed, from where, what is missing and how to get it",
    "prepare": "raw files -> a card and tables, every bad row listed",
    "fit": "train and evaluate what a YAML file describes, and write the report",
    "recommend": "what a finished run recommends: to one user, to millions, new items too",
    "export": "a trained model as one file, for torch.export or ONNX Runtime",
    "embed": "vectors of items through a run's model, as parquet; resumable, over many processes",
    "index": "build, add, remove, search, verify, plan: bundles of vectors",
    "evaluate": "a run against judgements, with trec_eval's digits and intervals",
    "explain": "why a run gives an item its score: a page with attention over picture, words and sound",
    "bench": "the speed comparisons: attention, fusion, retrieval, evaluation (source checkouts)",
    "compare": "runs against each other: paired differences, tests, wins and losses",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    Args:
        argv: command line; None takes `sys.argv`.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("httpx", "numexpr", "accelerate", "faiss", "faster_coco_eval"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        return _run(arguments)
    except MmattnError as error:
        print(f"mmattn: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("mmattn: interrupted; what was finished is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, `head` for example, has seen enough
        sys.stderr.close()
        return 0
    except OSError as error:
        print(f"mmattn: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return 2


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if arguments[0] == "--version":
        from mmattn import __version__

        print(f"mmattn {__version__}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        raise InputError(f"no command {name!r}.{did_you_mean(name, COMMANDS)}")
    command = importlib.import_module(f"mmattn.cli.{name}")
    parser = _Parser(prog=f"mmattn {name}", description=command.__doc__, allow_abbrev=False)
    command.add_arguments(parser)
    overrides = None
    if hasattr(command, "split_overrides"):  # a command whose file's keys are options too
        rest, overrides = command.split_overrides(rest)
    try:
        settings = parser.parse_args(rest)
    except SystemExit as leaving:  # after --help
        return int(leaving.code or 0)
    if overrides is not None:
        settings.overrides = overrides
    return command.run(settings)


class _Parser(ArgumentParser):
    """Reports a mistake as one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise InputError(f"{(self.prog or '').removeprefix('mmattn ')}: {message} (see `{self.prog} --help`)")


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {line}" for name, line in COMMANDS.items()]
    return "\n".join(
        [
            "usage: mmattn COMMAND [...]",
            "",
            "Programmable attention across text, image and audio.",
            "",
            *lines,
            "",
            "`mmattn COMMAND --help` says more.",
        ]
    )
