"""`mmattn explain` from the outside: the page, its numbers, and every mistake in one line."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from mmattn.cli import main
from mmattn.registry import datasets

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NASTY = '</script><b>"Léon" & co</b>'
SETTINGS = {
    "name": "small",
    "data": {"card": "data", "features": "features"},
    "protocol": {"seeds": [0], "metrics": ["ndcg@5"]},
    "encoders": {
        "image": {"name": "tiny-image", "options": {"dim": 16, "grid": 2}, "standardise": True},
        "text": {"name": "tiny-text", "options": {"dim": 16, "layers": 1}, "standardise": True},
        "audio": {
            "name": "log-mel",
            "options": {"dim": 16, "sample_rate": 8000, "n_mels": 20, "layers": 1},
            "standardise": True,
        },
        "table": {
            "name": "tabular",
            "options": {"columns": {"language": "category", "drawing": "number"}, "dim": 8},
        },
    },
    "fusion": {
        "dim": 32, "heads": 2, "layers": 2,
        "program": "Program(score=dot() >> modality_bias('pair'), mask=full, norm=softmax())",
    },
    "training": {"epochs": 1, "steps_per_epoch": 2, "users_per_batch": 30, "refit": False},
    "baselines": {},
    "evaluation": {"ablations": []},
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of digits, with a table, an item whose text is nasty, an empty one and a broken picture."""
    home = tmp_path_factory.mktemp("explain")
    datasets.create("digits").prepare(None, home / "data", items=100, users=40)
    card = yaml.safe_load((home / "data" / "card.yaml").read_text())
    card["items"]["columns"] |= {"language": "category", "drawing": "number"}
    (home / "data" / "card.yaml").write_text(yaml.safe_dump(card))
    items = pd.read_parquet(home / "data" / "items.parquet")
    full = items.index[items[["image", "text", "audio"]].notna().all(axis=1)]
    items.loc[full[0], "text"] = NASTY
    empty = items.index[~items.index.isin(full)][0]
    items.loc[empty, ["image", "text", "audio", "language", "drawing"]] = None
    broken = home / "data" / items.loc[full[1], "image"]
    broken.write_bytes(broken.read_bytes()[:60])
    items.to_parquet(home / "data" / "items.parquet")
    names = items["item"].astype(str)
    (home / "ids.json").write_text(
        json.dumps(
            {"full": names[full[0]], "broken": names[full[1]], "empty": names[empty], "other": names[full[2]]}
        )
    )
    (home / "fit.yaml").write_text(yaml.safe_dump(SETTINGS))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert main(["fit", "--config", "fit.yaml", "--quiet"]) == 0
    return home


