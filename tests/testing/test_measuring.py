"""Measuring: memory of a run, runs in turn, and medians."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmattn.testing import measuring


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="resident memory is read on Linux only"
)
def test_peak_memory_is_what_a_run_adds_even_where_memory_was_freed() -> None:
    torch.ones(40_000_000).sum()  # freed again: it must not hide what comes
    actual = measuring.peak_megabytes(lambda: torch.ones(13_000_000).sum())
    assert actual == pytest.approx(52, abs=3)


def test_a_run_that_fails_while_its_memory_is_measured_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="failed"):
        measuring._in_a_child(lambda: 1 / 0)


def test_baselines_run_in_turn_and_medians_count() -> None:
    calls: list[str] = []
    times = iter([9.0, 9.0, 1.0, 2.0, 5.0, 4.0, 3.0, 3.0])
    actual = measuring.in_turn(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")},
        3,
        seconds=lambda run: (run(), next(times))[1],
        before=lambda: calls.append("-"),
    )
    assert "".join(calls) == "-a-b" * 4
    assert actual == {"a": 3.0, "b": 3.0}
