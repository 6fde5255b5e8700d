"""The layer: what it computes, what it refuses, what its plan says, and what it tells about itself."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from mmattn import attention as A
from mmattn.errors import InputError
from mmattn.types import Tokens

Words = Callable[..., Tokens]


def able(layer: A.Attention, tokens: Tokens) -> list[str]:
    return list(layer.plan(tokens).parts[0].estimates)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("backend", ["auto", "reference", "eager"])
def test_it_is_the_attention_of_torch(words: Words, causal: bool, backend: str) -> None:
    dim, heads, lengths = 14, 2, [5, 1, 11]
    tokens = words(lengths, dim)
    theirs = nn.MultiheadAttention(dim, heads, batch_first=True).double()
    ours = A.Attention(A.Program(mask=A.causal if causal else A.full), dim, heads, backend=backend).double()
    with torch.no_grad():
        for part, name in enumerate(("q_proj", "k_proj", "v_proj")):
            getattr(ours, name).weight.copy_(theirs.in_proj_weight.chunk(3)[part])
            getattr(ours, name).bias.copy_(theirs.in_proj_bias.chunk(3)[part])
        ours.o_proj.load_state_dict(theirs.out_proj.state_dict())
    padded, mask = tokens.to_padded()
    triangle = torch.ones(11, 11, dtype=torch.bool).triu(1) if causal else None
    expected, _ = theirs(padded, padded, padded, key_padding_mask=~mask, attn_mask=triangle)
    torch.testing.assert_close(ours(tokens).values, expected[mask])


def test_cross_attention_has_keys_of_its_own_width(words: Words) -> None:
    latents, scene = words([3, 2, 0], 6, "latent"), words([0, 7, 5], 10, "image", seed=1)
    layer = A.Attention(A.Program(), dim=6, heads=3, kv_dim=10, bias=False).double()
    out = layer(latents, scene)
    assert out.values.shape == (5, 6)
    assert (out.values[:3] == 0).all()  # the first sample has no keys
    assert (out.values[3:] != 0).any()
    for backend in layer.plan(latents, scene).parts[0].estimates:
        layer.backend = backend
        torch.testing.assert_close(layer(latents, scene).values, out.values)


@pytest.mark.parametrize(
    "norm", [A.softmax(), A.softmax("sink"), A.sigmoid, A.sparsemax, A.entmax15, A.topk(2)]
)
def test_rows_without_keys_give_zeros_and_zero_gradients_on_every_backend(norm: Any, scene: Tokens) -> None:
    # Sound may attend to nothing, and nothing may attend to sound.
    mask = A.route({"audio": [], "*": ["text", "image"]})
    layer = A.Attention(A.Program(mask=mask, norm=norm), dim=6, heads=2, bias=False).double()
    for backend in able(layer, scene):
        layer.backend = backend
        tokens = scene.with_values(scene.values.clone().requires_grad_())
        out = layer(tokens)
        out.values.square().sum().backward()
        assert tokens.values.grad is not None
        assert (out.values[5] == 0).all(), backend
        assert (tokens.values.grad[5] == 0).all(), backend
        assert tokens.values.grad.isfinite().all(), backend
        assert (tokens.values.grad[:5] != 0).any(), backend


@pytest.mark.parametrize("lengths", [[], [0], [0, 0], [0, 1, 0]])
def test_batches_with_hardly_any_token(words: Words, lengths: list[int]) -> None:
    layer = A.Attention(A.Program(score=A.dot() >> A.modality_bias("m"), mask=A.window(1)), 4, 2).double()
    tokens = words(lengths, 4)
    for backend in able(layer, tokens):
        layer.backend = backend
        assert layer(tokens).values.shape == (sum(lengths), 4)


def test_samples_do_not_see_each_other(words: Words) -> None:
    layer = A.Attention(A.Program(score=A.dot() >> A.alibi, mask=A.window(3)), dim=6, heads=2).double()
    tokens = words([3, 7, 5], 6)
    changed = tokens.with_values(tokens.values.clone().index_fill(0, torch.arange(3, 10), 1e3))
    for backend in able(layer, tokens):
        layer.backend = backend
        torch.testing.assert_close(layer(changed).select([0, 2]).values, layer(tokens).select([0, 2]).values)


def test_other_programs_for_other_heads(words: Words) -> None:
    tokens = words([5, 3], 8)
    local, wide = A.Program(mask=A.window(1)), A.Program(score=A.dot() >> A.alibi)
    both = A.Attention(A.heads({(0, 1): local, (1, 4): wide}), dim=8, heads=4).double()
    _, seen = both(tokens, explain=A.rows([0]))
    assert (seen[0].weights[0, 2:] == 0).all()
    assert (seen[0].weights[1:, 2:] > 0).all()
    assert [part.heads for part in both.plan(tokens)] == [(0, 1), (1, 4)]
    A.check(both.program, heads=4, batches=2)


# --- the plan --------------------------------------------------------------------------------------


def test_the_plan_says_what_runs_and_why_not_the_others(words: Words) -> None:
    layer = A.Attention(A.Program(mask=A.window(4)), dim=8, heads=2).double()
    plan = layer.plan(words([300, 20], 8))
    part = plan.parts[0]
    assert plan.backend == "blocks"
    assert set(part.unsupported) | set(part.estimates) == set(A.backends())
    assert part.unsupported["jagged"] == "it takes no mask, and the program has window(4)"
    # Blocks of 64 keys that 128 queries see within 4: 0 to 191, 64 to 299, 192 to 299; and 20 by 20.
    assert part.density == (128 * 192 + 128 * 236 + 44 * 108 + 20 * 20) / (300 * 300 + 20 * 20)
    assert "jagged: refused, it takes no mask" in str(plan)
    assert "eager: able, estimated" in str(plan)


def test_the_plan_and_the_call_choose_alike(words: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = A.Attention(A.Program(norm=A.sparsemax), dim=8, heads=2).double()
    tokens = words([5, 3], 8)
    chosen = layer.plan(tokens).backend
    assert chosen == "eager"
    ran = []
    from mmattn.attention.backends.eager import EagerAttention

    run = EagerAttention.run
    monkeypatch.setattr(EagerAttention, "run", lambda self, *a: ran.append(self.name) or run(self, *a))
    layer(tokens)
    assert ran == [chosen]


def test_a_backend_that_was_asked_for_runs_or_raises(words: Words) -> None:
    layer = A.Attention(A.Program(norm=A.sparsemax), dim=8, heads=2, backend="jagged").double()
    with pytest.raises(
        InputError, match="'jagged' cannot run this: fused attention has no norm sparsemax; able: e"
    ):
        layer(words([5, 3], 8))
    with pytest.raises(InputError, match=r"no backend 'jaged'. Did you mean 'jagged'\?"):
        A.Attention(A.Program(), dim=8, heads=2, backend="jaged")


def test_the_plan_follows_gradients(words: Words) -> None:
    layer = A.Attention(A.Program(score=A.dot() >> A.relative("r")), dim=8, heads=2).double()
    tokens = words([5, 3], 8)
    assert (
        layer.plan(tokens)
        .parts[0]
        .unsupported["jagged"]
        .startswith("fused attention gives no gradient to the bias")
    )
    with torch.no_grad():
        assert "jagged" in layer.plan(tokens).parts[0].estimates
    layer.program_parameters()["r"].requires_grad_(False)
    assert "jagged" in layer.plan(tokens).parts[0].estimates


def test_the_layout_is_derived_once_for_a_stack_of_layers(words: Words) -> None:
    program = A.Program(mask=A.window(2))
    first, second = (A.Attention(program, dim=8, heads=2).double() for _ in range(2))
    tokens = words([5, 3], 8)
    middle = first(tokens)
    [layout] = middle._layout["attention.layouts"].values()
    known = len(layout.cache)
    second(middle)
    assert len(layout.cache) == known


def test_the_plan_takes_the_context(words: Words) -> None:
    tokens = words([300, 20], 8)
    layer = A.Attention(A.Program(mask=A.present), dim=8, heads=2).double()
    nobody = torch.zeros(2, 1, dtype=torch.bool)
    with_context, without = (layer.plan(tokens, context=given) for given in ({"presence": nobody}, None))
    assert with_context.backend == without.backend
    assert with_context.parts[0].density == 1  # keys that are hidden are masked, not left out
    graph = A.Attention(A.Program(score=A.dot() >> A.graph_bias("kg")), dim=8, heads=2).double()
    assert graph.plan(tokens).backend == "eager"  # without a context nothing is looked up
    with pytest.raises(InputError, match=r"needs context\['kg'\], which is missing"):
        graph.plan(tokens, context={})


def test_eager_keeps_no_weights_for_the_gradients(words: Words) -> None:
    """What stays for the backward pass grows with the tokens, not with the pairs."""
    kept = {}
    for length in (1024, 2048):
        layer = A.Attention(A.Program(norm=A.sigmoid), dim=8, heads=2, backend="eager").double()
        sizes: dict[int, int] = {}  # steps keep views of the same keys: memory counts once

        def keep(tensor: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            out = layer(words([length], 8)).values
        kept[length] = sum(sizes.values())
        out.sum().backward()
    assert kept[2048] < 2.5 * kept[1024]
    assert kept[2048] < 2048 * 2048 * 8 / 10  # a tenth of one head's weights


# --- decoding, explaining, pruning ------------------------------------------------------------------


@pytest.mark.parametrize(
    "program",
    [
        A.Program(mask=A.causal),
        A.Program(score=A.dot() >> A.alibi, mask=A.causal & A.window(3)),
        A.Program(
            score=A.cosine >> A.relative("r", 8), mask=A.where("text", A.causal, A.causal & A.blocks(2))
        ),
        A.Program(mask=A.causal, norm=A.softmax("sink")),
        A.Program(score=A.dot() >> A.time_bias("fade", 6), mask=A.causal),
        A.heads({(0, 1): A.Program(mask=A.causal & A.window(2)), (1, 3): A.Program(A.cosine, mask=A.causal)}),
    ],
    ids=str,
)
def test_decoding_step_by_step_is_the_whole_sequence(program: A.Program, words: Words) -> None:
    layer = A.Attention(program, dim=6, heads=3).double().eval()
    for number in layer.program_parameters().values():  # biases start at zero and would prove nothing
        torch.nn.init.normal_(number)
    tokens = words([7, 4, 5], 6)
    tokens = dataclasses.replace(tokens, time=tokens.position.double() ** 3 * 3600)
    whole = layer(tokens).values
    cache = None
    got = torch.zeros_like(whole)
    # Three tokens at once, then one by one; samples end at their own length.
    for first, last in [(0, 3), (3, 4), (4, 5), (5, 6), (6, 7)]:
        chosen = (tokens.position >= first) & (tokens.position < last)
        out, cache = layer.decode(tokens.filter(chosen), cache)
        got[chosen] = out.values
    torch.testing.assert_close(got, whole)
    # Where all heads have a window, what it has left behind is forgotten.
    assert len(cache) == (9 if "window(3)" in str(program) else 16)


def test_what_cannot_be_decoded(words: Words) -> None:
    tokens = words([2], 6)
    with pytest.raises(InputError, match=r"decode: the mask causal \| window\(1\) may look ahead"):
        A.Attention(A.Program(mask=A.causal | A.window(1)), 6, 1).double().decode(tokens)
    summary = A.Program(score=A.dot() >> A.temperature(A.dynamic("t")), mask=A.causal)
    with pytest.raises(InputError, match="depends on tokens that are not there yet"):
        A.Attention(summary, 6, 1).double().decode(tokens)
    layer = A.Attention(A.Program(mask=A.causal), 6, 1).double()
    _, cache = layer.decode(tokens)
    with pytest.raises(
        InputError, match="sample 0 got a new token at position 0, expected positions after 1"
    ):
        layer.decode(tokens, cache)
    with pytest.raises(InputError, match="got 2 samples, expected 1 as in the cache"):
        layer.decode(words([1, 1], 6), cache)


def test_remembered_keys_give_what_the_whole_call_gives(words: Words) -> None:
    program = A.Program(score=A.dot() >> A.modality_bias("pair") >> A.relative("r", 8))
    layer = A.Attention(program, dim=6, heads=3, kv_dim=10).double().eval()
    for number in layer.program_parameters().values():
        torch.nn.init.normal_(number)
    queries, keys = words([2, 3, 1], 6), words([5, 0, 7], 10)
    cache = layer.cache_keys(keys)
    torch.testing.assert_close(layer.attend_cached(queries, cache).values, layer(queries, keys).values)
    picked = torch.tensor([2, 0, 0])
    again = layer.attend_cached(queries.select(picked), cache.select(picked))
    torch.testing.assert_close(again.values, layer(queries.select(picked), keys.select(picked)).values)
    with pytest.raises(InputError, match="Attention: q has width 10, expected 6"):
        layer.attend_cached(keys, cache)


@pytest.mark.parametrize("backend", ["auto", "eager", "reference"])
def test_explained_weights_are_those_that_made_the_result(backend: str, scene: Tokens) -> None:
    program = A.heads(
        {(0, 1): A.Program(A.dot() >> A.alibi, A.causal, A.entmax15), (1, 3): A.Program(mask=A.window(1))}
    )
    two = Tokens.cat([scene, Tokens.empty(1, 6, dtype=torch.float64)]).select([0, 0])
    layer = A.Attention(program, dim=6, heads=3, backend=backend).double()
    out, seen = layer(two, explain=A.rows([8, 1]))
    assert [(row.token, row.sample, row.keys.tolist()) for row in seen.rows] == [
        (8, 1, [6, 7, 8, 9, 10, 11]),
        (1, 0, [0, 1, 2, 3, 4, 5]),
    ]
    for row in seen.rows:
        v_KHK = layer.v_proj(two.values)[row.keys].unflatten(1, (3, 2))
        attended = torch.einsum("hk,khd->hd", row.weights, v_KHK).flatten()
        torch.testing.assert_close(layer.o_proj(attended), out.values[row.token])
    with pytest.raises(InputError, match="rows: got query token 12, expected 0 to 11"):
        layer(two, explain=A.rows([12]))
    with pytest.raises(InputError, match="rows: got -1, expected whole numbers from 0"):
        A.rows([-1])


def gated(heads: int, closed: list[int], dim: int = 24) -> A.Attention:
    program = A.Program(score=A.dot() >> A.alibi >> A.relative("r", 8) >> A.head_gate("gate"))
    layer = A.Attention(program, dim, heads).double().eval()
    nn.init.normal_(layer.program_parameters()["r"])
    layer.program_parameters()["gate"].data[closed] = -9.0
    return layer


def test_pruning_removes_closed_heads_and_changes_nothing(words: Words) -> None:
    layer, tokens = gated(6, closed=[0, 2, 5]), words([7, 3], 24)
    expected = layer(tokens).values
    assert layer.prune() == (0, 2, 5)
    assert (layer.heads, layer.q_proj.weight.shape, layer.o_proj.weight.shape) == (3, (12, 24), (24, 12))
    torch.testing.assert_close(layer(tokens).values, expected)
    assert layer.prune() == ()


def test_pruning_renumbers_the_ranges_of_heads(words: Words) -> None:
    part = A.Program(score=A.dot() >> A.head_gate("left"), mask=A.window(1))
    other = A.Program(score=A.dot() >> A.head_gate("right"))
    layer = A.Attention(A.heads({(0, 2): part, (2, 3): other, (3, 4): A.Program()}), 8, 4).double().eval()
    layer.program_parameters()["left"].data[0] = -9.0
    layer.program_parameters()["right"].data[2] = -9.0
    tokens = words([5], 8)
    expected = layer(tokens).values
    assert layer.prune() == (0, 2)
    assert layer.program == A.heads({(0, 1): part, (1, 2): A.Program()})
    torch.testing.assert_close(layer(tokens).values, expected)


def test_the_penalty_closes_gates(words: Words) -> None:
    torch.manual_seed(0)
    layer, tokens = gated(4, closed=[]).train(), words([5, 4], 24)
    assert layer.eval().gate_penalty().item() > 3.9  # four open heads
    before = layer.train().gate_penalty().item()
    optimizer = torch.optim.Adam([layer.program_parameters()["gate"]], lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        (layer.gate_penalty() + 0.0 * layer(tokens).values.sum()).backward()
        optimizer.step()
    assert layer.gate_penalty().item() < 0.1 * before
    assert len(layer.prune()) == 3  # one head always stays


@pytest.mark.slow
def test_a_pruned_layer_is_faster(words: Words) -> None:
    tokens = words([512], 256)
    layer = gated(8, closed=[1, 2, 3, 4, 5, 6], dim=256)

    def seconds(layer: A.Attention) -> float:
        layer(tokens)
        start = time.process_time()
        for _ in range(5):
            layer(tokens)
        return time.process_time() - start

    with torch.no_grad():
        whole = seconds(layer)
        layer.prune()
        assert seconds(layer) < 0.6 * whole


# --- parameters and state ---------------------------------------------------------------------------


def test_program_parameters_are_all_that_tuning_the_program_trains() -> None:
    score = A.dot(A.learned("scale", 0.5)) >> A.modality_bias("pair") >> A.temperature(A.dynamic("t"))
    layer = A.Attention(A.Program(score=score, norm=A.softmax("sink")), dim=12, heads=3)
    shapes = {name: tuple(value.shape) for name, value in layer.program_parameters().items()}
    assert shapes == {"scale": (3,), "pair": (3, 8, 8), "t": (3, 12), "sink": (3,)}
    assert {name for name, _ in layer.named_parameters() if name.startswith("terms.")} == {
        f"terms.{name}" for name in shapes
    }


def test_rows_of_modalities_are_saved_with_the_layer(scene: Tokens) -> None:
    layer = A.Attention(A.Program(score=A.dot() >> A.modality_bias("pair")), dim=6, heads=2).double()
    layer.register_modalities(["audio", "text"])
    nn.init.normal_(layer.program_parameters()["pair"])
    expected = layer(scene).values
    other = copy.deepcopy(layer)
    other._modalities = ()
    other.load_state_dict(layer.state_dict())
    assert other._modalities == ("audio", "text", "image")
    torch.testing.assert_close(other(scene).values, expected)
    with pytest.raises(InputError, match="expected at most 8; name them in the term"):
        layer.register_modalities([f"m{index}" for index in range(7)])


def test_dropout_drops_only_while_training(words: Words) -> None:
    tokens = words([40, 30], 8)
    for norm in (A.softmax(), A.sigmoid):
        layer = A.Attention(A.Program(norm=norm), dim=8, heads=2, dropout=0.5).double()
        assert not torch.equal(layer(tokens).values, layer(tokens).values)
        layer.eval()
        torch.testing.assert_close(layer(tokens).values, layer(tokens).values, rtol=0, atol=0)


def test_dropout_keeps_the_mean(words: Words) -> None:
    torch.manual_seed(0)
    tokens = words([5], 4).select([0] * 1500)
    for backend in ("sdpa", "eager", "reference"):
        layer = A.Attention(A.Program(), dim=4, heads=1, dropout=0.3, backend=backend).double()
        mean = layer(tokens).values.view(1500, 5, 4).mean(0)
        torch.testing.assert_close(mean, layer.eval()(tokens).values[:5], rtol=0.0, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_on_the_cpu(dtype: torch.dtype, words: Words) -> None:
    for program in (A.Program(), A.Program(mask=A.window(2)), A.Program(norm=A.entmax15)):
        layer = A.Attention(program, dim=8, heads=2).double()
        tokens = words([7, 0, 5], 8)
        expected = layer(tokens).values
        half = copy.deepcopy(layer).to(dtype)
        for backend in able(half, tokens.to(dtype=dtype)):
            half.backend = backend
            got = half(tokens.to(dtype=dtype)).values
            assert got.dtype == dtype
            torch.testing.assert_close(got.double(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("frozen", ["q_proj", "k_proj", "v_proj"])
def test_a_frozen_projection_leaves_the_gradients_of_the_others(frozen: str, words: Words) -> None:
    tokens = words([5, 300, 7, 290, 5, 300, 7, 11, 200, 13], 8)  # short ones are brought together in steps
    layer = A.Attention(A.Program(), dim=8, heads=2).double()
    getattr(layer, frozen).requires_grad_(False)
    gradients = []
    for backend in ("auto", "reference"):
        layer.backend = backend
        layer.zero_grad()
        layer(tokens).values.square().sum().backward()
        gradients.append(
            {name: entry.grad.clone() for name, entry in layer.named_parameters() if entry.grad is not None}
        )
    assert len(gradients[0]) == 6
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name])


@pytest.mark.parametrize("backend", ["varlen", "flex"])
def test_half_precision_where_a_backend_cannot_names_those_that_can(backend: str, words: Words) -> None:
    layer = A.Attention(A.Program(), dim=8, heads=2, backend=backend).half()
    with pytest.raises(
        InputError, match=rf"the backend '{backend}' cannot run this: .*CPU|cpu.*able: .*jagged"
    ):
        layer(words([7, 5], 8).to(dtype=torch.float16))


# --- bad input --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"program": "causal"}, "Attention(program): got 'causal', expected a Program or heads({...})"),
        (
            {"program": A.causal},
            "got causal, expected a Program or heads({...}): wrap it, Program(score=..., mask=",
        ),
        ({"dim": 7}, "Attention(dim): got 7, expected a multiple of heads, 2"),
        ({"dim": 0}, "Attention(dim): got 0, expected a whole number from 1"),
        ({"heads": 2.0}, "Attention(heads): got 2.0, expected a whole number from 1"),
        ({"dropout": 1.0}, "Attention(dropout): got 1.0, expected 0 or more and below 1"),
        ({"program": A.heads({(0, 3): A.Program()})}, "the program's heads go to 3, expected 2"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        A.Attention(**{"program": A.Program(), "dim": 8, "heads": 2, **arguments})
    assert message in str(caught.value)


def test_tokens_that_do_not_fit(words: Words) -> None:
    layer = A.Attention(A.Program(), dim=8, heads=2, kv_dim=6).double()
    with pytest.raises(InputError, match="Attention: q has width 6, expected 8"):
        layer(words([3], 6), words([3], 6))
    with pytest.raises(InputError, match="Attention: kv has width 8, expected 6"):
        layer(words([3], 8))
    with pytest.raises(InputError, match="got queries of 1 samples and keys of 2, expected as many"):
        layer(words([3], 8), words([3, 1], 6))
    with pytest.raises(
        InputError, match=r'context\["presence"\] is \(1, 2\) torch.bool, expected boolean \[1, 1\]'
    ):
        layer(words([3], 8), words([3], 6), context={"presence": torch.ones(1, 2, dtype=torch.bool)})
    with pytest.raises(InputError, match=r"Tokens.offsets: got \[0, 9\], expected to start at 0"):
        Tokens(torch.zeros(3, 8), torch.tensor([0, 9]), *(torch.zeros(3, dtype=torch.int64),) * 2, ("text",))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_debug_mode_names_where_a_bad_number_came_from(bad: float, scene: Tokens) -> None:
    layer = A.Attention(A.Program(), dim=6, heads=2).double()
    spoilt = scene.with_values(scene.values.clone())
    spoilt.values[3, 2] = bad
    layer(spoilt)  # outside of debug mode nothing is looked at
    with A.debug():
        layer(scene)
        with pytest.raises(
            InputError, match=rf"the queries hold {bad} at sample 0, token 3 \('image', position 1\)"
        ):
            layer(spoilt)
        with pytest.raises(InputError, match=rf"the keys hold {bad} at sample 0, token 3"):
            layer(scene, spoilt)
        task = torch.full((6,), bad)
        with pytest.raises(InputError, match=f'the context hold {bad} in "task"'):
            layer(scene, context={"task": task})
        layer.k_proj.weight.data[0, 0] = bad
        with pytest.raises(InputError, match=f"the weights hold {bad} in the parameter k_proj.weight"):
            layer(scene)


def test_debug_mode_names_an_overflow(scene: Tokens) -> None:
    layer = A.Attention(A.Program(), dim=6, heads=2).half()
    nn.init.constant_(layer.v_proj.weight, 6e4)
    with A.debug(), pytest.raises(InputError, match="the results hold .* it overflowed torch.float16"):
        layer(scene.with_values(scene.values.half()))
