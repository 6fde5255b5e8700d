"""Pictures of programs: of every word, in both formats, the same every time."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from mmattn import attention as A
from mmattn.attention.testing.random_programs import random_program
from mmattn.attention.visualize.example_batch import example_batch, example_context, program_modalities
from mmattn.attention.visualize.plot import BiasPanel, bias_panels
from mmattn.errors import InputError
from mmattn.types import Tokens


def drawn(program: A.Program, **parameters: torch.Tensor) -> tuple[torch.Tensor, list[BiasPanel]]:
    q, kv = example_batch(program)
    return bias_panels(program, program._plot_rows()[0], q, kv, parameters, example_context(program, q, kv))


def test_svg_and_png(tmp_path: Path) -> None:
    program = A.Program(A.dot() >> A.alibi, A.route({"text": ["image"], "cls": ["*"], "*": ["*"]}))
    text = program.plot(tmp_path / "program.svg")
    assert text.startswith("<?xml")
    assert text == program.plot(), "the same program gives the same picture"
    assert "cls" in (tmp_path / "program.svg").read_text()
    assert program.plot(tmp_path / "program.png") == ""
    assert (tmp_path / "program.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(
        InputError, match=r"plot: got the path 'x.jpg', expected one that ends in .svg or .png"
    ):
        program.plot("x.jpg")


def test_the_picture_shows_the_numbers() -> None:
    program = A.Program(A.dot() >> A.modality_bias("pair") >> A.temperature(2.0) >> A.alibi, A.causal)
    allowed, (pair, alibi) = drawn(program, pair=torch.arange(36.0).view(4, 3, 3))
    assert allowed[:2, :2].tolist() == [[True, False], [True, True]]
    # Head 0, a word looking at a word, a patch and a sound: 0, 1 and 2.
    assert (pair.title, pair.has_placeholder_values) == ('modality_bias("pair")', False)
    assert pair.bias[0, [0, 8, 14]].tolist() == [0.0, 1.0, 2.0]
    # The first of four heads has the slope 1/4.
    assert alibi.bias[0, :3].tolist() == [0.0, -0.25, -0.5]


def test_biases_that_start_at_zero_show_which_pairs_share_a_number() -> None:
    program = A.Program(A.dot() >> A.modality_bias("pair") >> A.graph_bias("kg", 2) >> A.softcap(9.0))
    _, (pair, graph) = drawn(program)
    assert pair.has_placeholder_values
    assert graph.has_placeholder_values
    assert pair.bias[[0, 8, 14]][:, [0, 8, 14]].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    # An edge from every entity to the next, by the relations 0, 1, 0, ...
    assert graph.bias[:3, :4].tolist() == [[0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]


def test_a_picture_of_ones_own_tokens_and_edges() -> None:
    program = A.Program(A.dot() >> A.graph_bias("kg"))
    words = Tokens.from_sequences([torch.zeros(2, 4).double()], "word", entity=[torch.tensor([40, 70])])
    _, (graph,) = bias_panels(
        program, program._plot_rows()[0], words, words, {}, {"kg": torch.tensor([[70], [40], [0]])}
    )
    assert graph.bias.tolist() == [[0, 0], [1, 0]]
    assert "word" in program.plot(tokens=words, kv=words, context={"kg": torch.tensor([[70], [40], [0]])})


@pytest.mark.parametrize(
    ("program", "query", "key"),
    [
        (A.Program(), ("text", "image", "audio"), ("text", "image", "audio")),
        (
            A.Program(mask=A.global_tokens("cls")),
            ("text", "image", "audio", "cls"),
            ("text", "image", "audio", "cls"),
        ),
        # Closed to other queries: only what is named, and images are looked at but do not look.
        (A.Program(mask=A.route({"text": ["image"]})), ("text",), ("text", "image")),
        (
            A.Program(score=A.dot() >> A.modality_bias("m", modalities=["lidar", "text"])),
            ("text", "lidar"),
            ("text", "lidar"),
        ),
    ],
    ids=str,
)
def test_the_scene_holds_what_the_program_can_run_over(
    program: A.Program, query: tuple[str, ...], key: tuple[str, ...]
) -> None:
    assert program_modalities(program) == (query, key)
    q, kv = example_batch(program)
    assert (q.modalities, kv.modalities) == (query, key)
    assert "</svg>" in program.plot()
    assert A.check(program, batches=1).comparisons


def test_the_scene_is_long_enough_to_show_a_window() -> None:
    allowed, _ = drawn(A.Program(mask=A.window(40)))
    assert allowed.shape == (80 + 60 + 50, 80 + 60 + 50)
    assert not allowed.all()


@pytest.mark.parametrize("seed", range(12))
def test_any_program_can_be_drawn(seed: int) -> None:
    assert "</svg>" in random_program(random.Random(seed)).plot()
