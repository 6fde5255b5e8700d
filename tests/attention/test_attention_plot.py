"""Pictures of programs: of every word, in both formats, the same every time."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from mmattn import attention as A
from mmattn.attention.draw import draw_program
from mmattn.attention.plot import _mask_and_bias, example
from mmattn.errors import InputError


def test_svg_and_png(tmp_path: Path) -> None:
    program = A.Program(A.dot() >> A.alibi, A.route({"text": ["image"], "cls": ["*"], "*": ["*"]}))
    text = program.plot(tmp_path / "program.svg")
    assert text.startswith("<?xml")
    assert "cls" in (tmp_path / "program.svg").read_text()
    assert program.plot(tmp_path / "program.png") == ""
    assert (tmp_path / "program.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(
        InputError, match=r"plot: got the path 'x.jpg', expected one that ends in .svg or .png"
    ):
        program.plot("x.jpg")


def test_the_picture_shows_the_numbers() -> None:
    program = A.Program(A.dot() >> A.modality_bias("pair") >> A.temperature(2.0), A.causal)
    tokens = example(program)
    allowed, bias = _mask_and_bias(program, tokens, {"pair": torch.arange(36.0).view(4, 3, 3)}, 4)
    assert allowed[:2, :2].tolist() == [[True, False], [True, True]]
    # Head 0, a word looking at a word, a patch and a sound: 0, 1 and 2, over a temperature of 2.
    assert bias[0, [0, 8, 14]].tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("seed", range(12))
def test_any_program_can_be_drawn(seed: int) -> None:
    assert "</svg>" in draw_program(random.Random(seed)).plot()
