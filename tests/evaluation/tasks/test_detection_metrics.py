"""Average precision: by hand, against a plain oracle, and as COCO has it in every draw of a bootstrap."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from mmattn.boxes import Boxes
from mmattn.errors import InputError, MissingDependency
from mmattn.evaluation.tasks.detection import IOU_THRESHOLDS, detection_metrics, per_class_detection_metrics
from mmattn.evaluation.tasks.detection_intervals import (
    bootstrap_detection,
    match_predictions,
    paired_bootstrap_detection,
)

SIZE = (101, 103)
HERE, THERE, AWAY = (0, 0, 10, 10), (50, 50, 60, 60), (80, 80, 90, 90)


def truth(*boxes: Sequence[float], label: str = "a") -> Boxes:
    return Boxes(torch.tensor(boxes).float().reshape(-1, 4), [label] * len(boxes), SIZE)


def said(*scored: tuple[Sequence[float], float], label: str = "a") -> Boxes:
    boxes = torch.tensor([box for box, _ in scored]).float().reshape(-1, 4)
    return Boxes(boxes, [label] * len(scored), SIZE, torch.tensor([score for _, score in scored]))


def random_set(seed: int, pictures: int = 13) -> tuple[list[Boxes], list[Boxes]]:
    """Truth in three classes, and predictions that are off by some pixels, confused, doubled or made up."""
    rng = np.random.default_rng(seed)
    targets, predictions = [], []
    for _ in range(pictures):
        count = int(rng.integers(0, 7))
        corners = rng.uniform(0, 60, (count, 2))
        boxes = np.hstack([corners, corners + rng.uniform(8, 40, (count, 2))])
        labels = rng.choice(["a", "b", "c"], count, p=[0.7, 0.2, 0.1])
        copies = rng.integers(0, 3, count)
        guesses = np.repeat(boxes, copies, 0) + rng.normal(0, 1.5, (copies.sum(), 4))
        names = [
            label if rng.random() < 0.9 else str(rng.choice(["a", "b", "d"]))
            for label in np.repeat(labels, copies)
        ]
        made_up = rng.uniform(0, 50, (rng.integers(0, 3), 2))
        guesses = np.vstack([guesses, np.hstack([made_up, made_up + 20])])
        names += ["a"] * len(made_up)
        targets.append(Boxes(torch.tensor(boxes).float().reshape(-1, 4), labels.tolist(), SIZE))
        scores = torch.tensor(rng.permutation(len(names)) / 97 + rng.random() / 1000).float()
        predictions.append(Boxes(torch.tensor(guesses).float(), names, SIZE, scores))
    return predictions, targets


# --- an oracle, as plain as can be ---------------------------------------------------------------


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    if wide <= 0 or high <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return wide * high / (sum(areas) - wide * high)


def oracle(predictions: list[Boxes], targets: list[Boxes], label: str, threshold: float) -> float:
    ranked = sorted(
        (-float(score), picture, box)
        for picture, boxes in enumerate(predictions)
        for score, box, name in zip(boxes.scores, boxes.boxes.tolist(), boxes.labels, strict=True)
        if name == label
    )
    left = {
        picture: [b for b, name in zip(boxes.boxes.tolist(), boxes.labels, strict=True) if name == label]
        for picture, boxes in enumerate(targets)
    }
    total = sum(map(len, left.values()))
    if not total:
        return math.nan
    points, actual = [], 0
    for index, (_, picture, box) in enumerate(ranked, start=1):
        best = max(left[picture], key=lambda other: overlap(box, other), default=None)
        if best is not None and overlap(box, best) >= threshold:
            left[picture].remove(best)
            actual += 1
        points.append((actual / total, actual / index))
    best_at = [max((p for r, p in points if r >= recall), default=0.0) for recall in np.linspace(0, 1, 101)]
    return sum(best_at) / 101


# --- figures -------------------------------------------------------------------------------------


def test_by_hand() -> None:
    """Right, wrong, right: precision 1 up to recall .5 (51 of 101 recalls), 2/3 up to 1 (the other 50)."""
    targets = [truth(HERE), truth(THERE)]
    predictions = [said((HERE, 0.9), (AWAY, 0.8)), said((THERE, 0.7))]
    figures = detection_metrics(predictions, targets)
    expected = (51 + 50 * 2 / 3) / 101
    assert figures == pytest.approx({"map": expected, "ap50": expected, "ap75": expected, "recall": 1.0})


def test_thresholds_by_hand() -> None:
    """Seven of ten rows are covered: IoU .7, found at .50, .55, .60, .65 and .70 of ten thresholds."""
    figures = detection_metrics([said(((0, 0, 10, 7), 0.9))], [truth(HERE)])
    assert figures == pytest.approx({"map": 0.5, "ap50": 1.0, "ap75": 0.0, "recall": 0.5})


def test_a_box_is_found_once() -> None:
    """The second finder of the same box is wrong, but comes after full recall."""
    predictions = [said((HERE, 0.9), (HERE, 0.8))]
    assert detection_metrics(predictions, [truth(HERE)])["ap50"] == pytest.approx(1.0)
    figures = detection_metrics(predictions, [truth(HERE, THERE)])
    assert figures["ap50"] == pytest.approx(51 / 101)
    assert figures["recall"] == pytest.approx(0.5)


def test_pictures_without_truth_count_against_what_is_said_there() -> None:
    targets = [truth(), truth(HERE)]
    assert detection_metrics([said((HERE, 0.9)), said((HERE, 0.8))], targets)["ap50"] == pytest.approx(0.5)
    assert detection_metrics([said(), said((HERE, 0.8))], targets)["ap50"] == pytest.approx(1.0)


def test_nothing_said_is_zero_and_nothing_true_is_nan() -> None:
    figures = detection_metrics([said(), said()], [truth(HERE), truth()])
    assert figures == {"map": 0, "ap50": 0, "ap75": 0, "recall": 0}
    for figures in (
        detection_metrics([said((HERE, 0.5))], [truth()]),
        detection_metrics([said()], [truth()]),
        detection_metrics([], []),
    ):
        assert list(figures) == ["map", "ap50", "ap75", "recall"]
        assert all(math.isnan(value) for value in figures.values())


def test_classes_apart() -> None:
    targets = [truth(HERE), truth(THERE, AWAY, label="b")]
    predictions = [said((HERE, 0.9)), said((THERE, 0.8), label="b")]
    figures = per_class_detection_metrics([*predictions, said((HERE, 0.9), label="z")], [*targets, truth()])
    assert figures["a"] == pytest.approx({"map": 1, "ap50": 1, "ap75": 1, "recall": 1, "support": 1})
    assert figures["b"]["ap50"] == pytest.approx(51 / 101)
    assert figures["b"]["support"] == 2
    assert math.isnan(figures["z"]["ap50"])
    assert figures["z"]["support"] == 0
    both = detection_metrics([*predictions, said((HERE, 0.9), label="z")], [*targets, truth()])
    assert both["ap50"] == pytest.approx((1 + 51 / 101) / 2)


@pytest.mark.parametrize("seed", range(7))
def test_the_same_as_an_oracle(seed: int) -> None:
    predictions, targets = random_set(seed)
    figures = per_class_detection_metrics(predictions, targets)
    for label, row in figures.items():
        by_threshold = [oracle(predictions, targets, label, threshold) for threshold in IOU_THRESHOLDS]
        assert row["ap50"] == pytest.approx(by_threshold[0], abs=1e-12, nan_ok=True)
        assert row["ap75"] == pytest.approx(by_threshold[5], abs=1e-12, nan_ok=True)
        assert row["map"] == pytest.approx(float(np.mean(by_threshold)), abs=1e-12, nan_ok=True)
    present = [row["map"] for row in figures.values() if row["support"]]
    assert detection_metrics(predictions, targets)["map"] == pytest.approx(np.mean(present))


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ([], "got 0 predictions and 1 targets, expected as many"),
        ([truth(HERE)], "image 0 has predictions without finite scores"),
        ([said((HERE, float("nan")))], "image 0 has predictions without finite scores"),
        ([said((HERE, 0.5)).scaled((1, 1))], r"image 0 is \(101, 103\) in the targets and \(1, 1\)"),
    ],
)
def test_predictions_that_do_not_answer(predictions: list[Boxes], message: str) -> None:
    for measure in (detection_metrics, per_class_detection_metrics, match_predictions):
        with pytest.raises(InputError, match=message):
            measure(predictions, [truth(HERE)])


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(MissingDependency, match=r"pip install 'mmattn\[detection\]'"):
        detection_metrics([said((HERE, 0.5))], [truth(HERE)])


# --- intervals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_every_draw_has_cocos_own_figures(seed: int) -> None:
    """Pictures that count w times are the same as w copies of them."""
    predictions, targets = random_set(seed + 50)
    matches = match_predictions(predictions, targets)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(targets), np.full(len(targets), 1 / len(targets)), size=3)
    weights[0] = 1
    for weight in weights:
        rows = np.repeat(np.arange(len(targets)), weight)
        expected = per_class_detection_metrics(
            [predictions[row] for row in rows], [targets[row] for row in rows]
        )
        for label, match in matches.items():
            values = match.average_precision(weight[None].astype(float))[0]
            if label not in expected or not expected[label]["support"]:
                assert np.isnan(values).all()
                continue
            assert values[0] == pytest.approx(expected[label]["ap50"], abs=1e-9)
            assert values[5] == pytest.approx(expected[label]["ap75"], abs=1e-9)
            assert values.mean() == pytest.approx(expected[label]["map"], abs=1e-9)


def test_interval_around_the_figure() -> None:
    sets = [random_set(seed, pictures=43) for seed in (1, 1)]
    targets = sets[0][1]
    result = bootstrap_detection([predictions for predictions, _ in sets], targets, n_resamples=211)
    figures = detection_metrics(sets[0][0], targets)
    for name in ("map", "ap50", "ap75"):
        assert result[name].mean == pytest.approx(figures[name])
        assert result[name].seed_means == pytest.approx((figures[name],) * 2)
        assert result[name].low < figures[name] < result[name].high
    assert result["ap50 a"].mean == pytest.approx(
        per_class_detection_metrics(sets[0][0], targets)["a"]["ap50"]
    )
    assert result["map"].n_samples == 43
    again = bootstrap_detection([predictions for predictions, _ in sets], targets, n_resamples=211)
    assert again == result


def test_more_than_a_block_of_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    predictions, targets = random_set(3)
    whole = bootstrap_detection([predictions], targets, n_resamples=37)
    monkeypatch.setattr("mmattn.evaluation.tasks.detection_intervals._MAX_VALUES", 300)
    assert bootstrap_detection([predictions], targets, n_resamples=37)["map"] == whole["map"]


def test_differences_are_paired() -> None:
    predictions, targets = random_set(9, pictures=31)
    nothing = [said() for _ in targets]
    same = paired_bootstrap_detection([predictions], [predictions], targets, n_resamples=53)["ap50"]
    assert (same.mean, same.low, same.high) == (0, 0, 0)
    better = paired_bootstrap_detection([predictions], [nothing], targets, n_resamples=53)["ap50"]
    alone = bootstrap_detection([predictions], targets, n_resamples=53)["ap50"]
    assert (better.mean, better.low, better.high) == (alone.mean, alone.low, alone.high)


def test_intervals_without_truth_or_seeds() -> None:
    empty = bootstrap_detection([[said((HERE, 0.5))]], [truth()], n_resamples=3)
    assert math.isnan(empty["ap50"].mean)
    with pytest.raises(InputError, match="got 0 seeds and 1 images, expected at least one each"):
        bootstrap_detection([], [truth()])
    with pytest.raises(InputError, match="got 1 seeds and 0 images"):
        bootstrap_detection([[]], [])
    with pytest.raises(InputError, match="got 1 and 2 seeds, expected the same"):
        paired_bootstrap_detection([[said()]], [[said()]] * 2, [truth()])
