"""The page of a run with tasks: what it claims, what it shows, and that names cannot break it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmattn.evaluation.statistics.bootstrap import Interval
from mmattn.reports.results import Curve, Panel
from mmattn.reports.tasks.examples import TaggedWord, TaskExample
from mmattn.reports.tasks.report import render_tasks, write_task_report
from mmattn.reports.tasks.results import ClassRow, Perturbation, TaskAblation, TaskOutcome, TaskReport


def around(mean: float, wide: float = 0.02) -> Interval:
    return Interval(mean, mean - wide, mean + wide, (mean, mean))


def outcome(change: float, primary: str = "accuracy", **more: Any) -> TaskOutcome:
    lower = frozenset({"wer"})
    defaults: dict[str, Any] = {
        "name": "digit", "head": "classification", "target": "digit", "data": "toy", "kind": "class",
        "reads": ("image", "text"), "parts": {"train": 5, "validation": 2, "test": 3}, "primary": primary,
        "lower": lower, "metrics": {primary: around(0.5 + change)}, "alone": {primary: around(0.5)},
        "gain": {primary: around(change)},
    }  # fmt: skip
    return TaskOutcome(**{**defaults, **more})


def words_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page))


@pytest.mark.parametrize(
    ("change", "primary", "expected", "said"),
    [
        (0.1, "accuracy", "gained", "it is better than alone (0.5000): +0.1000 (+0.0800 to +0.1200)"),
        (-0.1, "accuracy", "lost", "it is worse than alone"),
        (0.01, "accuracy", "even", "Together and alone (0.5000) cannot be told apart"),
        (0.1, "wer", "lost", "it is worse than alone"),
        (-0.1, "wer", "gained", "it is better than alone"),
    ],
)
def test_what_was_gained_or_lost(change: float, primary: str, expected: str, said: str) -> None:
    task = outcome(change, primary)
    assert task.outcome == expected
    page = render_tasks(TaskReport("A run", (task,), {"seeds": [0, 1]}))
    assert said in words_of(page)
    assert (", less is better" in page) == (primary == "wer")
    assert task.to_json()["outcome"] == expected


def test_a_task_alone_claims_nothing_of_others() -> None:
    task = outcome(0.0, alone={}, gain={})
    page = render_tasks(TaskReport("A run", (task,), {}))
    assert task.outcome == ""
    assert "alone" not in words_of(page)
    assert "gained or lost" not in page


def test_everything_has_its_place(tmp_path: Path) -> None:
    taken = (
        TaskAblation("without-image", "image", "drop", {"accuracy": around(0.3)}, {"accuracy": around(-0.2)}),
        TaskAblation(
            "shuffled-image", "image", "shuffle", {"accuracy": around(0.2)}, {"accuracy": around(-0.3)}
        ),
        TaskAblation("without-text", "text", "drop", {"accuracy": around(0.5)}, {"accuracy": around(0.0)}),
        TaskAblation("only-text", "text", "subset", {"accuracy": around(0.3)}, {"accuracy": around(-0.2)}),
    )
    whole = outcome(
        0.0,
        taken=taken,
        disturbed=(Perturbation("all", 0.5, {"accuracy": around(0.4)}),),
        classes=(ClassRow("one", 0.25, 0.75, 0.375, 2), ClassRow("<two>", 1.0, 1.0, 1.0, 1)),
        names=("one", "<two>"),
        confusion=np.array([[1, 3], [0, 2]]),
        examples=(TaskExample("item 7", None, "a <b>bold</b> text", ("text",), "one", "<two>"),),
    )
    tags = outcome(
        0.0,
        "f1",
        name="places",
        kind="tags",
        examples=(TaskExample("9", None, "", ("text",), words=(TaggedWord("York", "B-place", "O"),)),),
    )
    panel = Panel("digit: accuracy", "epoch", (Curve("seed 0", (1.0, 2.0), (0.1, 0.5), selected_x=2.0),))
    report = TaskReport(
        "Two <tasks>", (whole, tags), {"seeds": [0]}, ("Said & done.",),
        {"toy": {"about": "Toys.", "presence": {"image": 9}, "parts": {"test": 3}, "rejected": {}}},
        (panel,), {"config": "name: x"},
    )  # fmt: skip
    write_task_report(tmp_path / "report.html", report)
    page = (tmp_path / "report.html").read_text()
    assert "<tasks>" not in page
    assert "<b>bold</b>" not in page
    said = words_of(page)
    for expected in (
        "Two &lt;tasks&gt;", "Said &amp; done.", "For digit, image cannot be left out.", "no effect shown",
        "noise on everything", "Some that are wrong", "5 items to learn from, 2 to choose on, 3 to test",
        "York", "O ≠ B-place", "Every subset of the contents",
    ):  # fmt: skip
        assert expected in said, expected
    assert "--v:0.750" in page  # three of the four ones were taken for another class
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["tasks"]["digit"]["confusion"] == {"names": ["one", "<two>"], "counts": [[1, 3], [0, 2]]}
    assert metrics["systems"]["mmattn"]["places f1"]["mean"] == 0.5
    assert metrics["tasks"]["digit"]["disturbed"][0]["level"] == 0.5


def test_a_matrix_too_large_to_read_is_left_out() -> None:
    many = outcome(0.0, names=tuple(map(str, range(31))), confusion=np.eye(31, dtype=np.int64))
    assert "Confusion matrix" not in render_tasks(TaskReport("A run", (many,), {}))
