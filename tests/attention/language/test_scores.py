"""Scores and biases worked out by hand, through one head whose projections do nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mmattn import attention as A
from mmattn.attention.execution.attention_call import AttentionCall
from mmattn.attention.execution.context_tensors import build_context_tensors
from mmattn.attention.execution.layout import Layout
from mmattn.attention.language.biases import _t5_buckets
from mmattn.errors import InputError
from mmattn.types import Tokens


def scores(
    chain: Any, tokens: Tokens, parameters: dict[str, Tensor], context: dict[str, Any] | None = None
) -> Tensor:
    """[H, N, N] scores of the first sample, whose values are queries and keys alike."""
    program = A.Program(score=chain)
    layout = Layout.from_tokens(tokens, tokens)
    q = tokens.values[:, None]
    doubles = {name: value.double() for name, value in parameters.items()}
    actual = build_context_tensors(program, tokens, tokens, layout, context or {})
    call = AttentionCall(
        program, q, q, q, layout, doubles, modality_slots=tokens.modalities, context_tensors=actual
    )
    pairs = call.sample_pairs(0)
    group = tokens.values[: tokens.length_list[0]][None]
    score = program.chain.score(group, group, pairs)
    return score.expand(1, tokens.length_list[0], tokens.length_list[0])


def line(values: list[list[float]], **fields: Any) -> Tokens:
    tensor = torch.tensor(values, dtype=torch.float64)
    return Tokens.from_lengths(tensor, torch.tensor([len(values)]), "text", **fields)


def close(got: Tensor, expected: list[list[float]]) -> None:
    torch.testing.assert_close(got[0], torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)


NOTHING = [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]


def test_dot_and_its_scale() -> None:
    pair = line([[1.0, 2.0], [3.0, -1.0]])
    close(scores(A.dot(scale=0.5), pair, {}), [[2.5, 0.5], [0.5, 5.0]])
    close(
        scores(A.dot(), pair, {}),
        [[5 / math.sqrt(2), 1 / math.sqrt(2)], [1 / math.sqrt(2), 10 / math.sqrt(2)]],
    )


def test_cosine() -> None:
    close(scores(A.cosine, line([[3.0, 4.0], [4.0, 3.0]]), {}), [[1.0, 0.96], [0.96, 1.0]])


def test_bilinear() -> None:
    weight = torch.tensor([[[0.0, 1.0], [2.0, 0.0]]])
    # q W: (1, 2) -> (4, 1), (3, -1) -> (-2, 3).
    got = scores(A.bilinear(scale=1.0), line([[1.0, 2.0], [3.0, -1.0]]), {"bilinear": weight})
    close(got, [[6.0, 11.0], [4.0, -9.0]])


def test_additive() -> None:
    parameters = {
        "additive_query": torch.tensor([[[1.0], [0.0]]]),
        "additive_key": torch.tensor([[[0.0], [1.0]]]),
        "additive_out": torch.tensor([[2.0]]),
    }
    got = scores(A.additive(1), line([[1.0, 2.0], [3.0, -1.0]]), parameters)
    close(got, [[2 * math.tanh(3), 2 * math.tanh(0)], [2 * math.tanh(5), 2 * math.tanh(2)]])


def test_softcap_and_temperature() -> None:
    pair = line([[2.0]])
    close(scores(A.dot(1.0) >> A.softcap(3.0), pair, {}), [[3 * math.tanh(4 / 3)]])
    close(scores(A.dot(1.0) >> A.temperature(5.0), pair, {}), [[0.8]])
    close(scores(A.dot(1.0) >> A.softcap(3.0) >> A.temperature(2.0), pair, {}), [[1.5 * math.tanh(4 / 3)]])


def test_learned_numbers_begin_as_written_and_move_by_factors() -> None:
    chain = A.dot(1.0) >> A.temperature(A.learned("t", 5.0))
    close(scores(chain, line([[2.0]]), {"t": torch.tensor([0.0])}), [[0.8]])
    close(scores(chain, line([[2.0]]), {"t": torch.tensor([2.0]).double().log()}), [[0.4]])


def test_alibi_has_a_slope_a_head() -> None:
    layer = A.Attention(A.Program(score=A.dot() >> A.alibi), dim=8, heads=8)
    assert layer.slope.tolist() == [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]
    got = scores(A.dot() >> A.alibi, line(NOTHING), {".slope": torch.tensor([0.5])})
    close(got, [[0.0, -0.5, -1.0], [-0.5, 0.0, -0.5], [-1.0, -0.5, 0.0]])


def test_relative_buckets() -> None:
    # Of 4 buckets a side two are exact; 2 and 3 share the third, and from 4 on, half way from 2 to 8 on
    # the logarithmic scale, it is the fourth.
    assert _t5_buckets(4, 8) == (0, 1, 2, 2, 3, 3, 3, 3, 3)
    bias = torch.tensor([[10.0, 11.0, 12.0, 13.0, 20.0, 21.0, 22.0, 23.0]])
    got = scores(A.dot() >> A.relative("r", 8, 8), line(NOTHING), {"r": bias})
    close(got, [[10.0, 21.0, 22.0], [11.0, 10.0, 21.0], [12.0, 11.0, 10.0]])


@pytest.mark.slow
def test_t5_buckets_as_transformers_has_them() -> None:
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    distance = torch.arange(0, 200)
    expected = t5.T5Attention._relative_position_bucket(-distance, True, 32, 128)
    table = torch.tensor(_t5_buckets(16, 128))
    assert torch.equal(table[distance.clamp(max=128)], expected)


def test_modality_bias_reads_query_then_key() -> None:
    tokens = Tokens.cat([line([[0.0]]), Tokens.from_sequences([torch.zeros(1, 1).double()], "image")])
    bias = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    close(scores(A.dot() >> A.modality_bias("m"), tokens, {"m": bias}), [[1.0, 2.0], [3.0, 4.0]])
    other = A.modality_bias("m", modalities=["image", "text"])
    close(scores(A.dot() >> other, tokens, {"m": bias}), [[4.0, 3.0], [2.0, 1.0]])


def test_modality_bias_refuses_what_has_no_row() -> None:
    layer = A.Attention(
        A.Program(score=A.dot() >> A.modality_bias("m", modalities=["image"])), dim=2, heads=1
    )
    with pytest.raises(InputError, match="modality_bias: got tokens of 'text', expected one of image"):
        layer(Tokens.from_sequences([torch.zeros(1, 2)], "text"))


def test_graph_bias_adds_up_edges() -> None:
    entity = torch.tensor([7, -1, 9])
    # 7 -> 9 by relation 0 and by relation 1, 9 -> 9 by 1, and an edge that leaves the batch.
    edges = torch.tensor([[7, 7, 9, 7], [9, 9, 9, 1000], [0, 1, 1, 0]])
    got = scores(
        A.dot() >> A.graph_bias("kg", relations=2),
        line(NOTHING, entity=entity),
        {"kg": torch.tensor([[0.5, 2.0]])},
        {"kg": edges},
    )
    close(got, [[0.0, 0.0, 2.5], [0.0, 0.0, 0.0], [0.0, 0.0, 2.0]])


def test_time_bias_buckets_are_logarithmic() -> None:
    # Four buckets up to 7 seconds: log(1 + t) in steps of log(8) / 3 = log 2, so they begin at 0, 1, 3, 7.
    term = A.time_bias("t", buckets=4, longest=7.0)
    assert term.boundaries == pytest.approx((1.0, 3.0, 7.0))
    time = torch.tensor([0.0, 2.0, float("nan")], dtype=torch.float64)
    bias = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    got = scores(A.dot() >> term, line(NOTHING, time=time), {"t": bias})
    close(got, [[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 0.0]])


def test_box_bias() -> None:
    # A box 2 wide and 4 high at the origin; one twice as large whose centre is 1 right and 8 below.
    first, second = [0.0, 0.0, 2.0, 4.0], [0.0, 6.0, 4.0, 14.0]
    boxes = torch.tensor([first, second, [float("nan")] * 4], dtype=torch.float64)
    weight = torch.tensor([[1.0, 10.0, 100.0, 1000.0]])
    got = scores(A.dot() >> A.box_bias("b"), line(NOTHING), {"b": weight}, {"b": boxes})
    near = math.log(1e-3)
    close(
        got,
        [
            [11 * near, math.log(1 / 2) + 10 * math.log(2) + 1100 * math.log(2), 0.0],
            [math.log(1 / 4) + 10 * math.log(1) + 1100 * math.log(1 / 2), 11 * near, 0.0],
            [0.0, 0.0, 0.0],
        ],
    )


def test_dynamic_numbers_follow_the_task_and_the_sample() -> None:
    chain = A.dot(1.0) >> A.temperature(A.dynamic("t", on="task", start=2.0))
    layer = A.Attention(A.Program(score=chain), dim=2, heads=1).double()
    layer.program_parameters()["t"].data = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    tokens = line([[1.0, 0.5], [0.0, 1.0]])
    cold = {"task": torch.tensor([math.log(0.5), 3.0], dtype=torch.float64)}  # 2 x 0.5 = 1
    plain = A.Attention(A.Program(score=A.dot(1.0)), dim=2, heads=1).double()
    plain.load_state_dict(layer.state_dict(), strict=False)
    torch.testing.assert_close(layer(tokens, context=cold).values, plain(tokens).values)
    with pytest.raises(InputError, match=r"needs context\['task'\], which is missing"):
        layer(tokens)
    with pytest.raises(
        InputError, match=r'context\["task"\] is \(3,\) torch.float32, expected \[2\] or \[1, 2\]'
    ):
        layer(tokens, context={"task": torch.zeros(3)})


def seen(program: Any, tokens: Tokens, parameters: dict[str, list[Any]], **options: Any) -> Tensor:
    """[H, N, N] weights over all of one sample, through a layer whose projections do nothing."""
    layer = A.Attention(program, dim=2, heads=options.pop("heads", 2), backend="reference").double()
    for projection in (layer.q_proj, layer.k_proj):
        torch.nn.init.eye_(projection.weight)
        torch.nn.init.zeros_(projection.bias)
    for name, value in parameters.items():
        layer.program_parameters()[name].data = torch.tensor(value, dtype=torch.float64)
    _, rows = layer(tokens, explain=A.rows(range(len(tokens.values))), **options)
    return torch.stack([row.weights for row in rows.rows], dim=1)


def test_every_head_has_its_own_learned_number() -> None:
    # Two heads of width 1; the keys of the first token are (0, 0) and those of the second (1, 1): its
    # scores are 0 and 1, times 1 x 2 = 2 in the first head and 1 x 3 in the second.
    tokens = line([[0.0, 0.0], [1.0, 1.0]])
    got = seen(A.Program(A.dot(A.learned("s", 1.0))), tokens, {"s": [math.log(2.0), math.log(3.0)]})
    assert got[:, 1, 1].tolist() == pytest.approx([1 / (1 + math.exp(-2)), 1 / (1 + math.exp(-3))])
    # Caps of 4 x 1/2 = 2 and of 4: 2 tanh(1 / 2), 4 tanh(1 / 4).
    got = seen(A.Program(A.dot(1.0) >> A.softcap(A.learned("c", 4.0))), tokens, {"c": [math.log(0.5), 0.0]})
    score = [2 * math.tanh(0.5), 4 * math.tanh(0.25)]
    assert got[:, 1, 1].tolist() == pytest.approx([1 / (1 + math.exp(-x)) for x in score])


def test_a_number_from_the_input_reads_the_mean_of_the_sample_s_queries() -> None:
    # The mean of the tokens is (1/2, 1/2). Theta is 2 log 2 x 1/2 = log 2 in the first head, and 0 in the
    # second: temperatures 3 x 2 and 3 over a score of 1.
    tokens = line([[0.0, 0.0], [1.0, 1.0]])
    chain = A.dot(1.0) >> A.temperature(A.dynamic("t", on="input", start=3.0))
    got = seen(A.Program(chain), tokens, {"t": [[2 * math.log(2.0), 0.0], [0.0, 0.0]]})
    assert got[:, 1, 1].tolist() == pytest.approx([1 / (1 + math.exp(-1 / 6)), 1 / (1 + math.exp(-1 / 3))])


def test_a_task_a_sample_gives_a_number_a_sample() -> None:
    tokens = Tokens.from_lengths(
        torch.tensor([[0.0, 0.0], [1.0, 1.0]]).double().repeat(2, 1), torch.tensor([2, 2]), "text"
    )
    chain = A.dot(A.dynamic("s", on="task"))
    task = torch.tensor([[math.log(2.0), 0.0], [0.0, math.log(5.0)]], dtype=torch.float64)
    got = seen(A.Program(chain), tokens, {"s": [[1.0, 1.0]]}, heads=1, context={"task": task})
    # One head of width 2: the second token matches itself by 2, times 2 in the first sample, 5 in the other.
    assert got[0, [1, 3], 1].tolist() == pytest.approx([1 / (1 + math.exp(-4)), 1 / (1 + math.exp(-10))])


def test_heads_take_their_own_rows_of_the_parameters() -> None:
    near = A.Program(score=A.dot(1.0) >> A.temperature(A.learned("t", 1.0)))
    program = A.heads({(0, 1): A.Program(mask=A.window(0)), (1, 2): near})
    got = seen(program, line([[0.0, 0.0], [1.0, 1.0]]), {"t": [9.0, math.log(0.5)]})
    assert got[0].tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert got[1, 1, 1].item() == pytest.approx(1 / (1 + math.exp(-2)))  # the second row: 1 / 0.5


def test_head_gate_is_a_clamped_stretch_of_a_sigmoid() -> None:
    # 1.2 sigmoid(x) - 0.1, between 0 and 1: 0.5 -> 0.5, 0.75 -> 0.8, 0.25 -> 0.2, and the ends.
    gate = A.head_gate("g")
    logit = torch.tensor([0.0, math.log(3.0), -math.log(3.0), 3.0, -3.0], dtype=torch.float64)
    assert gate.gate(logit, training=False).tolist() == pytest.approx([0.5, 0.8, 0.2, 1.0, 0.0])
    # It leaves the scores alone and multiplies what the head gives.
    chain = A.dot(1.0) >> gate
    close(scores(chain, line([[2.0]]), {"g": torch.tensor([0.0])}), [[4.0]])
    layer = A.Attention(A.Program(score=chain), dim=1, heads=1, bias=False).double().eval()
    for projection in (layer.v_proj, layer.o_proj):
        torch.nn.init.eye_(projection.weight)
    layer.program_parameters()["g"].data = logit[1:2]
    assert layer(line([[2.0]])).values.item() == pytest.approx(1.6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: A.softcap(0.0), "softcap(x): got 0.0, expected a number above 0"),
        (lambda: A.softcap(float("inf")), "softcap(x): got inf, expected a finite number"),
        (lambda: A.temperature("hot"), "temperature(x): got 'hot', expected a finite number"),
        (lambda: A.dot(scale=-1), "dot(scale): got -1, expected a number above 0"),
        (lambda: A.relative("r", 7), "relative(buckets): got 7, expected an even number"),
        (
            lambda: A.relative("r", 64, 3),
            "relative(longest): got 3, expected more than a quarter of the buckets",
        ),
        (
            lambda: A.modality_bias("a.b"),
            "modality_bias(name): got 'a.b', expected a printable name without dots",
        ),
        (lambda: A.graph_bias("kg", 0), "graph_bias(relations): got 0, expected a whole number from 1"),
        (lambda: A.dynamic("t", on="mood"), 'dynamic(on): got \'mood\', expected "task" or "input"'),
        (lambda: A.learned("t", 0.0), "learned(start): got 0.0, expected a number above 0"),
        (
            lambda: A.dot() >> A.softcap,
            "expected a bias or a change such as softcap(30.0): write softcap(...)",
        ),
        (lambda: A.dot() >> A.causal, ">>: got causal, expected a bias or a change"),
        (lambda: A.additive(0), "additive(hidden): got 0, expected a whole number from 1"),
    ],
)
def test_wrong_arguments(make: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("term", "context", "message"),
    [
        (A.graph_bias("kg"), {}, "needs context['kg'], which is missing"),
        (
            A.graph_bias("kg"),
            {"kg": torch.zeros(2, 5)},
            "context['kg'] is (2, 5) torch.float32, expected int64 [3, E]",
        ),
        (A.graph_bias("kg"), {"kg": torch.tensor([[0], [0], [1]])}, "got relations 1 to 1, expected 0 to 0"),
        (A.graph_bias("kg"), {"kg": torch.tensor([[0], [0], [0]])}, "got tokens without entities"),
        (A.time_bias("t"), {}, "time_bias(t): got tokens without times"),
        (
            A.box_bias("b"),
            {"b": torch.zeros(3, 3)},
            "is (3, 3) torch.float32, expected a floating point [2, 4]",
        ),
        (A.box_bias("b"), {"b": torch.zeros(2, 4)}, "has a box without area"),
    ],
)
def test_context_that_does_not_fit(term: Any, context: dict[str, Any], message: str) -> None:
    layer = A.Attention(A.Program(score=A.dot() >> term), dim=2, heads=1).double()
    with pytest.raises(InputError) as caught:
        layer(line([[0.0, 1.0], [1.0, 0.0]]), context=context)
    assert message in str(caught.value)
