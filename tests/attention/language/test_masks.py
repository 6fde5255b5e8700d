"""Every mask worked out by hand, and what it says of blocks held against what it says of pairs."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmattn import attention as A
from mmattn.attention.execution.layout import Layout
from mmattn.attention.language.block_bounds import BlockFields, BlockPairs, summarize_blocks
from mmattn.attention.language.pairs import Pairs, TokenFields
from mmattn.attention.testing.random_programs import random_mask, random_tokens
from mmattn.errors import InputError
from mmattn.types import Tokens


def allowed(mask: A.Mask, tokens: Tokens) -> list[str]:
    """The mask over one sample as rows of x and dots."""
    q = TokenFields(tokens.position[:, None], tokens.modality[:, None], tokens.modalities)
    k = TokenFields(tokens.position[None], tokens.modality[None], tokens.modalities)
    pairs = Pairs(q, k, torch.zeros(1, 1, 1, dtype=torch.int64))
    return ["".join(".x"[int(seen)] for seen in row) for row in mask.allow(pairs).tolist()]


def sentence(length: int) -> Tokens:
    return Tokens.from_sequences([torch.zeros(length, 1)], "text")


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (A.full, ["xxxxx"] * 5),
        (A.present, ["xxxxx"] * 5),
        (A.causal, ["x....", "xx...", "xxx..", "xxxx.", "xxxxx"]),
        (A.window(1), ["xx...", "xxx..", ".xxx.", "..xxx", "...xx"]),
        (A.window(0), ["x....", ".x...", "..x..", "...x.", "....x"]),
        (A.dilated(4, 2), ["x.x.x", ".x.x.", "x.x.x", ".x.x.", "x.x.x"]),
        (A.dilated(3, 3), ["x..x.", ".x..x", "..x..", "x..x.", ".x..x"]),
        (A.blocks(2), ["xx...", "xx...", "..xx.", "..xx.", "....x"]),
        (~A.causal, [".xxxx", "..xxx", "...xx", "....x", "....."]),
        (A.causal & A.window(1), ["x....", "xx...", ".xx..", "..xx.", "...xx"]),
        (A.blocks(4) | A.window(0), ["xxxx.", "xxxx.", "xxxx.", "xxxx.", "....x"]),
    ],
)
def test_masks_over_one_sentence(mask: A.Mask, expected: list[str]) -> None:
    assert allowed(mask, sentence(5)) == expected


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        # Tokens: text 0, text 1, image 0, image 1, image 2, audio 0. Positions are each modality's own.
        (A.causal, ["x.x..x", "xxxx.x", "x.x..x", "xxxx.x", "xxxxxx", "x.x..x"]),
        (
            A.route({"text": ["text", "image"], "image": ["audio"], "*": ["*"]}),
            ["xxxxx.", "xxxxx.", ".....x", ".....x", ".....x", "xxxxxx"],
        ),
        (A.route({"text": [], "*": ["text"]}), ["......", "......", "xx....", "xx....", "xx....", "xx...."]),
        (A.global_tokens("audio"), [".....x"] * 5 + ["xxxxxx"]),
        (
            A.where("image", A.window(0), A.full),
            ["xxxxxx", "xxxxxx", "x.x..x", ".x.x..", "....x.", "xxxxxx"],
        ),
    ],
)
def test_masks_over_three_modalities(mask: A.Mask, expected: list[str], scene: Tokens) -> None:
    assert allowed(mask, scene) == expected


def test_presence_hides_a_modality_that_is_there(scene: Tokens) -> None:
    layer = A.Attention(A.Program(mask=A.present), dim=6, heads=2).double()
    hidden = {"presence": torch.tensor([[True, False, True]])}
    _, seen = layer(scene, context=hidden, explain=A.rows([0]))
    assert (seen[0].weights[:, 2:5] == 0).all()
    torch.testing.assert_close(seen[0].weights.sum(1), torch.ones(2, dtype=torch.float64))
    without = layer(scene.drop_modalities("image"))
    # Words and sound then see what they would see without any picture.
    torch.testing.assert_close(layer(scene, context=hidden).values[[0, 1, 5]], without.values)


def test_operators_are_flat_and_compare_by_value() -> None:
    a, b, c = A.window(1), A.causal, A.blocks(3)
    assert (a & b) & c == a & (b & c)
    assert a & b != b & a
    assert str(a & (b | c)) == "window(1) & (causal | blocks(3))"
    assert str(a & b | c) == "window(1) & causal | blocks(3)"
    assert str(~(a | b)) == "~(window(1) | causal)"
    assert {A.window(1): "kept"}[A.window(1)] == "kept"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: A.window(-1), "window(n): got -1, expected a whole number from 0"),
        (lambda: A.window(1.5), "window(n): got 1.5, expected a whole number from 0"),
        (lambda: A.window(True), "window(n): got True, expected a whole number from 0"),
        (lambda: A.window("3"), "window(n): got '3', expected a whole number from 0"),
        (lambda: A.blocks(0), "blocks(n): got 0, expected a whole number from 1"),
        (lambda: A.dilated(4, 0), "dilated(step): got 0, expected a whole number from 1"),
        (lambda: A.route({}), "route: got no routes"),
        (lambda: A.route(["text"]), "route: got ['text'], expected a mapping"),
        (lambda: A.route({"text": "image"}), "route: got 'image' for 'text', expected a list of modalities"),
        (lambda: A.route({"text": [3]}), "route: got the name 3, expected a printable string"),
        (lambda: A.global_tokens(""), "global_tokens(modality): got '', expected a printable name"),
        (lambda: A.where("text", A.full, 3), "where(b): got 3, expected a mask such as window(64)"),
    ],
)
def test_wrong_arguments(make: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        make()  # type: ignore[operator]
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (
            A.route({"txt": ["*"], "*": ["*"]}),
            "route: it names 'txt', expected modalities that the tokens know (a modality may be known and "
            "have no token). Did you mean 'text'?",
        ),
        (A.route({"*": ["imgae"]}), "Did you mean 'image'?"),
        (A.route({"text": ["*"]}), "route: the queries have the modality 'image', not routed"),
        (A.causal & A.global_tokens("cls"), "global_tokens: it names 'cls'"),
        (~A.where("sound", A.full, A.causal), "where: it names 'sound'"),
    ],
)
def test_modalities_that_the_tokens_do_not_know(mask: A.Mask, message: str, scene: Tokens) -> None:
    layer = A.Attention(A.Program(mask=mask), dim=6, heads=1).double()
    with pytest.raises(InputError) as caught:
        layer(scene)
    assert message in str(caught.value)


def test_a_route_may_name_a_modality_that_is_known_and_absent(scene: Tokens) -> None:
    layer = A.Attention(A.Program(mask=A.route({"*": ["image"]})), dim=6, heads=1, bias=False).double()
    blind = scene.drop_modalities("image")
    assert blind.modalities == ("text", "image", "audio")
    assert (layer(blind).values == 0).all()


@settings(max_examples=80)
@given(seed=st.integers(0, 10**6), q_size=st.sampled_from([1, 3, 8]), k_size=st.sampled_from([1, 5, 16]))
def test_what_is_said_of_blocks_is_true_of_their_pairs(seed: int, q_size: int, k_size: int) -> None:
    rng = random.Random(seed)
    mask = random_mask(rng)
    q, kv = random_tokens(rng, 1, 1), random_tokens(rng, 1, 1)
    if not len(q.values) or not len(kv.values):
        return
    layout = Layout.from_tokens(q, kv)
    low, high, kinds = summarize_blocks(q.position, q.modality, q.modalities, q_size)
    query = BlockFields(low[:, None], high[:, None], kinds[:, None], q.modalities)
    low, high, kinds = summarize_blocks(kv.position, kv.modality, kv.modalities, k_size)
    key = BlockFields(low[None], high[None], kinds[None], kv.modalities)
    bounds = mask.bounds(BlockPairs(query, key))
    pairs = Pairs(
        TokenFields(layout.query.position[:, None], layout.query.modality[:, None], q.modalities),
        TokenFields(layout.key.position[None], layout.key.modality[None], kv.modalities),
        torch.zeros(1, 1, 1, dtype=torch.int64),
    )
    seen = mask.allow(pairs).expand(len(q.values), len(kv.values))
    blocks = [[b for b in row.split(k_size, dim=1)] for row in seen.split(q_size)]  # noqa: C416
    shape = (len(blocks), len(blocks[0]))
    may, must = bounds.may_hold.expand(shape), bounds.must_hold.expand(shape)
    for i, row in enumerate(blocks):
        for j, block in enumerate(row):
            assert bool(may[i, j]) or not block.any(), f"{mask} allows pairs of blocks it rules out"
            assert not bool(must[i, j]) or block.all(), f"{mask} refuses pairs of blocks it promises"
