"""Who decays and how fast each learns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from mmattn import InputError, Tokens
from mmattn import attention as A
from mmattn.encoders.base import Encoder, EncoderCard
from mmattn.training.optimizers import OPTIMIZERS, build_optimizer
from mmattn.training.parameter_groups import parameter_groups


class Words(Encoder):
    name, modality, dim = "words", "text", 3

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 3)
        self.layers = nn.ModuleList([nn.Linear(3, 3) for _ in range(3)])
        self.top = nn.Linear(3, 3)

    def encode(self, contents: Sequence[Any]) -> Tokens:
        raise NotImplementedError

    def describe(self) -> EncoderCard:
        raise NotImplementedError


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        program = A.Program(score=A.dot() >> A.modality_bias("pair"), norm=A.softmax())
        self.model = nn.ModuleDict(
            {"encoders": nn.ModuleDict({"text": Words()}), "core": A.Attention(program, 8, 2)}
        )


def by_name(groups: list[dict[str, Any]], key: str) -> dict[str, float]:
    return {name: group[key] for group in groups for name in group["names"]}


def test_weights_decay_and_the_rest_does_not() -> None:
    module = Small()
    decay = by_name(parameter_groups(module, learning_rate=1.0, weight_decay=0.3), "weight_decay")
    assert decay["model.core.q_proj.weight"] == 0.3
    assert decay["model.core.q_proj.bias"] == 0.0
    terms = [name for name in decay if name.startswith("model.core.terms")]
    assert terms  # the table of a modality bias has three dimensions, and does not decay
    assert [decay[name] for name in terms] == [0.0] * len(terms)


def test_every_trained_parameter_is_in_one_group() -> None:
    module = Small()
    module.model["encoders"]["text"].embed.requires_grad_(False)
    groups = parameter_groups(module, learning_rate=1.0, weight_decay=0.3, layer_decay=0.5)
    names = [name for group in groups for name in group["names"]]
    assert sorted(names) == sorted(name for name, p in module.named_parameters() if p.requires_grad)
    assert sum(len(group["params"]) for group in groups) == len(names)


def test_rates_fall_from_layer_to_layer_of_an_encoder() -> None:
    rate = by_name(parameter_groups(Small(), learning_rate=0.8, layer_decay=0.5), "lr")
    text = "model.encoders.text"
    assert rate[f"{text}.top.weight"] == 0.8
    assert [rate[f"{text}.layers.{layer}.weight"] for layer in (2, 1, 0)] == [0.8, 0.4, 0.2]
    assert rate[f"{text}.embed.weight"] == pytest.approx(0.1)
    assert rate["model.core.q_proj.weight"] == 0.8


def test_the_longest_name_decides_the_rate() -> None:
    rates = {"encoders": 0.1, "encoders.text.top": 0.5}
    rate = by_name(parameter_groups(Small(), learning_rate=1.0, lr_multipliers=rates), "lr")
    assert rate["model.encoders.text.embed.weight"] == 0.1
    assert rate["model.encoders.text.top.bias"] == 0.5
    assert rate["model.core.o_proj.bias"] == 1.0


def test_gates_have_a_rate_of_their_own() -> None:
    gated = A.Attention(A.Program(score=A.dot() >> A.modality_bias("pair") >> A.head_gate("gate")), 8, 2)
    rate = by_name(parameter_groups(gated, learning_rate=1e-3, gate_learning_rate=0.1), "lr")
    assert {name for name, value in rate.items() if value == 0.1} == {"terms.gate"}
    assert {name for name, value in rate.items() if value == 1e-3} == rate.keys() - {"terms.gate"}
    assert set(by_name(parameter_groups(gated, learning_rate=1e-3), "lr").values()) == {1e-3}


def test_what_the_groups_refuse() -> None:
    with pytest.raises(InputError, match=r"no trained part 'encoders.txt'. Did you mean 'encoders.text'\?"):
        parameter_groups(Small(), learning_rate=1.0, lr_multipliers={"encoders.txt": 0.1})
    with pytest.raises(InputError, match="got 0 for 'core'"):
        parameter_groups(Small(), learning_rate=1.0, lr_multipliers={"core": 0})
    with pytest.raises(InputError, match="gate_rate: got -1"):
        parameter_groups(Small(), learning_rate=1.0, gate_learning_rate=-1)
    with pytest.raises(InputError, match="layer_decay: got 1.2"):
        parameter_groups(Small(), learning_rate=1.0, layer_decay=1.2)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_first_step_of_each_optimizer(name: str) -> None:
    weight = torch.tensor([2.0], requires_grad=True)
    optimizer = build_optimizer(name, [{"params": [weight], "lr": 0.1, "weight_decay": 0.0}])
    weight.grad = torch.tensor([0.5])
    optimizer.step()
    # sgd: 0.1 x 0.5; adamw and adagrad divide the first gradient by its own size.
    assert weight.item() == pytest.approx(2 - {"sgd": 0.05}.get(name, 0.1))


def test_what_the_optimizers_refuse() -> None:
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": 0.1}]
    with pytest.raises(InputError, match=r"no optimizer 'adam_w'. Did you mean 'adamw'\?"):
        build_optimizer("adam_w", groups)
    with pytest.raises(InputError, match="optimizer sgd: Invalid momentum value: -1"):
        build_optimizer("sgd", groups, {"momentum": -1})
    with pytest.raises(InputError, match="no parameter that learns"):
        build_optimizer("sgd", [])