@pytest.fixture
def ids(home: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.chdir(home)
    return json.loads((home / "ids.json").read_text())


def explained(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert main(["explain", "runs/small", "--json", "--quiet", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


class Outside(HTMLParser):
    """Everything the page would load from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in {"src", "href", "srcset", "action"} and not (value or "").startswith("data:"):
                self.found.append(f"{tag} {name}={value}")


def test_the_page_needs_nothing_from_outside(ids: dict[str, str], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert main(["explain", "runs/small", "--item", ids["full"], "--out", str(page), "--quiet"]) == 0
    text = page.read_text(encoding="utf-8")
    outside = Outside()
    outside.feed(text)
    assert outside.found == []
    assert NASTY not in text
    for words in (
        "data:image/png",
        "data:audio/wav",
        'class="unit cell"',
        "Attention between modalities",
        "The score depends most on",
    ):
        assert words in text


def test_numbers_for_machines_hold_together(ids: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    actual = explained(capsys, "--item", ids["full"])
    assert actual["score"] == pytest.approx(1.0, abs=1e-4)
    spans, flow = actual["spans"], actual["flow"]
    assert {span["modality"] for span in spans} == {"image", "text", "audio", "table"}  # type: ignore[attr-defined,index]
    assert sum(span["rollout"] for span in spans) == pytest.approx(1.0, abs=1e-4)  # type: ignore[attr-defined,index]
    np.testing.assert_allclose(np.array(flow["layers"]).sum(-1), 1.0, atol=1e-3)  # type: ignore[index]
    assert np.array(flow["layers"]).shape == (2, 2, 4, 4)  # type: ignore[index]
    assert sum(actual["modality_shares"]["rollout"].values()) == pytest.approx(1.0, abs=1e-4)  # type: ignore[index]


def test_a_user_and_another_item_can_be_asked_about(
    ids: dict[str, str], capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    pairs = pd.read_parquet(home / "data" / "interactions.parquet")
    user = str(pairs["user"].value_counts().index[0])
    actual = explained(capsys, "--item", ids["full"], "--user", user)
    assert actual["history"]
    assert any(abs(change) > 1e-6 for change in actual["leave_out_changes"].values())  # type: ignore[attr-defined]
    alike = explained(capsys, "--item", ids["full"], "--compare-to", ids["full"])
    assert alike["score"] == pytest.approx(1.0, abs=1e-5)
    assert explained(capsys, "--item", ids["full"], "--compare-to", ids["other"])["score"] < 1  # type: ignore[operator]


def test_a_picture_that_cannot_be_read_is_said(ids: dict[str, str], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert main(["explain", "runs/small", "--item", ids["broken"], "--out", str(page), "--quiet"]) == 0
    text = page.read_text(encoding="utf-8")
    assert "It could not be read: " in text
    assert "It contributes no tokens" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs/small", "--item", "9x9"], "no item '9x9' among 100; the nearest are '9"),
        (["runs/small", "--item", "EMPTY"], "has no content, expected one of audio, image, table, text that"),
        (["runs/small", "--item", "FULL", "--user", "nobody"], "no user 'nobody' among 40"),
        (["runs/small", "--item", "FULL", "--compare-to", "9x9"], "no item '9x9' among 100"),
        (["runs/small", "--item", "FULL", "--user", "1", "--compare-to", "1"], "expected one of the two"),
        (["runs/small", "--item", "FULL", "--seed", "7"], "no seed 7, expected one of 0"),
        (["data", "--item", "FULL"], "data: holds no finished run"),
        (["nowhere", "--item", "FULL"], "nowhere: holds no finished run"),
        (
            ["runs/small/seed-0/model", "--item", "FULL"],
            "is a model without a run; pass its dataset with --card",
        ),
    ],
)
def test_mistakes_end_with_one_line(
    ids: dict[str, str],
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    named = [ids.get(each.lower(), each) if each.isupper() else each for each in arguments]
    assert main(["explain", *named, "--out", str(tmp_path / "page.html"), "--quiet"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("mmattn: ")
    assert message in lines[-1]
    assert not (tmp_path / "page.html").exists()


def test_nowhere_to_write_is_a_mistake_too(ids: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "runs/small", "--item", ids["full"]]) == 2
    assert "got neither --out FILE.html nor --json" in capsys.readouterr().err


PROBE = """<!doctype html><pre id="out">not run</pre>
<iframe id="page" src="page.html" style="width:WIDTHpx;height:900px;border:0"></iframe>
<script>
addEventListener("load", () => {
  const page = document.getElementById("page").contentDocument, root = page.documentElement;
  const inside = e => e.closest(".scroll, svg, .clip, .over");
  const spills = e => !inside(e) && e.getBoundingClientRect().right > root.clientWidth + 1;
  const says = () => page.getElementById("description").textContent;
  const shades = () => [...page.querySelectorAll(".unit")].map(e => e.style.getPropertyValue("--v")).join();
  const found = {
    overflow: root.scrollWidth - root.clientWidth,
    spills: [...page.querySelectorAll("main *")].filter(spills).map(e => e.className || e.tagName),
    broken: [...page.images].filter(i => i.complete && !i.naturalWidth).length,
    first: says(),
    rows: page.querySelectorAll("#matrix tbody tr").length,
    small: page.querySelectorAll("#small svg").length,
  };
  const before = shades();
  page.querySelector('[data-method="leave_out"]').click();
  found.left = says(); found.changed = shades() !== before;
  page.querySelectorAll("#small button")[3].click();
  found.head = says();
  page.querySelector(".words .unit").click();
  found.from = page.getElementById("clear").textContent;
  page.getElementById("clear").click();
  found.back = page.getElementById("selection").hidden;
  document.getElementById("out").textContent = JSON.stringify(found);
});
</script>"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [360, 1200])
def test_in_a_browser(ids: dict[str, str], tmp_path: Path, width: int) -> None:
    arguments = [
        "explain",
        "runs/small",
        "--item",
        ids["other"],
        "--out",
        str(tmp_path / "page.html"),
        "--quiet",
    ]
    assert main(arguments) == 0
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE.replace("WIDTH", str(width)), encoding="utf-8")
    switches = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --allow-file-access-from-files --window-size=1300,1000 "
        "--virtual-time-budget=5000 --enable-logging=stderr --dump-dom"
    )
    command = [str(BROWSER), *switches.split(), f"--user-data-dir={tmp_path / 'profile'}", probe.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    actual = json.loads(re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.S).group(1))  # type: ignore[union-attr]
    assert actual["overflow"] == 0
    assert actual["spills"] == []
    assert actual["broken"] == 0
    assert actual["first"].startswith("Attention of the joint vector, rolled out through all layers")
    assert (actual["rows"], actual["small"]) == (4, 4)
    assert actual["left"].startswith("Decrease of the score without this part")
    assert actual["changed"]
    assert actual["head"].startswith("Attention of the joint vector in layer 2, head 2")
    assert actual["from"]
    assert actual["back"]
    assert "CONSOLE" not in done.stderr
