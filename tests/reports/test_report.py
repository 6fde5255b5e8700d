"""The page: self-contained, safe, complete; and in a real browser it sorts, fits and stays silent."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmattn.evaluation.index_loss import IndexCost, OperatingPoint
from mmattn.evaluation.modality_gap import ModalityGap
from mmattn.evaluation.statistics.bootstrap import Interval
from mmattn.reports.report import render_report, write_report
from mmattn.reports.results import (
    Ablation,
    Curve,
    DataSummary,
    Example,
    ExampleItem,
    Panel,
    RecommendationReport,
    Subgroup,
    System,
)
from mmattn.reports.sentences import describe_outcome, summarize_ablations
from mmattn.reports.svg import Axis, bar, chart, dot, dots, log_ticks, ticks
from mmattn.reports.thumbnails import thumbnail

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
METRICS = ("recall@20", "ndcg@20", "mrr@20", "hit@20", "precision@20")
NASTY = '<script>alert("x")</script> & "Léon"'


def interval(mean: float, half: float = 0.01) -> Interval:
    return Interval(mean, mean - half, mean + half, seed_means=(mean - 0.001, mean + 0.001))


def picture(colour: str = "navy") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (400, 600), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def full_report() -> RecommendationReport:
    def system(name: str, label: str, mean: float) -> System:
        metrics = {metric: interval(mean + index / 50) for index, metric in enumerate(METRICS)}
        difference = {metric: interval(0.31 - mean) for metric in METRICS}
        return System(name, label, metrics, "tuned on validation", {} if name == "mmattn" else difference)

    def ablation(label: str, change: Interval | None) -> Ablation:
        metrics = dict.fromkeys(METRICS, interval(0.3))
        part = label.split()[-1]
        changes = {METRICS[0]: change} if change else {}
        return Ablation(label.lower(), label, metrics, changes, "drop", part)

    title = "A film with a rather long title, part"
    shelf = tuple(ExampleItem(f"{title} {i}", picture(), i % 3 == 0, "1995") for i in range(10))
    return RecommendationReport(
        title="Cold films",
        data=DataSummary(
            "MovieLens",
            users=6040,
            items=3260,
            interactions=998539,
            presence={"text": 3260, "image": 3259},
            combinations={"text + image": 3259, "text": 1},
            parts={"train": 701},
            rejected=1,
        ),
        systems=(
            system("ridge", "Content ridge", 0.21),
            system("mmattn", "mmattn", 0.31),
            system("ease", "EASE", 0.11),
        ),
        protocol={"split": "cold-items", "seeds": [0, 1, 2]},
        protocol_sentences=("A fifth of the films is cold.",),
        ablations=(
            ablation("Without images", interval(-0.05)),
            ablation("Without text", interval(0.002)),
            ablation("Without years", interval(0.05)),
            ablation("With noise", None),
        ),
        recall_curve=Panel("Recall at k", "k", (Curve("mmattn", (1.0, 10.0), (0.1, 0.4)),), log_x=True),
        subgroups=(
            Subgroup(
                "items", "head", "recall@20", dict.fromkeys(("mmattn", "ridge"), interval(0.3)), interval(0.1)
            ),
            Subgroup(
                "history",
                "1 to 9",
                "recall@20",
                dict.fromkeys(("mmattn", "ridge"), interval(0.2)),
                interval(0),
            ),
        ),
        index_cost=IndexCost(
            "recall@20",
            652,
            6040,
            128,
            "IVF26,Flat",
            interval(0.31),
            interval(0.001),
            OperatingPoint(0, 1.0, interval(0.309), interval(0, 0), 9000.0),
            (
                OperatingPoint(1, 0.5, interval(0.2), interval(0.1), 90000.0),
                OperatingPoint(8, 0.99, interval(0.309), interval(0), 20000.0),
            ),
        ),
        modality_gaps={"text | image": ModalityGap(0.8, 0.4, 0.1, 3259)},
        learning_curves=(
            Panel("Loss", "epoch", (Curve("seed 0", (1.0, 2.0, 3.0), (3.0, 2.0, 1.5), selected_x=2.0),)),
        ),
        examples=(
            Example("User 7", (ExampleItem(NASTY), ExampleItem("Broken", b"no picture")), shelf, "12 films"),
            Example("User 8", shelf[:3], shelf),
        ),
        provenance={
            "versions": {"mmattn": "0.1.0"},
            "encoders": {"text": {"dim": 384}},
            "config": "training:\n  epochs: 3\n",
        },
    )


class Outside(HTMLParser):
    """Everything the page would load from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in {"src", "href", "srcset", "action", "data"} and not (value or "").startswith("data:"):
                self.found.append(f"{tag} {name}={value}")


