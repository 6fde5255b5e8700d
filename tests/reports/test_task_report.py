"""The page of a run with tasks: what it claims, what it shows, and that names cannot break it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmattn.evaluation.statistics.bootstrap import Interval
from mmattn.evaluation.tasks.examples import TaggedWord, TaskExample, TaskExamples
from mmattn.reports.report import render_report, write_report
from mmattn.reports.results import Curve, Panel
from mmattn.reports.tasks.results import ClassRow, Perturbation, TaskAblation, TaskOutcome, TaskReport


def around(mean: float, wide: float = 0.02) -> Interval:
    return Interval(mean, mean - wide, mean + wide, (mean, mean))


def outcome(change: float, primary: str = "accuracy", **more: Any) -> TaskOutcome:
    lower = frozenset({"wer"})
    defaults: dict[str, Any] = {
        "name": "digit", "head": "classification", "target": "digit", "data": "toy",
        "inputs": ("image", "text"), "parts": {"train": 5, "validation": 2, "test": 3},
        "primary_metric": primary,
        "lower_is_better": lower, "metrics": {primary: around(0.5 + change)},
        "single_task": {primary: around(0.5)},
        "gain": {primary: around(change)},
    }  # fmt: skip
    return TaskOutcome(**{**defaults, **more})


def words_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page))


@pytest.mark.parametrize(
    ("change", "primary", "expected", "said"),
    [
        (
            0.1,
            "accuracy",
            "gained",
            "Joint training is better than single-task training (0.5000): +0.1000 (+0.0800 to +0.1200)",
        ),
        (-0.1, "accuracy", "lost", "Joint training is worse than single-task training"),
        (0.01, "accuracy", "even", "Joint and single-task training (0.5000) cannot be told apart"),
        (0.1, "wer", "lost", "Joint training is worse than single-task training"),
        (-0.1, "wer", "gained", "Joint training is better than single-task training"),
    ],
)
def test_what_was_gained_or_lost(change: float, primary: str, expected: str, said: str) -> None:
    task = outcome(change, primary)
    assert task.outcome == expected
    page = render_report(TaskReport(title="A run", tasks=(task,), protocol={"seeds": [0, 1]}))
    assert said in words_of(page)
    assert (", lower is better" in page) == (primary == "wer")
    assert task.to_json()["outcome"] == expected


def test_a_task_alone_claims_nothing_of_others() -> None:
    task = outcome(0.0, single_task={}, gain={})
    page = render_report(TaskReport(title="A run", tasks=(task,), protocol={}))
    assert task.outcome == ""
    assert "single-task" not in words_of(page)
    assert "Effect of joint training" not in page


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
        ablations=taken,
        perturbations=(Perturbation("all", 0.5, {"accuracy": around(0.4)}),),
        classes=(ClassRow("one", 0.25, 0.75, 0.375, 2), ClassRow("<two>", 1.0, 1.0, 1.0, 1)),
        class_names=("one", "<two>"),
        confusion=np.array([[1, 3], [0, 2]]),
        examples=TaskExamples(
            cases=(TaskExample("item 7", None, "a <b>bold</b> text", ("text",), "one", "<two>"),)
        ),
    )
    tags = outcome(
        0.0,
        "f1",
        name="places",
        examples=TaskExamples(
            cases=(TaskExample("9", contents=("text",), words=(TaggedWord("York", "B-place", "O"),)),)
        ),
    )
    panel = Panel("digit: accuracy", "epoch", (Curve("seed 0", (1.0, 2.0), (0.1, 0.5), selected_x=2.0),))
    report = TaskReport(
        title="Two <tasks>", tasks=(whole, tags), protocol={"seeds": [0]},
        protocol_sentences=("Said & done.",),
        data={"toy": {"about": "Toys.", "presence": {"image": 9}, "parts": {"test": 3}, "rejected": {}}},
        learning_curves=(panel,), provenance={"config": "name: x"},
    )  # fmt: skip
    write_report(tmp_path / "report.html", report)
    page = (tmp_path / "report.html").read_text()
    assert "<tasks>" not in page
    assert "<b>bold</b>" not in page
    answer = words_of(page)
    for expected in (
        "Two &lt;tasks&gt;", "Said &amp; done.", "For digit, image cannot be left out.", "no effect shown",
        "noise on all modalities", "Examples of errors", "5 training items, 2 validation items, 3 test items",
        "York", "O ≠ B-place", "All subsets of modalities",
    ):  # fmt: skip
        assert expected in answer, expected
    assert "--v:0.750" in page  # three of the four ones were taken for another class
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["tasks"]["digit"]["confusion"] == {
        "class_names": ["one", "<two>"],
        "counts": [[1, 3], [0, 2]],
    }
    assert metrics["systems"]["mmattn"]["places f1"]["mean"] == 0.5
    assert metrics["tasks"]["digit"]["perturbations"][0]["level"] == 0.5


def test_a_matrix_too_large_to_read_is_left_out() -> None:
    many = outcome(0.0, class_names=tuple(map(str, range(31))), confusion=np.eye(31, dtype=np.int64))
    assert "Confusion matrix" not in render_report(TaskReport(title="A run", tasks=(many,), protocol={}))
