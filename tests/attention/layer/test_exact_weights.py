"""Exact weights for chosen rows, whole recordings, and their gradients, beside any backend."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from mmattn import attention as A
from mmattn.attention.analysis.recording import LayerWeights, record
from mmattn.errors import InputError
from mmattn.types import Tokens

Words = Callable[..., Tokens]
BACKENDS = ["auto", "eager", "reference"]


def attended(layer: A.Attention, kv: Tokens, row: A.Row) -> torch.Tensor:
    """The result of one query from its explained weights, by hand."""
    v_KHK = layer.v_proj(kv.values)[row.keys].unflatten(1, (layer.heads, layer.width))
    return layer.o_proj(torch.einsum("hk,khd->hd", row.weights, v_KHK).flatten())


# --- rows -------------------------------------------------------------------------------------------


def test_a_row_by_hand() -> None:
    """Keys 0 and ln 3 against a query of 1, unscaled: weights 1/4 and 3/4; the causal row sees itself."""
    layer = A.Attention(A.Program(score=A.dot(scale=1.0), mask=A.causal), dim=1, heads=1, bias=False)
    tokens = Tokens.from_sequences([torch.tensor([[0.0], [3.0]]).log1p()], "text")  # 0 and ln 4
    with torch.no_grad():
        layer.q_proj.weight.fill_(1 / torch.tensor(4.0).log())  # the second query is 1
        layer.k_proj.weight.fill_(float(torch.tensor(3.0).log() / torch.tensor(4.0).log()))
    _, seen = layer(tokens, explain=A.rows([1, 0]))
    torch.testing.assert_close(seen[0].weights, torch.tensor([[0.25, 0.75]]))
    assert seen[1].weights.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_of_cross_attention_with_ragged_keys(words: Words, backend: str) -> None:
    latents, scene = words([3, 2, 0, 1], 6, "latent"), words([0, 7, 5, 2], 10, "image", seed=1)
    layer = A.Attention(A.Program(), dim=6, heads=3, kv_dim=10, backend=backend).double()
    out, seen = layer(latents, scene, explain=A.rows([0, 4, 5]))
    assert [(row.sample, row.keys.tolist()) for row in seen.rows] == [
        (0, []),
        (1, [0, 1, 2, 3, 4, 5, 6]),
        (3, [12, 13]),
    ]
    for row in seen.rows:
        torch.testing.assert_close(attended(layer, scene, row), out.values[row.token])
    assert seen[0].weights.shape == (3, 0)


@pytest.mark.parametrize("norm", [A.softmax(), A.softmax("sink"), A.sigmoid, A.sparsemax, A.topk(2)])
def test_rows_that_may_attend_to_nothing_are_zero(norm: A.Term, scene: Tokens) -> None:
    program = A.Program(mask=A.route({"audio": [], "*": ["text", "image"]}), norm=norm)
    layer = A.Attention(program, dim=6, heads=2).double()
    out, seen = layer(scene, explain=A.rows([5, 0]))
    assert (seen[0].weights == 0).all()
    assert (seen[1].weights[:, 5] == 0).all()
    for row in seen.rows:
        torch.testing.assert_close(attended(layer, scene, row), out.values[row.token])


def test_a_batch_without_tokens_has_no_row_to_explain() -> None:
    layer = A.Attention(A.Program(), dim=6, heads=2)
    empty = Tokens.empty(2, 6, ("text",))
    assert len(layer(empty, explain=A.rows([]))[1]) == 0
    with pytest.raises(InputError, match="rows: got query token 0, but the batch has none"):
        layer(empty, explain=A.rows([0]))


# --- recordings -------------------------------------------------------------------------------------


@pytest.fixture
def stack() -> nn.ModuleList:
    torch.manual_seed(2)
    local = A.Program(A.dot() >> A.modality_bias("pair") >> A.head_gate("open"), A.window(1), A.entmax15)
    program = A.heads({(0, 1): local, (1, 3): A.Program(norm=A.softmax("sink"))})
    layers = nn.ModuleList([A.Attention(program, dim=6, heads=3) for _ in range(2)]).double().eval()
    for layer in layers:
        for parameter in layer.terms.values():  # type: ignore[union-attr]
            nn.init.normal_(parameter)
    return layers


def run(stack: nn.ModuleList, tokens: Tokens) -> Tokens:
    for layer in stack:
        tokens = tokens.with_values(tokens.values + layer(tokens).values)
    return tokens


def test_a_recording_holds_the_rows_of_every_layer(stack: nn.ModuleList, scene: Tokens) -> None:
    two = Tokens.cat([scene, Tokens.empty(1, 6, dtype=torch.float64)]).select([0, 0])
    with record(stack) as heard:
        run(stack, two)
    assert len(heard) == 2
    first, second = heard.weights()
    assert [first.name, second.name] == ["0", "1"]
    _, rows = stack[0](two, explain=A.rows(range(12)))
    for row in rows.rows:
        torch.testing.assert_close(first.matrices[row.sample][:, row.token % 6], row.weights)
    run(stack, two)
    assert len(heard) == 2, "what runs after the block is not recorded"


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_of_weights_are_those_of_autograd(
    stack: nn.ModuleList, scene: Tokens, backend: str
) -> None:
    """Held against the plain definition, in which the weights are leaves of the graph."""
    layer = stack[0]
    layer.backend = backend
    goal = torch.randn(6, 6, dtype=torch.float64)
    with record(layer) as heard:
        score = (layer(scene).values.tanh() * goal).sum()
    (actual,) = heard.weights(score)
    weights = actual.matrices[0].clone().requires_grad_()
    assert actual.gate is not None
    v_KHK = layer.v_proj(scene.values).unflatten(1, (3, 2))
    heads = torch.einsum("hqk,khd->qhd", weights, v_KHK) * actual.gate[:, None]
    again = (layer.o_proj(heads.flatten(1)).tanh() * goal).sum()
    torch.testing.assert_close(again, score)
    (expected,) = torch.autograd.grad(again, weights)
    assert actual.gradient is not None
    torch.testing.assert_close(actual.gradient[0], expected)


def test_a_frozen_layer_has_gradients_too(stack: nn.ModuleList, scene: Tokens) -> None:
    def gradients() -> list[torch.Tensor]:
        with record(stack) as heard:
            score = run(stack, scene).values.square().sum()
        return [layer.gradient[0] for layer in heard.weights(score) if layer.gradient]

    trained = gradients()
    stack.requires_grad_(False)
    for expected, gradient in zip(trained, gradients(), strict=True):
        torch.testing.assert_close(gradient, expected)


def test_closed_gates_count_and_training_draws_nothing(stack: nn.ModuleList, scene: Tokens) -> None:
    stack[0].terms["open"].data.fill_(-9.0)
    stack.train()
    state = torch.get_rng_state()
    alone = stack[0](scene).values  # draws gates
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    with record(stack[0]) as heard:
        torch.testing.assert_close(stack[0](scene).values, alone)
    assert torch.equal(after, torch.get_rng_state())
    assert heard.weights()[0].gate.tolist() == [0.0, 1.0, 1.0]  # type: ignore[union-attr]


def test_what_cannot_be_recorded_is_said(stack: nn.ModuleList, scene: Tokens) -> None:
    with pytest.raises(InputError, match="record: Linear has no attention layer"), record(nn.Linear(1, 1)):
        pass
    with record(stack) as heard, torch.no_grad():
        out = run(stack, scene)
    with pytest.raises(InputError, match=r"got a score \(\) without a gradient, expected a scalar"):
        heard.weights(out.values.sum())
    with pytest.raises(InputError, match=r"got a score \(6, 6\) with a gradient"):
        heard.weights(run(stack, scene).values)
    with pytest.raises(InputError, match=r"LayerWeights.matrices: got shapes \[\(1, 2, 6\)\]"):
        LayerWeights(scene, scene, (torch.zeros(1, 2, 6),))


def test_samples_without_tokens_are_recorded(words: Words) -> None:
    layer = A.Attention(A.Program(), dim=6, heads=2).double()
    with record(layer) as heard:
        layer(words([0, 3, 0], 6), words([2, 0, 0], 6, seed=1))
    assert [matrix.shape for matrix in heard.weights()[0].matrices] == [(2, 0, 2), (2, 3, 0), (2, 0, 0)]
