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
from mmattn.training.callbacks.head_gates import HeadGatePenalty
from mmattn.training.optimizers import build_optimizer, optimizer_names
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
    group = HeadGatePenalty(0.5, learning_rate=0.1).learning_rates(gated)  # type: ignore[arg-type]
    rate = by_name(parameter_groups(gated, learning_rate=1e-3, learning_rates=group), "lr")
    assert {name for name, value in rate.items() if value == 0.1} == {"terms.gate"}
    assert {name for name, value in rate.items() if value == 1e-3} == rate.keys() - {"terms.gate"}
    assert set(by_name(parameter_groups(gated, learning_rate=1e-3), "lr").values()) == {1e-3}


def test_what_the_groups_refuse() -> None:
    with pytest.raises(InputError, match=r"no trained part 'encoders.txt'. Did you mean 'encoders.text'\?"):
        parameter_groups(Small(), learning_rate=1.0, lr_multipliers={"encoders.txt": 0.1})
    with pytest.raises(InputError, match="got 0 for 'core'"):
        parameter_groups(Small(), learning_rate=1.0, lr_multipliers={"core": 0})
    with pytest.raises(InputError, match="gate_learning_rate: got -1"):
        HeadGatePenalty(0.5, learning_rate=-1)
    with pytest.raises(InputError, match="layer_decay: got 1.2"):
        parameter_groups(Small(), learning_rate=1.0, layer_decay=1.2)


def test_a_module_says_what_does_not_decay() -> None:
    """`no_weight_decay` is timm's convention: names within the module."""

    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias_table, self.weight = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(2, 2))

        def no_weight_decay(self) -> set[str]:
            return {"bias_table", "absent"}

    groups = parameter_groups(nn.Sequential(Table()), learning_rate=1.0, weight_decay=0.3)
    assert by_name(groups, "weight_decay") == {"0.bias_table": 0.0, "0.weight": 0.3}


@pytest.mark.filterwarnings("ignore:It is highly recommended to have 'opt_einsum'")
@pytest.mark.parametrize("name", optimizer_names())
def test_every_optimizer_that_can_be_built_goes_down(name: str) -> None:
    """One step on a matrix and a vector, each with its own rate and decay; or one line that says why not."""
    weight, bias = (nn.Parameter(torch.ones(shape)) for shape in ((3, 2), (3,)))
    groups = [
        {"params": [weight], "lr": 0.02, "weight_decay": 0.1},
        {"params": [bias], "lr": 0.01, "weight_decay": 0.0},
    ]
    try:
        optimizer = build_optimizer(name, groups)
    except InputError as error:
        assert name.startswith(("bnb", "fused")), error  # noqa: PT017 (libraries for CUDA alone)
        return
    for _ in range(2):  # some only look at the first gradient
        (weight.sum() ** 2 + bias.sum() ** 2).backward()
        optimizer.step()
    assert weight.sum() < 6
    assert bias.sum() < 3


@pytest.mark.parametrize("name", ["adamw", "sgd", "adagrad"])
def test_the_first_step_of_each_optimizer(name: str) -> None:
    weight = torch.tensor([2.0], requires_grad=True)
    optimizer = build_optimizer(name, [{"params": [weight], "lr": 0.1, "weight_decay": 0.0}])
    weight.grad = torch.tensor([0.5])
    optimizer.step()
    # sgd: 0.1 x 0.5; adamw and adagrad divide the first gradient by its own size.
    assert weight.item() == pytest.approx(2 - {"sgd": 0.05}.get(name, 0.1))


def test_what_the_optimizers_refuse() -> None:
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": 0.1}]
    with pytest.raises(
        InputError, match=r"no optimizer 'adam_w' in torch.optim or timm. Did you mean 'adamw'\?"
    ):
        build_optimizer("adam_w", groups)
    with pytest.raises(InputError, match="optimizer sgd: Invalid momentum value: -1"):
        build_optimizer("sgd", groups, {"momentum": -1})
    with pytest.raises(InputError, match="no parameter that learns"):
        build_optimizer("sgd", [])
