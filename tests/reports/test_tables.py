"""Tables: what Markdown and LaTeX would misread is escaped, and every section of a report has its own."""

from __future__ import annotations

from pathlib import Path

from mmattn.evaluation.statistics.bootstrap import Interval
from mmattn.reports.results import Ablation, DataSummary, RecommendationReport, Subgroup, System
from mmattn.reports.sentences import summarize_ablations
from mmattn.reports.tables import Table, report_tables, write_tables


def interval(mean: float) -> Interval:
    return Interval(mean, mean - 0.01, mean + 0.01, n_samples=7)


def test_signs_that_mean_something_are_escaped() -> None:
    table = Table("50% & more", ("a_b", "x"), (("c|d", "\N{MINUS SIGN}1"),), {(0, 1)})
    assert (
        r"| c\|d | **\N{MINUS SIGN}1** |".replace(r"\N{MINUS SIGN}", "\N{MINUS SIGN}") in table.to_markdown()
    )
    assert r"\caption{50\% \& more}" in table.to_latex()
    assert r"a\_b & x \\" in table.to_latex()
    assert r"c$|$d & \textbf{$-$1} \\" in table.to_latex()
    assert table.to_text().splitlines() == ["a_b  x", "c|d  \N{MINUS SIGN}1"]


def test_a_report_s_tables(tmp_path: Path) -> None:
    def system(name: str, mean: float, **more) -> System:
        return System(name, name, {"ndcg@20": interval(mean)}, **more)

    report = RecommendationReport(
        title="A run",
        data=DataSummary("toy", users=7, items=5, interactions=11, presence={}),
        systems=(system("mmattn", 0.4), system("ridge", 0.3, difference={"ndcg@20": interval(0.1)})),
        protocol={},
        ablations=(
            Ablation("without-text", "without text", {"ndcg@20": interval(0.2)}, {"ndcg@20": interval(-0.2)},
                     "drop", "text"),
            Ablation("noise-text", "noise for text", {"ndcg@20": interval(0.1)}, {"ndcg@20": interval(-0.3)},
                     "noise", "text"),
            Ablation("without-image", "without image", {"ndcg@20": interval(0.4)}, {"ndcg@20": interval(0.0)},
                     "drop", "image"),
            Ablation("only-text", "text", {"ndcg@20": interval(0.35)}, {}, "subset", "text"),
        ),
        subgroups=(Subgroup("items", "head", "recall@20", {"mmattn": interval(0.5), "ridge": interval(0.4)},
                        interval(0.1)),),
    )  # fmt: skip
    systems, differences, ablations, subsets, subgroups = report_tables(report)
    assert systems.rows == (("mmattn", "0.4000 (0.3900 to 0.4100)"), ("ridge", "0.3000 (0.2900 to 0.3100)"))
    assert systems.bold == {(0, 1)}
    assert differences.rows == (("ridge", "+0.1000 (+0.0900 to +0.1100)"),)
    assert ablations.columns == ("input", "without it", "noise")
    assert [row[0] for row in ablations.rows] == ["text", "image"]
    assert ablations.rows[1][2] == "-"  # there was no noise for images
    assert subsets.rows == (("text", "0.3500 (0.3400 to 0.3600)"),)
    assert subgroups.rows[0][:2] == ("items: head", "7")
    write_tables(tmp_path / "report.html", [systems, subgroups])
    assert (tmp_path / "tables.tex").read_text().count(r"\begin{tabular}") == 2
    assert (tmp_path / "tables.md").read_text().count("| --- |") == 2
    assert summarize_ablations(report.ablations, report.ours.metrics[report.primary], report.primary) == (
        "Text contributes to the result: nDCG@20 changes without text by \N{MINUS SIGN}0.2000 "
        "(\N{MINUS SIGN}0.2100 to "
        "\N{MINUS SIGN}0.1900). No effect is shown for image (\N{MINUS SIGN}0.0100 to +0.0100): the interval "
        "of the change includes zero. The best single modality is text with 0.3500, compared with 0.4000 "
        "for all "
        "modalities."
    )
