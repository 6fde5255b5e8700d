"""The YAML files of the examples: every one is a configuration that can be built."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmattn import attention
from mmattn.build import build_core
from mmattn.config import load_fit

FILES = sorted((Path(__file__).parents[1] / "examples").glob("*.yaml"))
WIDTHS = {"minilm": 384, "efficientnet-lite0": 1280}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_is_read_and_its_core_is_built(path: Path) -> None:
    config = load_fit(path)
    widths = {
        name: encoder.options.get("dim") or WIDTHS[encoder.name] for name, encoder in config.encoders.items()
    }
    core = build_core(widths, config.model)
    assert core.dim == config.fusion.dim
    assert len(core.blocks) == config.fusion.layers
    attention.parse(config.fusion.program)


def test_the_graph_example_differs_from_the_cold_one_by_the_graph() -> None:
    cold, graph = (load_fit(path) for path in FILES if path.stem in ("movielens_cold", "movielens_graph"))
    assert set(graph.encoders) - set(cold.encoders) == {"graph"}
    assert graph.protocol == cold.protocol
    assert graph.training == cold.training
    assert graph.head == cold.head
