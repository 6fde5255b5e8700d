"""`mmattn prepare`: what it prints, what it refuses, and that its folder is whole or not there."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmattn.cli import main
from mmattn.cli.prepare import prepare
from mmattn.data.card import Card, ItemTable
from mmattn.errors import InputError, PluginError
from mmattn.registry import datasets


class Films:
    """A data set plugin of two films. It fails after its first file when told to."""

    def prepare(self, root: Path | None, out: Path, plot: str = "Cops.", fail: bool = False) -> Card:
        (out / "items.csv").write_text(f"id,plot\n1,{plot}\n2,\n")
        if fail:
            raise InputError("the raw files are broken")
        with (out / "rejected.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["table", "row", "reason"], ["raw.dat", 3, "two\nlines"]])
        card = Card("films", ItemTable("items.csv", "id", {"plot": "text"}))
        card.save(out)
        return card


@pytest.fixture(autouse=True)
def films() -> Iterator[None]:
    datasets.register("films-test", Films)
    yield
    datasets.unregister("films-test")


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_it_prints_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep/out"
    prepare("films-test", None, out)
    assert capsys.readouterr().out.splitlines() == [
        "data set      films",
        "items         2",
        "present       text 1 (50.0%)",
        "together      text 1, none 1",
        "users         0",
        "interactions  0 (0.00% of all pairs)",
        "not usable    1 x kept",
        f"listed        1 rows with a reason in {out}/rejected.csv",
        f"card          {out}/card.yaml",
    ]
    assert Card.load(out).made_by == "mmattn prepare films-test"
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_json_for_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare("films-test", None, tmp_path / "out", as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert (printed["items"], printed["presence"], printed["listed"]) == (2, {"text": 1}, 1)
    assert printed["files"]["card"] == str(tmp_path / "out/card.yaml")


def test_its_own_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()  # an empty folder is fine
    prepare("films-test", None, out)
    (out / "stale.png").touch()
    prepare("films-test", None, out, {"plot": "Heist."})
    assert sorted(path.name for path in out.iterdir()) == ["card.yaml", "items.csv", "rejected.csv"]
    assert "Heist." in (out / "items.csv").read_text()


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare("films-test", None, out)
    before = everything(tmp_path)
    for options in ({"fail": True}, {"plot": "Cops.\n1,The same id again."}):
        with pytest.raises(InputError):
            prepare("films-test", None, out, options)
        assert everything(tmp_path) == before


def test_a_failure_leaves_nothing_where_nothing_was(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the raw files are broken"):
        prepare("films-test", None, tmp_path / "out", {"fail": True})
    assert list(tmp_path.iterdir()) == []


def test_foreign_folders_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(
        InputError, match=r"out: it holds something else, expected a new or empty folder, or one by"
    ):
        prepare("films-test", None, out)
    Films().prepare(None, out)  # a card that somebody wrote, not this command
    with pytest.raises(InputError, match="holds something else"):
        prepare("films-test", None, out)
    assert (out / "thesis.tex").read_text() == "years of work"
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InputError, match="holds something else"):
        prepare("films-test", None, file)


def test_the_folder_of_another_data_set_is_refused(tmp_path: Path) -> None:
    prepare("films-test", None, tmp_path / "out")
    with pytest.raises(InputError, match="expected a new or empty folder, or one by `mmattn prepare digits`"):
        prepare("digits", None, tmp_path / "out")


def test_raw_files_are_never_inside_what_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "out/raw").mkdir(parents=True)
    with pytest.raises(InputError, match="the raw files lie in it, expected another folder"):
        prepare("films-test", tmp_path / "out/raw", tmp_path / "out")


def test_mistyped_names(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"data set 'films-test' has no option 'plott'\. Did you mean 'plot'\?"
    ):
        prepare("films-test", None, tmp_path / "out", {"plott": "x"})
    with pytest.raises(PluginError, match=r"no datasets plugin 'movielense'\. Did you mean 'movielens'\?"):
        prepare("movielense", None, tmp_path / "out")


def test_the_built_in_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare("digits", None, tmp_path / "out", {"items": 101, "users": 5})
    assert "items         101" in capsys.readouterr().out
    assert Card.load(tmp_path / "out").made_by == "mmattn prepare digits"


def test_prepare_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "digits"
    assert main(["prepare", "digits", "--out", str(out), "--items", "120", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["items"] == 120
    assert (out / "card.yaml").is_file()
    assert main(["prepare", "digitz", "--out", str(tmp_path / "x")]) == 2
    assert "Did you mean 'digits'?" in capsys.readouterr().err
    assert main(["prepare", "digits", "--out", str(tmp_path / "x"), "--extras", "y"]) == 2
    assert "no option 'extras'" in capsys.readouterr().err
