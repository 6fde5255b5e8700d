"""The YAML files of the examples: every one is a configuration that can be built."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmattn import attention
from mmattn.config import FusionConfig, ModelConfig
from mmattn.experiments.config import load_fit
from mmattn.model.build import build_core
from mmattn.schema import read_yaml

ALL = sorted((Path(__file__).parents[1] / "examples").glob("*.yaml"))
TASKS = [path for path in ALL if "tasks" in read_yaml(path)]
FILES = [path for path in ALL if path not in TASKS]
WIDTHS = {"minilm": 384, "efficientnet-lite0": 1280, "tiny-text": 64}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_is_read_and_its_core_is_built(path: Path) -> None:
    config = load_fit(path)
    assert_built(config.model_config(), config.fusion)


@pytest.mark.parametrize("path", TASKS, ids=lambda path: path.stem)
def test_so_is_one_with_tasks(path: Path) -> None:
    config = load_fit(path)
    heads = {name: task.head for name, task in config.tasks.items()}
    assert_built(config.model_config(heads), config.fusion)
    # Embeddings of the tasks are there where a program reads the task, and only there.
    reads_task = "on='task'" in config.fusion.program
    assert config.model_config(heads).fusion.tasks == (tuple(config.tasks) if reads_task else ())


def assert_built(config: ModelConfig, fusion: FusionConfig) -> None:
    widths = {
        name: encoder.options.get("dim") or WIDTHS[encoder.name] for name, encoder in config.encoders.items()
    }
    core = build_core(widths, config)
    assert core.dim == fusion.dim
    assert len(core.blocks) == fusion.layers
    attention.parse(fusion.program)


def test_the_graph_example_differs_from_the_cold_one_by_the_graph() -> None:
    cold, graph = (load_fit(path) for path in FILES if path.stem in ("movielens_cold", "movielens_graph"))
    assert set(graph.encoders) - set(cold.encoders) == {"graph"}
    assert graph.protocol == cold.protocol
    assert graph.training == cold.training
    assert graph.head == cold.head
