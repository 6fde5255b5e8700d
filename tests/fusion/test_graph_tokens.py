"""A graph in the fusion: a new film is told apart by its edges alone; without edges nothing changes."""

from __future__ import annotations

from typing import Any

import torch

from mmattn import Tokens
from mmattn.build import build_model
from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.encoders.tabular import Tabular

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


def test_items_without_the_graph_are_fused_all_the_same() -> None:
    built = model()
    absent = {"graph": Tokens.empty(2, 8, ("graph",))}
    assert absent["graph"].entity is None
    with torch.no_grad():
        assert not built.fuse(absent, {"kg": EDGES}).pooled.any()
