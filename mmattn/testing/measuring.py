"""What all benchmarks share: options, a header that can be cited, time and memory in turn, tables.

What is compared runs in turn in one process, and medians count: of the processor's time where one thread
computes, of the clock's where several do, of the GPU's own between two events there.
Memory on a GPU is the allocator's peak. On the CPU it is the highest resident memory of a forked child, which
runs the thing once to load its libraries and gives back what is free, less what it had before the second run.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import json
import os
import platform
import shlex
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# Below this many seconds a run is repeated more often: its median is noise otherwise.
_SHORT, _MORE = 0.01, 10


def options(description: str | None, repeat: int) -> argparse.ArgumentParser:
    """Create a parser with the options that every benchmark has.

    Args:
        description: of the benchmark.
        repeat: default number of turns.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=repeat, help="turns; the medians are printed")
    parser.add_argument("--cases", nargs="*", default=[], help="only what has one of these words in its name")
    parser.add_argument("--json", action="store_true", help="print JSON; the tables go to standard error")
    return parser


def torch_options(description: str | None, repeat: int) -> argparse.ArgumentParser:
    """Create a parser with the options of benchmarks that run on either device.

    Args:
        description: of the benchmark.
        repeat: default number of turns.
    """
    parser = options(description, repeat)
    parser.add_argument("--device", choices=["cpu", "cuda"], help="by default the CPU, then a GPU if any")
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16"], help="by default float32, bfloat16 on a GPU"
    )
    parser.add_argument("--no-memory", action="store_true", help="time only")
    return parser


def dtype_on(device: str, arguments: argparse.Namespace) -> torch.dtype:
    """Return the requested dtype, or the usual one of the device.

    Args:
        device: "cpu" or "cuda".
        arguments: of the command line.
    """
    name = arguments.dtype or ("bfloat16" if device == "cuda" else "float32")
    return getattr(torch, name)


def devices(arguments: argparse.Namespace, report: Report) -> list[str]:
    """Return the devices to measure on: as asked, otherwise the CPU and then the GPU, if there is one.

    Args:
        arguments: of the command line.
        report: gets a note where the GPU is left out.
    """
    if arguments.device == "cpu":
        return ["cpu"]
    if torch.cuda.is_available():
        if arguments.device is None:
            report.note("memory on the CPU: measured only where no GPU is in sight (CUDA_VISIBLE_DEVICES=)")
        return ["cuda"] if arguments.device == "cuda" else ["cpu", "cuda"]
    if arguments.device == "cuda":
        sys.exit("bench: --device cuda, but torch sees no CUDA device; expected cpu, or a machine with a GPU")
    report.note("GPU part: skipped, torch sees no CUDA device")
    return ["cpu"]


class Report:
    """A header, tables and notes as they come; the same as JSON at the end if that was asked for.

    Args:
        arguments: of the command line, with `json`.
        *packages: whose versions matter, beside Python's and torch's.
    """

    def __init__(self, arguments: argparse.Namespace, *packages: str) -> None:
        self._stream = sys.stderr if arguments.json else sys.stdout
        self._json = arguments.json
        self._content: dict[str, Any] = {"header": header(packages), "tables": [], "notes": []}
        for name, value in self._content["header"].items():
            self._print(f"{name}: {value}")

    def table(self, title: str, columns: Sequence[str]) -> None:
        """Begin a table.

        Args:
            title: above it.
            columns: their names.
        """
        self._content["tables"].append({"title": title, "columns": list(columns), "rows": []})
        self._print(f"\n{title}\n\n| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")

    def row(self, *cells: str | float) -> None:
        """Print a row of the current table.

        Args:
            *cells: texts or numbers; NaN is shown as "-".
        """
        self._content["tables"][-1]["rows"].append(cells)
        shown = [cell if isinstance(cell, str) else "-" if cell != cell else f"{cell:.4g}" for cell in cells]
        self._print(f"| {' | '.join(shown)} |")

    def note(self, text: str) -> None:
        """Print a line of its own.

        Args:
            text: the line.
        """
        self._content["notes"].append(text)
        self._print(f"\n{text}")

    def close(self) -> None:
        """Print the JSON, with nothing for what was not measured."""
        if self._json:
            for table in self._content["tables"]:
                table["rows"] = [[None if x != x else x for x in row] for row in table["rows"]]
            print(json.dumps(self._content, indent=2, allow_nan=False))

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


def header(packages: Iterable[str] = ()) -> dict[str, str]:
    """Return date, hardware, versions, command, threads and load.

    Args:
        packages: whose versions are named beside Python's and torch's.
    """
    versions = [f"Python {platform.python_version()}"]
    versions += [f"{name} {metadata.version(name)}" for name in ("torch", *packages)]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    hardware = f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GB"
    if torch.cuda.is_available():
        hardware += f", {torch.cuda.get_device_name()}"
    return {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="minutes"),
        "hardware": hardware,
        "versions": ", ".join(versions),
        "command": shlex.join(["python", *_relative(sys.argv)]),
        "threads": str(torch.get_num_threads()),
        "load": f"{os.getloadavg()[0]:.2f} when it began",
    }


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _relative(argv: list[str]) -> list[str]:
    """The script as it is named from the root of the source."""
    return ["/".join(Path(argv[0]).resolve().parts[-3:]), *argv[1:]]