def test_nothing_comes_from_outside(full_report: RecommendationReport) -> None:
    page = render_report(full_report)
    outside = Outside()
    outside.feed(page)
    assert outside.found == []
    assert not re.search(r"url\(|@import|https?://", page)


def test_what_was_measured_is_on_the_page(full_report: RecommendationReport) -> None:
    page = render_report(full_report)
    assert describe_outcome(full_report).replace("'", "&#39;") in page
    for words in ("Content ridge", "EASE", "A fifth of the films is cold.", "nDCG@20", "0.3100", "998,539"):
        assert words in page
    assert page.count("0.3000&thinsp;–&thinsp;0.3200") >= 1
    assert page.count('class="badge">ours') == 1
    best = re.findall(r'class="numeric best".*?data-value="([\d.]+)"', page, re.S)
    assert [float(value) for value in best] == pytest.approx([0.31, 0.33, 0.35, 0.37, 0.39])
    rows = re.findall(r'class="strip ablation">.*?</span></span>', page)
    results = [re.sub("<.*?>", " ", row).split(">")[-1].strip().split(maxsplit=1) for row in rows]
    assert results == [
        ["images", "contributes"], ["text", "no effect shown"],
        ["years", "better without"], ["noise", "no paired interval"],
    ]  # fmt: skip
    assert (
        "Images contributes to the result: Recall@20 changes without images by −0.0500 (−0.0600 to −0.0400)."
        in page
    )
    assert "mmattn is better than Content ridge for items head." in page
    assert "No difference is shown for history 1 to 9." in page
    assert "from 8 probed lists on" in page
    assert "Among 652 items exact search is faster." not in page
    assert "selected at 2" in page
    assert re.search(r"<dt>text</dt>\s*<dd>\s*<dl>\s*<dt>dim</dt>\s*<dd>384</dd>", page)
    assert re.search(r"<dt>seeds</dt>\s*<dd>0, 1, 2</dd>", page)
    assert ">99.9%" in page.replace("&gt;", ">")


def test_titles_are_text(full_report: RecommendationReport) -> None:
    page = render_report(full_report)
    assert "alert(" in page
    assert "<script>alert" not in page


def test_pictures_travel_with_the_page_and_absent_ones_have_a_placeholder(
    full_report: RecommendationReport,
) -> None:
    page = render_report(full_report)
    assert page.count('<img src="data:image/jpeg;base64,') == 23
    assert page.count('class="placeholder"') == 2
    assert page.count('<li class="item hit">') == 2 * 4 + 1


def test_a_bare_report_has_no_empty_sections() -> None:
    ours = System("mmattn", "mmattn", {"recall@20": interval(0.2)})
    page = render_report(
        RecommendationReport(
            title="Bare", data=DataSummary("toy", 1, 2, 3, {"text": 2}), systems=(ours,), protocol={}
        )
    )
    for name in ("ablations", "subgroups", "index-cost", "examples", "learning"):
        assert f'id="{name}"' not in page


def test_write_report_puts_the_numbers_beside_the_page(
    full_report: RecommendationReport, tmp_path: Path
) -> None:
    write_report(tmp_path / "run" / "report.html", full_report)
    numbers = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    ours = full_report.ours.metrics[full_report.primary]
    sentences = {
        "verdict": describe_outcome(full_report),
        "ablation_summary": summarize_ablations(full_report.ablations, ours, full_report.primary),
    }
    assert numbers == json.loads(json.dumps(full_report.to_json())) | sentences
    assert (tmp_path / "run" / "report.html").read_text(encoding="utf-8") == render_report(full_report)


# --- parts ----------------------------------------------------------------------------------------------


def test_thumbnail_is_small_and_keeps_its_shape() -> None:
    uri = thumbnail(picture("red"))
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert image.size == (120, 180)
    assert image.getpixel((60, 90))[0] > 240
    wide = thumbnail(Image.new("RGBA", (900, 300)))
    assert Image.open(io.BytesIO(base64.b64decode(wide.partition(",")[2]))).size == (120, 40)


def test_what_is_no_picture_has_no_thumbnail(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(picture()[:200])
    assert [thumbnail(what) for what in (None, b"text", broken, tmp_path / "none.jpg")] == [None] * 4


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.213, 0.377), (-3, 17), (1e-5, 3e-5), (5, 5)])
def test_ticks_are_round_and_hold_everything(low: float, high: float) -> None:
    marks = np.array(ticks(low, high))
    assert marks[0] <= low
    assert marks[-1] >= high
    assert 3 <= len(marks) <= 8
    np.testing.assert_allclose(np.diff(marks), np.diff(marks)[0])
    assert float(f"{np.diff(marks)[0]:.0e}") == pytest.approx(np.diff(marks)[0])


