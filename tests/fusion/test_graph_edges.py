"""A graph in the fusion: a new film is told apart by its edges alone; without edges nothing changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mmattn import InputError, Tokens
from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.encoders.tabular.tabular import Tabular
from mmattn.model.build import build_model
from mmattn.model.model import Model

PROGRAM = 'Program(score=dot() >> graph_bias("kg", relations=2))'
EDGES = torch.tensor([[4242, 11], [11, 4242], [0, 1]])  # query, key, relation


def model() -> Any:
    torch.manual_seed(0)
    rows = [{"node": 3, "around": [11, 7]}, {"node": 5, "around": [7]}]
    columns = {"node": "node", "around": "entity"}
    encoder = Tabular.fit(rows, columns, dim=8, modality="graph")
    config = ModelConfig(
        {"graph": EncoderConfig("tabular", {"columns": columns, "dim": 8})},
        FusionConfig(dim=8, layers=1, heads=2, program=PROGRAM),
        {"recommendation": HeadConfig("recommendation", {})},
    )
    built: Any = build_model({"graph": encoder}, config).eval()
    attention = built.core.blocks[0].attention
    torch.nn.init.normal_(attention.o_proj.weight)  # the block starts as the identity: let it say something
    with torch.no_grad():
        attention.program_parameters()["kg"].fill_(2.0)
    return built


def test_a_new_film_attends_along_its_edges() -> None:
    built = model()
    new, unjoined = {"node": 4242, "around": [11, 7]}, {"node": 4243, "around": [11, 7]}
    tokens = {"graph": built.encoders["graph"]([new, unjoined])}
    with torch.no_grad():
        along, without = (built.fuse(tokens, {"kg": edges}).pooled for edges in (EDGES, EDGES[:, :0]))
    torch.testing.assert_close(without[0], without[1])  # the same vectors: nothing but edges tells them apart
    assert not torch.allclose(along[0], without[0], atol=1e-3)
    torch.testing.assert_close(along[1], without[1])


def test_edges_are_held_and_saved_with_the_model(tmp_path: Path) -> None:
    built = model()
    tokens = {"graph": built.encoders["graph"]([{"node": 4242, "around": [11, 7]}])}
    with torch.no_grad():
        given = built.fuse(tokens, {"kg": EDGES}).pooled
        with pytest.raises(InputError, match="needs context\\['kg'\\], which is missing"):
            built.fuse(tokens)
        built.core.edges.register_edges("kg", EDGES)
        assert torch.equal(built.fuse(tokens).pooled, given)
        assert not torch.equal(built.fuse(tokens, {"kg": EDGES[:, :0]}).pooled, given)  # what is given counts
        built.save_pretrained(tmp_path)
        loaded = Model.from_pretrained(tmp_path)
        assert torch.equal(loaded.core.edges.kg, EDGES)
        assert torch.equal(loaded.fuse(tokens).pooled, given)


def test_edges_of_another_shape_are_refused() -> None:
    with pytest.raises(InputError, match=r"edges 'kg': got \(2, 5\) torch.int64, expected int64 \[3, E\]"):
        model().core.edges.register_edges("kg", torch.zeros(2, 5, dtype=torch.int64))


def test_items_without_the_graph_are_fused_all_the_same() -> None:
    built = model()
    absent = {"graph": Tokens.empty(2, 8, ("graph",))}
    assert absent["graph"].entity is None
    with torch.no_grad():
        assert not built.fuse(absent, {"kg": EDGES}).pooled.any()
