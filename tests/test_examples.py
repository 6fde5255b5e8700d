"""Every example runs: the docstrings', the README's and those in examples/, which also keep their word."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

import mmattn
import mmattn_adapters
import mmattn_datasets
from mmattn import attention as A
from mmattn.experiments.config import load_fit

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    module.name
    for package in (mmattn, mmattn_adapters, mmattn_datasets)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", MODULES)
def test_the_docstrings_examples_run(name: str) -> None:
    host = name.removeprefix("mmattn_adapters.")
    if host in ("cornac", "lancedb", "recbole"):  # the adapter's module is named after what it needs
        pytest.importorskip(host)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL | doctest.ELLIPSIS
    outcome = doctest.testmod(importlib.import_module(name), optionflags=flags)
    assert outcome.failed == 0


def test_the_readme_s_lines_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_run_s_file_says_only_what_can_be_said(path: Path) -> None:
    config = load_fit(path)
    assert config.name == path.stem.replace("_", "-")
    assert f"({path.name})" in (ROOT / "examples/README.md").read_text(encoding="utf-8")


ATTENTION = sorted(path.stem for path in (ROOT / "examples/attention").glob("[0-9]*.py"))


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Loads an example of examples/attention by name, once a process: one of them registers a word."""
    monkeypatch.syspath_prepend(ROOT / "examples/attention")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield importlib.import_module
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", ATTENTION)
def test_an_example_s_program_is_proved_and_survives_text(
    name: str, example: Callable[[str], ModuleType]
) -> None:
    program = example(name).PROGRAM
    assert A.parse(str(program)) == program == A.Program.from_json(program.to_json())
    assert max(A.check(program, batches=2).max_error.values()) < 1


@pytest.mark.parametrize("name", ATTENTION)
def test_an_example_says_what_it_is_in_a_page(name: str) -> None:
    module = (ROOT / f"examples/attention/{name}.py").read_text(encoding="utf-8")
    assert "Reach for " in module
    assert "https://" in module
    assert len(module.splitlines()) < 90
    assert f"(attention/{name}.py)" in (ROOT / "examples/README.md").read_text(encoding="utf-8")


def test_an_example_from_the_command_line_draws_its_program(tmp_path: Path) -> None:
    script = ROOT / "examples/attention/14_flamingo.py"
    ran = subprocess.run(
        [sys.executable, script, "--plot", tmp_path / "seen.svg"], capture_output=True, text=True, check=True
    )
    assert "program   Program(score=dot(), mask=route(" in ran.stdout
    assert "</svg>" in (tmp_path / "seen.svg").read_text()


def test_additive_learns_to_read_backwards(example: Callable[[str], ModuleType]) -> None:
    assert example("01_additive").main() == [6, 5, 4, 3, 2, 1, 0]


def test_bilinear_starts_as_the_dot_product_and_becomes_a_dictionary(
    example: Callable[[str], ModuleType],
) -> None:
    dot, apart, bilinear = example("02_multiplicative").main()
    assert apart < 1e-6
    assert dot == [0, 1, 2, 3]
    assert bilinear == [1, 2, 3, 0]  # maison, chat, arbre, mer


def test_cosine_does_not_care_how_loud_a_token_is(example: Callable[[str], ModuleType]) -> None:
    change = example("03_cosine").main()
    assert change["dot"] > 0.5
    assert change["cosine"] < 1e-6


def test_multi_head_is_pytorch_s(example: Callable[[str], ModuleType]) -> None:
    assert example("04_multi_head").main() < 1e-5


def test_self_attention_never_looks_beyond_its_sample(example: Callable[[str], ModuleType]) -> None:
    presence, apart = example("05_self").main()
    assert presence == [[True, True, False], [True, False, True], [False, True, True]]
    assert apart < 1e-5


def test_cross_attention_over_nothing_gives_zeros(example: Callable[[str], ModuleType]) -> None:
    assert example("06_cross").main() == ([3, 5], 0.0, True)


def test_split_heads_look_where_they_may(example: Callable[[str], ModuleType]) -> None:
    shares = example("07_split_heads").main()
    assert [share == pytest.approx([1.0, 0.0]) for share in shares] == [True, True, False, False]
    assert shares[2] == pytest.approx([0.0, 1.0])
    assert min(shares[3]) > 0.05


def test_local_and_global_reach_far_in_two_layers(example: Callable[[str], ModuleType]) -> None:
    density, reached = example("08_local_global").main()
    assert density < 0.2
    assert reached == [False, True]


def test_hierarchical_news_travels_up_across_and_down(example: Callable[[str], ModuleType]) -> None:
    assert example("09_hierarchical").main() == [8, 8, 48]


def test_dilated_sees_every_fourth(example: Callable[[str], ModuleType]) -> None:
    near, far, depends = example("10_dilated").main()
    assert near == [27, 28, 29, 30]
    assert far == [6, 10, 14, 18, 22, 26, 30]
    # Far twice, 30 - 48 and on: 2, 6, ...; far and near: 30 - 24 - 3 and on. Two frames are out of reach.
    assert depends == 29


def test_sparse_norms_count_few_keys(example: Callable[[str], ModuleType]) -> None:
    counts = example("11_top_k").main()
    assert counts["softmax()"] == 12
    assert counts["topk(3)"] == 3
    assert 1 <= counts["sparsemax"] <= counts["entmax15"] < 12


def test_modalities_meet_in_the_bottleneck_alone(example: Callable[[str], ModuleType]) -> None:
    assert example("12_bottleneck").main() == ([False, True], False)


def test_perceiver_latents_come_out_alike_for_every_sample(example: Callable[[str], ModuleType]) -> None:
    lengths, pairs, share = example("13_perceiver").main()
    assert lengths == [4, 4, 4]
    assert pairs == 4 * (1049 + 0 + 102)
    # 700 sounds against 349 others, e^-4 each, give about 0.035.
    assert 0.01 < share < 0.1


def test_a_word_sees_the_picture_before_it_alone(example: Callable[[str], ModuleType]) -> None:
    assert list(example("14_flamingo").main().values()) == [[]] * 3 + [[0]] * 3 + [[1]] * 3


def test_the_fading_of_an_interest_is_learned(example: Callable[[str], ModuleType]) -> None:
    learned, leak = example("15_time_decay").main()
    assert learned == sorted(learned, reverse=True)
    # Between 33 and 144 hours an interest that halves in a day is down by 0.96 to 4.2.
    assert -4.2 < learned[3] < -0.96
    assert leak == 0.0


def test_edges_of_the_graph_decide_between_equal_films(example: Callable[[str], ModuleType]) -> None:
    e, e2 = 2.718281828, 7.389056099
    expected = [
        [1 / (3 + e), 1 / (3 + e), e / (3 + e), 1 / (3 + e)],
        [e2 / (3 + e2), 1 / (3 + e2), 1 / (3 + e2), 1 / (3 + e2)],
        [e / (3 + e), 1 / (3 + e), 1 / (3 + e), 1 / (3 + e)],
        [0.25] * 4,
    ]
    for row, wanted in zip(example("16_knowledge_graph").main(), expected, strict=True):
        assert row == pytest.approx(wanted, abs=1e-5)


def test_the_nearest_box_is_found_by_four_numbers(example: Callable[[str], ModuleType]) -> None:
    before, after, learned = example("17_box_geometry").main()
    assert before < 0.2
    assert after > 0.5
    assert max(learned) < -0.5, "what is farther away counts less"
