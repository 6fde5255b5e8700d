"""`mmattn fit` with completed histories and a knowledge graph, on a world where the graph says it all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mmattn.cli import main

ITEMS, USERS = 60, 53
SETTINGS: dict[str, Any] = {
    "name": "graph",
    "data": {"card": "card.yaml", "features": "features"},
    "protocol": {"seeds": [0], "metrics": ["ndcg@5", "recall@5"]},
    "encoders": {
        "text": {"name": "tiny-text", "options": {"dim": 8, "layers": 1}, "standardise": True},
        "graph": {
            "name": "tabular",
            "options": {"columns": {"node": "node", "neighbours": "entity"}, "dim": 8},
        },
    },
    "fusion": {"dim": 16, "heads": 2, "program": 'Program(score=dot() >> graph_bias("kg", relations=2))'},
    "head": {"options": {"completion_dropout": 0.7, "completion_ridge": 1.0}},
    "training": {"epochs": 2, "steps_per_epoch": 3, "users_per_batch": 0},
    "baselines": {"popularity": {"kind": "popularity"}},
    "evaluation": {"ablations": ["drop"], "ablate_encoders": False, "subsets": False},
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Films of two genres that only the graph knows; each user likes one of them."""
    rng = np.random.default_rng(0)
    genre = np.arange(ITEMS) % 2
    rows = [f"{item},film,{item}" for item in range(ITEMS)]
    (tmp_path / "items.csv").write_text("\n".join(["id,title,node", *rows]))
    triples = [f"{item},genre,{1000 + genre[item]}" for item in range(ITEMS)]
    (tmp_path / "triples.csv").write_text("\n".join(["head,relation,tail", *triples]))
    likes = (rng.random((USERS, ITEMS)) < 0.5) & (genre == np.arange(USERS)[:, None] % 2)
    pairs = [f"{user},{item}" for user, item in zip(*likes.nonzero(), strict=True)]
    (tmp_path / "interactions.csv").write_text("\n".join(["user,item", *pairs]))
    card = {
        "name": "genres",
        "items": {"file": "items.csv", "id": "id", "columns": {"title": "text", "node": "entity"}},
        "interactions": {"file": "interactions.csv", "user": "user", "item": "item"},
        "graph": {"file": "triples.csv", "head": "head", "relation": "relation", "tail": "tail"},
    }
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card))
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump(SETTINGS))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_new_items_are_recommended_by_what_the_graph_joins_them_to(here: Path) -> None:
    assert main(["fit", "--config", "fit.yaml", "--quiet"]) == 0
    metrics = json.loads((here / "runs/graph/metrics.json").read_text())
    ours, popular = (metrics["systems"][name]["ndcg@5"]["mean"] for name in ("mmattn", "popularity"))
    assert ours > max(0.5, popular + 0.1)
    # Without the graph no edge joins anything, and nothing tells the films apart.
    assert metrics["ablations"]["without-graph"]["ndcg@5"]["mean"] < ours - 0.1


def test_a_graph_that_is_not_there_is_asked_for(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = yaml.safe_load((here / "card.yaml").read_text())
    del card["graph"]
    (here / "card.yaml").write_text(yaml.safe_dump(card))
    assert main(["fit", "--config", "fit.yaml", "--quiet"]) != 0
    assert "genres: got no graph, expected a table of triples" in capsys.readouterr().err
