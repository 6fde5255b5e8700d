"""What a report holds: the verdict says what the numbers say, and nothing unmeasured gets in."""

from __future__ import annotations

import pytest

from mmattn.errors import InputError
from mmattn.evaluation.statistics.bootstrap import Interval
from mmattn.reports.results import Ablation, Curve, DataSummary, RecommendationReport, System
from mmattn.reports.sentences import describe_outcome

DATA = DataSummary("toy", users=3, items=5, interactions=7, presence={"text": 5})


def interval(mean: float, half: float = 0.01) -> Interval:
    return Interval(mean, mean - half, mean + half, seed_means=(mean,))


def report(ours: float, *baselines: System, **changes) -> RecommendationReport:
    systems = (System("mmattn", "mmattn", {"ndcg@20": interval(ours)}), *baselines)
    return RecommendationReport(
        title="A run", data=DATA, systems=systems, **{"protocol": {"seeds": [0]}, **changes}
    )


def baseline(mean: float, difference: Interval | None = None, name: str = "ridge") -> System:
    return System(
        name,
        name.capitalize(),
        {"ndcg@20": interval(mean)},
        "",
        {"ndcg@20": difference} if difference else {},
    )


def test_verdict_when_ours_is_better() -> None:
    verdict = describe_outcome(report(0.4, baseline(0.1, name="weak"), baseline(0.3, interval(0.1, 0.02))))
    assert verdict == (
        "mmattn beats Ridge, the strongest of 2 baselines: nDCG@20 0.4000 against 0.3000. The paired "
        "difference, mmattn minus the baseline, is +0.1000 (+0.0800 to +0.1200) and excludes zero."
    )


def test_verdict_when_a_baseline_is_better() -> None:
    verdict = describe_outcome(report(0.3, baseline(0.4, interval(-0.1, 0.02))))
    assert verdict.startswith("Ridge beats mmattn: nDCG@20 0.4000 against 0.3000.")
    assert "−0.1000 (−0.1200 to −0.0800)" in verdict


def test_verdict_when_they_cannot_be_told_apart() -> None:
    verdict = describe_outcome(report(0.31, baseline(0.3, interval(0.01, 0.02))))
    assert verdict.startswith("mmattn and Ridge cannot be told apart")
    assert "includes zero" in verdict


def test_verdict_claims_nothing_without_a_paired_difference_or_a_baseline() -> None:
    assert "no claim is made" in describe_outcome(report(0.9, baseline(0.1)))
    assert "cannot be put into context" in describe_outcome(report(0.9))
    assert describe_outcome(report(0.9, verdict="Said by hand.")) == "Said by hand."


def test_json_is_the_format_of_metrics_json() -> None:
    without = Ablation(
        "without-text", "Without text", {"ndcg@20": interval(0.2)}, {"ndcg@20": interval(-0.1)}
    )
    actual = report(0.3, baseline(0.25, interval(0.05)), ablations=(without,)).to_json()
    assert list(actual)[:3] == ["protocol", "systems", "ablations"]
    assert actual["protocol"] == {"seeds": [0]}
    assert actual["systems"]["mmattn"]["ndcg@20"] == {"mean": 0.3, "low": 0.29, "high": 0.31, "seeds": [0.3]}
    assert actual["ablations"]["without-text"]["ndcg@20"]["mean"] == 0.2
    assert actual["ablation_changes"]["without-text"]["ndcg@20"]["mean"] == -0.1
    assert actual["differences"]["ridge"]["ndcg@20"]["mean"] == 0.05


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: report(0.3, baseline(0.1), baseline(0.2)), "each name once"),
        (
            lambda: RecommendationReport(title="A run", data=DATA, systems=(baseline(0.1),), protocol={}),
            "expected 'mmattn' among them",
        ),
        (lambda: report(0.3, System("x", "X", {"recall@20": interval(0.1)})), "'x' has metrics"),
        (lambda: report(0.3, primary="ndgc@20"), "Did you mean 'ndcg@20'"),
        (lambda: Curve("seed 0", (1.0, 2.0), (1.0,)), "2 x and 1 y"),
    ],
)
def test_refusals(build, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()
