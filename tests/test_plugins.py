"""A third party's distribution, built and installed for real, comes through the entry points."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

GOOD = """
import torch
from mmattn.encoders.base import Encoder, EncoderCard
from mmattn.encoders.text.huggingface_text import split_fields


class Lengths(Encoder):
    '''One token a field: how long it is.'''

    name = "lengths"
    modality = "text"
    dim = 3

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(7, 3)

    def encode(self, contents):
        rows = []
        for content in contents:
            fields = [] if content is None else [field for field in split_fields(content) if field]
            rows.append(self.table(torch.tensor([len(field) % 7 for field in fields]).long()))
        return self.pack(rows)

    def describe(self):
        return EncoderCard(self.name, self.modality, self.dim, "1")


class Wrong(Lengths):
    '''Forgets the absent ones.'''

    name = "wrong-shapes"

    def encode(self, contents):
        return super().encode([content for content in contents if content is not None])


class Deaf:
    '''Has no encode at all.'''

    def describe(self):
        return None
"""

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "3.1"

[project.optional-dependencies]
clip = ["no-such-distribution>=2"]

[project.entry-points."mmattn.encoders"]
{entries}
"""


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Build a wheel with hatchling, without a network or an isolated environment, and install it."""

    def build_and_install(name: str, target: Path | None = None, **entries: str) -> Path:
        source, wheels = (tmp_path_factory.mktemp(kind) for kind in ("source", "wheels"))
        package = source / name.replace("-", "_")
        package.mkdir()
        (package / "__init__.py").write_text(GOOD)
        lines = "\n".join(f'{entry} = "{index}"' for entry, index in entries.items())
        (source / "pyproject.toml").write_text(PROJECT.format(name=name, entries=lines))
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)],
            cwd=source,
            check=True,
            capture_output=True,
        )
        target = target or tmp_path_factory.mktemp("site")
        (wheel,) = wheels.glob("*.whl")
        pip = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--quiet"]
        subprocess.run([*pip, "--target", str(target), str(wheel)], check=True, capture_output=True)
        return target

    return build_and_install


def ask(site: Path, code: str) -> Any:
    """Run code in a process of its own that sees the installed distributions; what it prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def site(install: Callable[..., Path]) -> Path:
    return install(
        "little-plugin",
        **{
            "lengths": "little_plugin:Lengths",
            "wrong-shapes": "little_plugin:Wrong",
            "deaf": "little_plugin:Deaf",
            "absent": "little_plugin:NoSuchClass",
            "needs-clip": "little_plugin:Lengths [clip]",
        },
    )


def test_it_is_found_loaded_and_checked(site: Path) -> None:
    actual = ask(
        site,
        """
        import json, sys
        from mmattn.registry import encoders
        from mmattn.testing.plugin_checks import check_encoder
        before = "little_plugin" in sys.modules
        check_encoder("lengths")
        tokens = encoders.create("lengths")([["ab", "c"], None])
        print(json.dumps([before, encoders["lengths"].origin, tokens.lengths.tolist()]))
        """,
    )
    assert actual == [False, "little-plugin 3.1", [2, 0]]


def test_what_is_wrong_with_the_others_is_said_in_one_line(site: Path) -> None:
    problems = ask(
        site,
        """
        import json
        from mmattn.errors import MmattnError
        from mmattn.registry import encoders
        from mmattn.testing.plugin_checks import check_encoder
        problems = {}
        for name in ("wrong-shapes", "deaf", "absent", "needs-clip"):
            try:
                check_encoder(name)
            except MmattnError as error:
                problems[name] = str(error)
        print(json.dumps(problems))
        """,
    )
    assert problems["wrong-shapes"] == (
        "encoder 'wrong-shapes' (Wrong): encode gave tokens with samples 1, expected 3"
    )
    assert (
        "encoders plugin 'deaf' of little-plugin 3.1: Deaf has no method encode(contents)" in problems["deaf"]
    )
    assert "'little_plugin:NoSuchClass' is not there" in problems["absent"]
    assert problems["needs-clip"].endswith(": pip install 'little-plugin[clip]'")
    assert "no-such-distribution>=2" in problems["needs-clip"]
    assert all("\n" not in problem for problem in problems.values())


def test_mmattn_plugins_lists_them(site: Path) -> None:
    rows = ask(site, "from mmattn.cli import main; import sys; sys.exit(main(['plugins', '--json']))")
    ours = {row["name"]: row for row in rows if row["distribution"] == "little-plugin"}
    assert ours["lengths"]["loadable"] is True
    assert ours["lengths"]["kind"] == "encoders"
    assert ours["lengths"]["version"] == "3.1"
    assert ours["needs-clip"]["loadable"] is False
    assert ours["needs-clip"]["install"] == "pip install 'little-plugin[clip]'"
    assert {"minilm", "tabular"} <= {row["name"] for row in rows if row["distribution"] == "mmattn"}


def test_two_distributions_that_want_one_name(install: Callable[..., Path]) -> None:
    site = install("first-plugin", clash="first_plugin:Lengths")
    install("second-plugin", target=site, clash="second_plugin:Lengths", minilm="second_plugin:Lengths")
    problems = ask(
        site,
        """
        import json
        from mmattn.errors import PluginError
        from mmattn.registry import encoders
        problems = []
        for name in ("clash", "minilm"):
            try:
                encoders.load(name)
            except PluginError as error:
                problems.append(str(error))
        encoders.load("tiny-text")  # the others are not disturbed
        print(json.dumps(problems))
        """,
    )
    clash, minilm = problems
    assert clash.startswith("encoders plugin 'clash' is claimed by ")
    assert "first-plugin 3.1" in clash
    assert "second-plugin 3.1" in clash
    assert "mmattn" in minilm
    assert "second-plugin 3.1" in minilm