# --- time -----------------------------------------------------------------------------------------


def in_turn(
    runs: Mapping[str, Callable[[], object]],
    repeat: int,
    seconds: Callable[[Callable[[], object]], float] | None = None,
    before: Callable[[], object] | None = None,
) -> dict[str, float]:
    """Median seconds of each, run one after the other, the first turn only to warm up.

    Args:
        runs: name -> what to run.
        repeat: turns; ten times as many where a turn is short.
        seconds: how one run is timed; left out, by the wall clock.
        before: called before every run, outside its time.
    """
    clock = seconds or wall_seconds

    def turn() -> list[float]:
        times = []
        for run in runs.values():
            if before is not None:
                before()
            times.append(clock(run))
        return times

    turn()
    times = [turn()]
    if max(times[0]) < _SHORT:
        repeat *= _MORE
    times += [turn() for _ in range(repeat - 1)]
    return {
        name: statistics.median(column) for name, column in zip(runs, zip(*times, strict=True), strict=True)
    }


def wall_seconds(run: Callable[[], object]) -> float:
    """Seconds of one run by the wall clock.

    Args:
        run: what to time.
    """
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def process_seconds(run: Callable[[], object]) -> float:
    """Seconds of one run that this process was computing.

    Args:
        run: what to time.
    """
    start = time.process_time()
    run()
    return time.process_time() - start


def cuda_seconds(run: Callable[[], object]) -> float:
    """Seconds of one run between two events on the GPU, which the host's launching delays too.

    Args:
        run: what to time.
    """
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3


def seconds_on(device: str) -> Callable[[Callable[[], object]], float]:
    """Return how runs of one thread are timed on a device; other processes of the machine do not count.

    Args:
        device: "cpu" or "cuda".
    """
    return cuda_seconds if device == "cuda" else process_seconds


# --- memory and peak ------------------------------------------------------------------------------


def peak_megabytes(
    run: Callable[[], object], device: str = "cpu", release: Callable[[], object] | None = None
) -> float:
    """Megabytes that one run adds at its peak; NaN where this machine cannot tell.

    Args:
        run: run once before, so that what libraries load and keep is not counted.
        device: where it computes.
        release: frees what a run leaves behind, its gradients for example.
    """
    free = release or (lambda: None)
    if device == "cuda":
        return _cuda_peak(run, free)
    # Beside a GPU a forked child could not go backward: autograd has a thread for every device.
    if not _RESET.exists() or torch.cuda.is_available():
        return float("nan")
    return _in_a_child(lambda: _resident_peak(run, free))


# Writing 5 here sets the highest resident memory so far back to what it is now (Linux).
_RESET = Path("/proc/self/clear_refs")


def _cuda_peak(run: Callable[[], object], free: Callable[[], object]) -> float:
    run()
    free()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def _resident_peak(run: Callable[[], object], free: Callable[[], object]) -> float:
    run()
    free()
    ctypes.CDLL(None).malloc_trim(0)  # freed memory that stays resident would be used unseen
    _RESET.write_text("5")
    before_kb = _status("VmRSS")
    run()
    return (_status("VmHWM") - before_kb) * 1024 / 1e6


def _status(name: str) -> int:
    """Kilobytes of this process under that name."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _in_a_child(measure: Callable[[], float]) -> float:
    """What a forked child measures: it leaves nothing behind here."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writer, repr(measure()).encode())
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as result:
        answer = result.read()
    _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeError("the run whose memory was to be measured failed, or was killed for its memory")
    return float(answer)


def matmul_peak(device: str, dtype: torch.dtype, size: int | None = None, repeat: int = 20) -> float:
    """Return the highest rate of floating point operations of a matrix product here, per second.

    On the CPU the better of PyTorch's own product (MKL) and oneDNN's counts, whoever uses it.

    Args:
        device: "cpu" or "cuda".
        dtype: of the matrices.
        size: of the square matrices; None for the usual.
        repeat: runs; the fastest counts.
    """
    size = size or (8192 if device == "cuda" else 1024)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

    def by_pytorch() -> Tensor:
        return a @ b

    def by_onednn() -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")

    products = [by_pytorch]
    if device == "cpu" and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        products.append(by_onednn)
    clock = seconds_on(device)
    with torch.no_grad():
        fastest = min(clock(product) for _ in range(repeat + 1) for product in products)
    return 2 * size**3 / fastest


def chosen(name: str, words: Sequence[str]) -> bool:
    """Return whether a case was asked for; without words, all are.

    Args:
        name: of the case.
        words: parts of the names asked for.
    """
    return not words or any(word in name for word in words)
