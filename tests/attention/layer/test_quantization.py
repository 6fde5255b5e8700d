"""Linear layers in int8: what rounding costs, that rows do not meet, and that it is saved and loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mmattn import Tokens
from mmattn import attention as A
from mmattn.attention.layer.head_pruning import keep_heads
from mmattn.attention.layer.quantization import QuantizedLinear
from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.errors import InputError
from mmattn.model.build import build_encoders, build_model
from mmattn.model.model import Model
from mmattn.types import Sample


def test_by_hand() -> None:
    """Scales 2/127 and 1/127; the input's scale is 4/127, and 3 becomes 95.25, which is rounded."""
    linear = nn.Linear(2, 2)
    linear.weight.data = torch.tensor([[2.0, -1.0], [0.0, 1.0]])
    linear.bias.data = torch.tensor([10.0, 20.0])
    small = QuantizedLinear(linear).eval()
    assert small.weight.tolist() == [[127, -64], [0, 127]]
    expected_0 = 10 + (127 * 95 - 64 * -127) * (4 / 127) * (2 / 127)
    expected_1 = 20 + 127 * -127 * (4 / 127) * (1 / 127)
    assert small(torch.tensor([[3.0, -4.0]])).tolist()[0] == pytest.approx([expected_0, expected_1], rel=1e-5)


@given(st.integers(1, 23), st.integers(1, 37), st.integers(1, 29), st.booleans(), st.integers(0, 99))
def test_the_error_is_that_of_rounding(rows: int, width: int, out: int, bias: bool, seed: int) -> None:
    """Each factor is off by half a level at most."""
    torch.manual_seed(seed)
    linear = nn.Linear(width, out, bias=bias)
    x = torch.randn(rows, width) * torch.logspace(-3, 3, rows)[:, None]
    small = QuantizedLinear(linear).eval()
    x_step, w_step = x.abs().amax(1, keepdim=True) / 127, linear.weight.abs().amax(1) / 127
    bound = (x.abs() @ (w_step / 2).expand(width, out)) + (x_step / 2) * linear.weight.abs().sum(1)
    bound = bound + width * x_step * w_step / 4
    assert ((small(x) - linear(x)).abs() <= bound * 1.001 + 1e-6).all()


def test_rows_do_not_depend_on_each_other() -> None:
    small = QuantizedLinear(nn.Linear(31, 17)).eval()
    x = torch.randn(13, 31)
    alone = torch.cat([small(row[None]) for row in x])
    assert torch.equal(small(torch.cat([x, 1000 * torch.randn(3, 31)]))[:13], alone)
    assert torch.equal(small(x.view(1, 13, 31))[0], alone)


def test_a_row_of_zeros_and_no_rows() -> None:
    linear = nn.Linear(5, 3)
    small = QuantizedLinear(linear).eval()
    assert torch.equal(small(torch.zeros(2, 5)), linear.bias.expand(2, 3))
    assert small(torch.zeros(0, 5)).shape == (0, 3)


def test_training_is_refused() -> None:
    with pytest.raises(InputError, match="quantised layer cannot be trained"):
        QuantizedLinear(nn.Linear(5, 3)).train()(torch.zeros(1, 5))
    with pytest.raises(InputError, match="LayerNorm has no linear layer"):
        A.quantize(nn.LayerNorm(3))


def test_what_pytorch_reads_past_the_layer_stays_whole() -> None:
    tied, embedding = nn.Linear(7, 11, bias=False), nn.Embedding(11, 7)
    tied.weight = embedding.weight
    module = nn.ModuleDict(
        {
            "own": nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
            "embedding": embedding,
            "tied": tied,
            "free": nn.Linear(7, 11),
        }
    )
    assert A.quantize(module) == ("free",)


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_an_attention_layer_computes_nearly_the_same(backend: str) -> None:
    torch.manual_seed(0)
    layer = A.Attention(A.Program(score=A.dot() >> A.relative("near", 8)), dim=32, heads=4, backend=backend)
    tokens = Tokens.from_sequences([torch.randn(11, 32), torch.zeros(0, 32), torch.randn(7, 32)], "text")
    before = layer.eval()(tokens).values
    assert A.quantize(layer) == ("q_proj", "k_proj", "v_proj", "o_proj")
    assert (layer(tokens).values - before).norm() < 0.03 * before.norm()
    assert layer.plan(tokens).backend
    with pytest.raises(InputError, match="q_proj is QuantizedLinear"):
        keep_heads(layer, [0])


def model_of() -> Model:
    torch.manual_seed(1)
    config = ModelConfig(
        {
            "text": EncoderConfig("tiny-text", options={"dim": 24}),
            "image": EncoderConfig("tiny-image", options={"dim": 24}),
        },
        FusionConfig(dim=24, heads=4, layers=2, program="Program(score=dot() >> head_gate('gate'))"),
        {"labels": HeadConfig("labels", {"labels": ["a", "b", "c", "d", "e"]})},
    )
    return build_model(build_encoders(config.encoders), config)


SAMPLES = [Sample("a", {"text": "seven birds"}), Sample("b", {"text": "one old bird in a tree"})]


def scores(model: Model) -> Tensor:
    with torch.no_grad():
        return model.eval()(SAMPLES)["labels"]


def test_a_quantised_model_is_saved_and_loaded(tmp_path: Path) -> None:
    model = model_of()
    for block in model.core.blocks:
        nn.init.normal_(block.attention.o_proj.weight, std=0.2)
        nn.init.normal_(block.feed_forward[2].weight, std=0.2)
        block.attention.program_parameters()["gate"].data[1] = -9.0
    model.prune()
    whole = scores(model)
    model.save_pretrained(tmp_path / "whole")
    turned = model.quantize()
    assert {"heads.labels.project", "core.blocks.0.attention.q_proj"} <= set(turned)
    small = scores(model)
    assert 0 < (small - whole).norm() < 0.05 * whole.norm()
    model.save_pretrained(tmp_path / "small")
    assert torch.equal(scores(Model.from_pretrained(tmp_path / "small")), small)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "small")]
    assert sizes[1] < sizes[0]
    with pytest.raises(InputError, match="of a whole layer, but the layer here is quantised"):
        model.load_trained(Model.from_pretrained(tmp_path / "whole").trained_state())