def test_axis_labels_have_the_places_they_need() -> None:
    axis = Axis.from_values([0.26, 0.371])
    assert [axis.label(tick) for tick in axis.ticks] == [
        "0.26",
        "0.28",
        "0.30",
        "0.32",
        "0.34",
        "0.36",
        "0.38",
    ]
    assert Axis.from_values([0.0, 30000.0]).label(10000.0) == "10,000"


def test_drawings_say_where_things_lie() -> None:
    axis = Axis(0.0, 0.5, ())
    drawn = bar(Interval(0.25, 0.2, 0.3), axis, highlight=True)
    assert 'width="50.0%"' in drawn
    assert '<line x1="40.0%" x2="60.0%"' in drawn
    assert 'class="row ours"' in drawn
    assert 'cx="75.0%"' in dot(Interval(0.25, 0.2, 0.3), Axis(-0.5, 0.5, ()))
    lines = chart(Panel("Loss", "epoch", (Curve("a", (0.0, 4.0), (0.0, 4.0), selected_x=1.0),)))
    assert 'points="0.0,100.000 100.0,0.000"' in lines.svg
    assert 'cx="25.0%" cy="75.0%"' in lines.svg


def test_decades_are_of_equal_length() -> None:
    assert log_ticks(3, 700) == (1.0, 10.0, 100.0, 1000.0)
    axis = Axis.from_values([1.0, 100.0], log=True)
    assert [axis.to_percent(value) for value in (1.0, 10.0, 100.0)] == [0.0, 50.0, 100.0]
    assert [axis.label(tick) for tick in axis.ticks] == ["1", "2", "5", "10", "20", "50", "100"]
    drawn = dots(
        [(Interval(0.25, 0.2, 0.3), "drop"), (Interval(0.0, 0.0, 0.0), "noise")], Axis(-0.5, 0.5, ())
    )
    assert drawn.count("<circle") == 2
    assert 'class="mark noise"' in drawn


def test_a_run_that_diverged_still_has_a_chart() -> None:
    nan = float("nan")
    curves = (
        Curve("a", (1.0, 2.0, 3.0), (4.0, nan, 2.0), selected_x=2.0),
        Curve("b", (1.0,), (nan,), selected_x=1.0),
    )
    drawn = chart(Panel("Loss", "epoch", curves))
    assert "nan" not in drawn.svg
    assert drawn.svg.count("<circle") == 1


# --- in a browser ---------------------------------------------------------------------------------------

PROBE = """<!doctype html><pre id="out">not run</pre>
<iframe id="page" src="report.html" style="width:WIDTHpx;height:900px;border:0"></iframe>
<script>
addEventListener("load", () => {
  const page = document.getElementById("page").contentDocument, root = page.documentElement;
  const rows = () => [...page.querySelectorAll(".systems tbody th")];
  const second = page.querySelector(".changes");
  const parts = () => [...second.tBodies[0].rows].map(row => row.cells[0].textContent.trim());
  const names = () => rows().map(th => th.firstChild.textContent.trim());
  const click = column => page.querySelectorAll(".systems th button")[column].click();
  const spills = e => !e.closest(".scroll, svg") && e.getBoundingClientRect().right > root.clientWidth + 1;
  const found = {
    overflow: root.scrollWidth - root.clientWidth,
    spills: [...page.querySelectorAll("main *")].filter(spills).map(e => e.className || e.tagName),
    broken: [...page.images].filter(i => i.complete && !i.naturalWidth).length,
    first: names(),
  };
  click(1); found.once = names(); click(1); found.twice = names(); click(0); found.byName = names();
  second.querySelector("th button").click(); found.parts = parts();
  document.getElementById("out").textContent = JSON.stringify(found);
});
</script>"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [360, 1200])
def test_in_a_browser(full_report: RecommendationReport, tmp_path: Path, width: int) -> None:
    write_report(tmp_path / "report.html", full_report)
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE.replace("WIDTH", str(width)), encoding="utf-8")
    switches = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --allow-file-access-from-files --window-size=1300,1000 "
        "--virtual-time-budget=5000 --enable-logging=stderr --dump-dom"
    )
    command = [str(BROWSER), *switches.split(), f"--user-data-dir={tmp_path / 'profile'}", probe.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    actual = json.loads(re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.S).group(1))
    assert actual["overflow"] == 0
    assert actual["spills"] == []
    assert actual["broken"] == 0
    ours, ridge, ease = "mmattn", "Content ridge", "EASE"
    assert actual["first"] == [ours, ridge, ease]
    # The first metric's column is the sorted one, so the first click turns it round.
    assert actual["once"] == [ease, ridge, ours]
    assert actual["twice"] == [ours, ridge, ease]
    assert actual["byName"] == [ridge, ease, ours]
    assert actual["parts"] == ["images", "noise", "text", "years"]
    assert "CONSOLE" not in done.stderr
