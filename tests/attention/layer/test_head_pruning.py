"""Gated heads: what an open one costs, and that a pruned layer or model can be stored and loaded."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mmattn import InputError, Tokens
from mmattn import attention as A
from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.fusion.block import BottleneckBlock, FusionBlock
from mmattn.model.build import build_encoders, build_model
from mmattn.model.model import Model

GATED = A.Program(score=A.dot() >> A.alibi >> A.modality_bias("pair") >> A.head_gate("gate"))
NEAR, FAR = (A.Program(score=A.dot() >> A.relative(name, 4) >> A.head_gate(name + "_gate")) for name in "nf")


def layer_of(program: Any = GATED, closed: dict[str, list[int]] | None = None, heads: int = 7) -> A.Attention:
    torch.manual_seed(0)
    layer = A.Attention(program, dim=5 * heads, heads=heads).double().eval()
    layer.register_modalities(["text", "image"])
    with torch.no_grad():
        for name, parameter in layer.program_parameters().items():
            if "gate" not in name:
                parameter.normal_()
        for name, rows in (closed or {}).items():
            layer.program_parameters()[name][rows] = -9.0
    return layer


def scene(dim: int = 35) -> Tokens:
    torch.manual_seed(1)
    parts = [
        Tokens.from_sequences([torch.randn(size, dim).double() for size in sizes], name)
        for name, sizes in (("text", [3, 0, 2]), ("image", [4, 5, 0]))
    ]
    return Tokens.cat(parts)


def test_a_pruned_state_loads_into_a_whole_layer() -> None:
    pruned = layer_of(closed={"gate": [0, 4, 5]})
    expected = pruned(scene()).values
    assert pruned.prune() == (0, 4, 5)
    whole = layer_of()
    whole.load_state_dict(pruned.state_dict())
    assert (whole.heads, whole.kept_heads.tolist()) == (4, [1, 2, 3, 6])
    torch.testing.assert_close(whole(scene()).values, expected)


def test_heads_are_counted_as_in_the_whole_layer_however_often_one_prunes() -> None:
    layer = layer_of(closed={"gate": [1, 3]})
    layer.prune()
    once = copy.deepcopy(layer)
    layer.program_parameters()["gate"].data[2] = -9.0  # the third of 0, 2, 4, 5, 6
    assert layer.prune() == (2,)
    assert layer.kept_heads.tolist() == [0, 2, 5, 6]
    once.load_state_dict(layer.state_dict())
    torch.testing.assert_close(once(scene()).values, layer(scene()).values)


def test_other_programs_for_other_heads_come_back_too() -> None:
    program = A.heads({(0, 2): NEAR, (2, 5): A.Program(mask=A.causal), (5, 7): FAR})
    pruned = layer_of(program, closed={"n_gate": [0, 1], "f_gate": [6]})
    expected = pruned(scene()).values
    assert pruned.prune() == (0, 1, 6)
    assert pruned.program == A.heads({(0, 3): A.Program(mask=A.causal), (3, 4): FAR})
    assert sorted(pruned.program_parameters()) == ["f", "f_gate"]  # nobody reads the others any more
    whole = layer_of(program)
    whole.load_state_dict(pruned.state_dict())
    torch.testing.assert_close(whole(scene()).values, expected)


def test_heads_that_are_gone_do_not_come_back() -> None:
    whole, pruned = layer_of(), layer_of(closed={"gate": [2]})
    pruned.prune()
    with pytest.raises(InputError, match=r"state of the layer is of all heads, .* has only \[0, 1, 3, 4"):
        pruned.load_state_dict(whole.state_dict())
    other = layer_of(closed={"gate": [0, 1]})
    other.prune()
    message = r"state of 0 is of the heads \[2, 3, 4, 5, 6\].* has only \[0, 1, 3, 4, 5, 6\]; expected"
    with pytest.raises(InputError, match=message):
        nn.Sequential(pruned).load_state_dict(nn.Sequential(other).state_dict())


def test_a_state_of_something_else_leaves_the_heads_alone() -> None:
    pruned = layer_of(closed={"gate": [2]})
    pruned.prune()
    pruned.load_state_dict({"terms.pair": torch.zeros(6, 8, 8).double()}, strict=False)
    assert (pruned.heads, pruned.program_parameters()["pair"].abs().sum().item()) == (6, 0.0)


def test_an_adapter_around_a_projection_is_named() -> None:
    layer = layer_of(closed={"gate": [2]})
    layer.v_proj = nn.Sequential(layer.v_proj)  # type: ignore[assignment]
    with pytest.raises(InputError, match="v_proj is Sequential, expected Linear; merge adapters first"):
        layer.prune()


def test_the_penalty_is_the_expected_number_of_open_heads() -> None:
    entry, two = layer_of(heads=2), layer_of(A.Program(), heads=3)
    entry.program_parameters()["gate"].data.copy_(torch.tensor([0.0, -1.0]))
    # P(gate > 0) = sigmoid(logit - 2/3 log(0.1 / 1.1)), worked out by hand from Louizos et al., eq. 12
    shift = 2 / 3 * math.log(0.1 / 1.1)
    expected = sum(1 / (1 + math.exp(-(logit - shift))) for logit in (0.0, -1.0))
    assert A.gate_penalty(nn.ModuleList([entry, two])).item() == pytest.approx(expected)
    with pytest.raises(InputError, match="no layer has a gate to close"):
        A.gate_penalty(two)


def test_gates_are_drawn_in_training_and_fixed_otherwise() -> None:
    layer = layer_of()
    layer.program_parameters()["gate"].data.fill_(0.3)
    tokens = scene()
    assert not torch.equal(layer.train()(tokens).values, layer(tokens).values)
    assert torch.equal(layer.eval()(tokens).values, layer(tokens).values)
    # the mean of many draws of P(gate = 0) agrees with the penalty's own formula
    gate, logits = layer._gates[0][2], torch.full((40_000,), 0.3)
    shut = (gate.gate(logits, training=True) == 0).double().mean().item()
    assert shut == pytest.approx(1 - gate.open_probability(logits[:1]).item(), abs=0.01)


def test_every_layer_of_a_core_is_pruned() -> None:
    inner = FusionBlock(layer_of(closed={"gate": [1]}, heads=2), dim=10)
    blocks = nn.ModuleList([FusionBlock(layer_of(closed={"gate": [0, 6]}), dim=35), inner])
    assert A.prune(blocks) == {"0.attention": (0, 6), "1.attention": (1,)}
    assert A.prune(blocks) == {}
    narrow = BottleneckBlock(FusionBlock(layer_of(closed={"gate": [1]}, heads=2), dim=10), dim=12, width=10)
    assert A.prune(narrow) == {"block.attention": (1,)}


def model_of() -> Model:
    config = ModelConfig(
        encoders={name: EncoderConfig("tiny-text", {"dim": 6, "buckets": 31}) for name in ("text", "title")},
        fusion=FusionConfig(dim=20, layers=2, heads=5, program=str(GATED)),
        heads={"alignment": HeadConfig("alignment", {"embedding_dim": 3})},
    )
    torch.manual_seed(0)
    model = build_model(build_encoders(config.encoders), config).eval()
    with torch.no_grad():
        for parameter in model.core.blocks.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        model.core.blocks[1].attention.terms["gate"][[0, 3]] = -9.0
    return model


def test_a_pruned_model_is_saved_and_built_again(tmp_path: Path) -> None:
    model = model_of()
    contents = ["two words", None, "and three more"]
    parts = {"text": model.encoders["text"](contents), "title": model.encoders["title"](contents[::-1])}
    expected = model.fuse(parts).pooled
    assert model.prune() == {"core.blocks.1.attention": (0, 3)}
    torch.testing.assert_close(model.fuse(parts).pooled, expected)
    model.save_pretrained(tmp_path)
    again = Model.from_pretrained(tmp_path)
    assert [block.attention.heads for block in again.core.blocks] == [5, 3]
    assert torch.equal(again.fuse(parts).pooled, model.fuse(parts).pooled)
    with pytest.raises(InputError, match="state of core.blocks.1.attention is of all heads"):
        again.load_trained(model_of().trained_state())
