"""Every sentence of the report that depends on the numbers, by its numbers."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from mmattn.evaluation.index_loss import IndexCost, OperatingPoint
from mmattn.evaluation.modality_gap import ModalityGap
from mmattn.evaluation.statistics.bootstrap import Interval
from mmattn.reports.results import Ablation, DataSummary, RecommendationReport, Subgroup, System
from mmattn.reports.sentences import (
    describe_gaps,
    describe_index_cost,
    describe_outcome,
    describe_subgroups,
    format_signed,
    join_words,
    metric_label,
    summarize_ablations,
)

METRIC = "ndcg@20"
DATA = DataSummary("toy", users=2, items=3, interactions=4, presence={"text": 3})


def interval(mean: float, half: float = 0.01) -> Interval:
    return Interval(mean, mean - half, mean + half)


def system(name: str, mean: float, difference: Interval | None = None) -> System:
    paired = {} if difference is None else {METRIC: difference}
    return System(name, name, {METRIC: interval(mean)}, difference=paired)


def report(*baselines: System, ours: float = 0.4, **more: Any) -> RecommendationReport:
    return RecommendationReport(
        title="A toy",
        data=DATA,
        systems=(system("mmattn", ours), *baselines),
        protocol={"seeds": [0]},
        **more,
    )


# --- verdict -------------------------------------------------------------------------------------


def test_without_a_baseline_nothing_is_claimed() -> None:
    assert describe_outcome(report()) == (
        "mmattn reaches nDCG@20 0.4000 (0.3900 to 0.4100). No baseline was evaluated, so the result "
        "cannot be put into context."
    )


def test_without_a_paired_difference_nobody_is_better() -> None:
    assert describe_outcome(report(system("knn", 0.1))) == (
        "mmattn reaches nDCG@20 0.4000 (0.3900 to 0.4100); the strongest baseline, knn, 0.1000. Without a "
        "paired difference, no claim is made about which is better."
    )


def test_ours_wins_against_the_strongest_of_several() -> None:
    weak = system("weak", 0.1, interval(0.3))
    assert describe_outcome(report(weak, system("knn", 0.35, interval(0.05)))) == (
        "mmattn beats knn, the strongest of 2 baselines: nDCG@20 0.4000 against 0.3500. The paired "
        "difference, "
        "mmattn minus the baseline, is +0.0500 (+0.0400 to +0.0600) and excludes zero."
    )


def test_of_one_baseline_it_is_not_said_that_it_is_the_strongest() -> None:
    assert describe_outcome(report(system("knn", 0.35, interval(0.05)))).startswith(
        "mmattn beats knn: nDCG@20 0.4000"
    )


def test_the_baseline_wins_and_is_named_first() -> None:
    weak = system("weak", 0.1, interval(0.3))
    assert describe_outcome(report(weak, system("knn", 0.45, interval(-0.05)))) == (
        "knn beats mmattn: nDCG@20 0.4500 against 0.4000. The paired difference, mmattn minus the baseline, "
        "is "
        "−0.0500 (−0.0600 to −0.0400) and excludes zero."
    )


@pytest.mark.parametrize("mean", [0.005, -0.005])
def test_an_interval_over_zero_tells_nobody_apart(mean: float) -> None:
    text = describe_outcome(report(system("knn", 0.4 - mean, interval(mean))))
    assert text.startswith("mmattn and knn cannot be told apart: nDCG@20 0.4000 against")
    assert text.endswith("includes zero.")
    assert "beats" not in text


# --- what each content is worth ------------------------------------------------------------------


def dropped(part: str, change: float, kind: str = "drop") -> Ablation:
    return Ablation(part, part, {METRIC: interval(0.3)}, {METRIC: interval(change)}, kind, part)


def test_contents_that_are_needed_unclear_and_harmful() -> None:
    words = summarize_ablations(
        [dropped("text", -0.05), dropped("image", 0.005), dropped("table", 0.02)], interval(0.4), METRIC
    )
    assert words == (
        "Text contributes to the result: nDCG@20 changes without text by −0.0500 (−0.0600 to −0.0400). "
        "No effect is shown for image (−0.0050 to +0.0150): the interval of the change includes zero. "
        "The result is better without table (+0.0200, +0.0100 to +0.0300)."
    )


def test_two_contents_earn_their_places_and_one_is_best_alone() -> None:
    alone = [
        dataclasses.replace(dropped(part, 0.0, "subset"), metrics={METRIC: interval(mean)})
        for part, mean in (("text", 0.3), ("image", 0.2), ("image + text", 0.39))
    ]
    words = summarize_ablations(
        [dropped("text", -0.05), dropped("image", -0.03), *alone], interval(0.4), METRIC
    )
    assert words == (
        "Text and image contribute to the result: nDCG@20 changes without text by −0.0500 (−0.0600 to "
        "−0.0400) and "
        "without image by −0.0300 (−0.0400 to −0.0200). "
        "The best single modality is text with 0.3000, compared with 0.4000 for all modalities."
    )


def test_only_whole_contents_that_were_dropped_and_compared_are_spoken_of() -> None:
    uncompared = dataclasses.replace(dropped("text", -0.05), change={})
    others = [uncompared, dropped("table.year", -0.05), dropped("text", -0.05, "shuffle"), dropped("", -0.05)]
    assert summarize_ablations(others, interval(0.4), METRIC) == ""


# --- subgroups, gaps, the index ---------------------------------------------------------------------


def subgroup(group: str, name: str, difference: Interval | None) -> Subgroup:
    return Subgroup(group, name, METRIC, {"mmattn": interval(0.3)}, difference)


def test_where_ours_is_better_and_where_not() -> None:
    subgroups = (
        subgroup("items", "head", interval(0.05)),
        subgroup("items", "tail", interval(-0.05)),
        subgroup("history", "1 to 9", interval(0.0)),
        subgroup("history", "10 to 19", interval(0.0)),
        subgroup("history", "nobody", None),
    )
    baseline = system("knn", 0.35, interval(0.05))
    assert describe_subgroups(report(baseline, subgroups=subgroups)) == (
        "mmattn is better than knn for items head. knn is better for items tail. "
        "No difference is shown for history 1 to 9 and history 10 to 19."
    )
    assert describe_subgroups(report(subgroups=subgroups)) == ""
    assert describe_subgroups(report(baseline)) == ""


def test_contents_that_align_and_contents_that_do_not() -> None:
    gaps = {
        "text | image": ModalityGap(0.8, 0.4, 0.1, samples=9),
        "text | audio": ModalityGap(0.9, 0.301, 0.2, samples=9),  # just enough
        "text | table": ModalityGap(1.1, 0.101, 0.1, samples=9),
        "image | table": ModalityGap(1.2, -0.2, 0.1, samples=9),
    }
    assert describe_gaps(gaps) == (
        "Aligned: text with image (0.400 versus 0.100) and text with audio (0.301 versus 0.200). The "
        "vectors of one item are closer than those of different items (mean cosines). "
        "Not aligned: text with table (0.101 versus 0.100) and image with table (-0.200 versus 0.100). The "
        "vectors of one item are closer than those of different items by less than 0.1 in cosine, so "
        "cross-modal search would not work. Recommendation does not require alignment."
    )
    assert describe_gaps({}) == ""
    assert "Not aligned" not in describe_gaps({"text | image": ModalityGap(0.8, 0.4, 0.1, samples=9)})


def served(*points: tuple[int, float, float, float], exact: float = 9000.0) -> IndexCost:
    """Of (effort, recall, index loss, queries per second)."""
    results = [
        OperatingPoint(effort, recall, interval(0.5), interval(loss), qps)
        for effort, recall, loss, qps in points
    ]
    whole = OperatingPoint(0, 1.0, interval(0.5), interval(0.0), exact)
    return IndexCost(
        METRIC, 651, 6037, 128, "IVF26,Flat", interval(0.5), interval(0.002), whole, tuple(results)
    )


def test_an_index_that_loses_nothing_from_some_effort_on() -> None:
    assert describe_index_cost(served((1, 0.5, 0.1, 90_000.0), (8, 0.99, 0.001, 20_000.0))) == (
        "The model loses 0.5000 of a perfect nDCG@20 of 1. Replacing its scores by vectors of width 128 "
        "loses "
        "another +0.0020 (−0.0080 to +0.0120). The index (IVF26,Flat) has no measurable loss from 8 probed "
        "lists on: +0.0010 (−0.0090 to +0.0110), with 99.0% recall of exact search."
    )
    assert "from 1 probed list on" in describe_index_cost(served((1, 0.9, 0.0, 90_000.0)))


def test_an_index_that_always_loses_and_one_that_is_slower_than_exact_search() -> None:
    words = describe_index_cost(served((1, 0.5, 0.1, 900.0), (8, 0.9, 0.02, 200.0)))
    assert "loses +0.0200 (+0.0100 to +0.0300) at 8 probed lists, with 90.0% recall" in words
    assert words.endswith("Among 651 items exact search is faster.")
    assert describe_index_cost(served()).endswith("(−0.0080 to +0.0120).")


def test_small_words() -> None:
    assert [metric_label(name) for name in ("map@5", "hit@10", "mrr", "coverage@3")] == [
        "MAP@5", "Hit rate@10", "MRR", "Coverage@3",
    ]  # fmt: skip
    assert [join_words(words) for words in ([], ["a"], ["a", "b"])] == ["", "a", "a and b"]
    assert format_signed(-0.25) == "\N{MINUS SIGN}0.2500"
