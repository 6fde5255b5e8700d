"""The encoder that the README tells people to write keeps the contract."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import mmattn.encoders
from mmattn.registry import encoders
from mmattn.testing.plugin_checks import check_encoder

README = Path(mmattn.encoders.__file__).with_name("README.md").read_text(encoding="utf-8")


def test_the_example_passes_the_checks() -> None:
    (code,) = re.findall(r"   ```python\n(.*?)   ```", README, re.DOTALL)
    scope: dict[str, Any] = {"__name__": "readme"}
    exec("\n".join(line[3:] for line in code.splitlines()), scope)
    check_encoder(scope["Length"](dim=5), contents=["one", "three", "fourteen"])


def test_the_table_names_every_encoder_that_mmattn_brings() -> None:
    named = set(re.findall(r"^\| `([a-z0-9-]+)` \|", README, re.MULTILINE))
    assert named == {name for name in encoders if encoders.entries(name)[0].distribution == "mmattn"}
