"""The fusion core: presence is respected everywhere, and the start keeps what the encoders say."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmattn import InputError, Tokens
from mmattn import attention as A
from mmattn.fusion.block import BottleneckBlock, FusionBlock
from mmattn.fusion.core import FusionCore
from mmattn.fusion.input_projection import InputProjection
from mmattn.fusion.pool import AttentionPool, segment_mean, segment_softmax

WIDTHS = {"text": 7, "image": 11}


def parts_of(text: list[int], image: list[int]) -> dict[str, Tokens]:
    return {
        name: Tokens.from_sequences([torch.randn(size, WIDTHS[name]) for size in sizes], name)
        for name, sizes in (("text", text), ("image", image))
    }


def core_of(layers: int = 2, trained: bool = True) -> FusionCore:
    torch.manual_seed(0)
    entry, program = InputProjection(WIDTHS, dim=26), A.Program(score=A.dot())
    blocks = [FusionBlock(A.Attention(program, dim=26, heads=2), dim=26) for _ in range(layers)]
    core = FusionCore(entry, blocks, AttentionPool(26, num_modalities=2, heads=2)).eval()
    if trained:  # as after training: nothing is the identity or zero any more
        with torch.no_grad():
            for parameter in core.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
    return core


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=7))
def test_a_sample_is_fused_alike_alone_and_in_any_batch(sizes: list[tuple[int, int]]) -> None:
    core = core_of()
    parts = parts_of([text for text, _ in sizes], [image for _, image in sizes])
    together = core(parts)
    for sample in range(len(sizes)):
        alone = core({name: tokens.select([sample]) for name, tokens in parts.items()})
        torch.testing.assert_close(together.pooled[sample], alone.pooled[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(together.by_modality[sample], alone.by_modality[0], rtol=1e-4, atol=1e-4)


def test_leaving_a_modality_out_is_the_same_as_nobody_having_it() -> None:
    core, parts = core_of(), parts_of([3, 2], [0, 0])
    without = core({"text": parts["text"]})
    torch.testing.assert_close(core(parts).pooled, without.pooled)
    assert without.presence.tolist() == [[True, False], [True, False]]
    assert without.tokens.modalities == ("text", "image")


def test_a_sample_without_tokens_gives_zeros_and_no_nan() -> None:
    core, parts = core_of(), parts_of([0, 2], [0, 3])
    fused = core(parts)
    assert torch.equal(fused.pooled[0], torch.zeros(26))
    fused.pooled.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in core.parameters())


def test_a_batch_without_any_token() -> None:
    fused = core_of()(parts_of([0, 0], [0, 0]))
    assert fused.pooled.tolist() == [[0.0] * 26] * 2


def test_layers_start_as_the_identity() -> None:
    parts = parts_of([3, 1], [2, 0])
    torch.testing.assert_close(
        core_of(2, trained=False)(parts).pooled, core_of(0, trained=False)(parts).pooled
    )


def test_the_network_gives_the_same_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    core, parts = core_of().double(), parts_of([3, 2, 0, 7], [1, 0, 5, 2])
    parts = {name: tokens.to(dtype=torch.float64) for name, tokens in parts.items()}
    whole, pieces = [], []
    for actual, rows in ((whole, 2048), (pieces, 3)):
        monkeypatch.setattr("mmattn.fusion.block._CHUNK_ROWS", rows)
        core.zero_grad()
        fused = core(parts)
        fused.tokens.values.pow(2).sum().backward()
        actual += [
            fused.tokens.values,
            *(parameter.grad for parameter in core.blocks.parameters() if parameter.grad is not None),
        ]
    assert len(whole) > 10
    for entry, other in zip(whole, pieces, strict=True):
        torch.testing.assert_close(entry, other)


def test_a_narrow_block_starts_as_the_identity_and_learns() -> None:
    inner = FusionBlock(A.Attention(A.Program(), dim=6, heads=2), dim=6)
    block = BottleneckBlock(inner, dim=26, width=6)
    tokens = Tokens.from_sequences([torch.randn(3, 26), torch.randn(5, 26)], "text")
    assert torch.equal(block(tokens).values, tokens.values)
    block(tokens).values.square().sum().backward()
    assert block.up.weight.grad is not None
    assert block.up.weight.grad.abs().sum() > 0


def test_blocks_add_up_the_likenesses() -> None:
    """With a block each, the product of two samples starts as the sum of the modalities' cosines."""
    parts = parts_of([1] * 97, [1] * 97)
    entry = InputProjection(WIDTHS, dim=26, dim_fractions={"text": 7 / 26 + 1e-6, "image": 11 / 26 + 1e-6})
    entry.calibrate(parts)
    pooled = FusionCore(entry, [], AttentionPool(26, num_modalities=2, heads=2))(parts).pooled
    expected = torch.zeros(97, 97)
    for tokens in parts.values():
        scaled = tokens.values / tokens.values.norm(dim=1).mean()
        expected += scaled @ scaled.T
    error = (pooled @ pooled.T - expected).abs().max()
    assert error < 0.15  # what the small random start outside the blocks adds


def test_calibration_brings_tokens_to_length_one_field_by_field() -> None:
    values = torch.cat([torch.randn(50, 7) * 10, torch.randn(50, 7) * 0.1])
    fields = torch.arange(2).repeat_interleave(50)
    lengths = torch.ones(100, dtype=torch.int64)
    tokens = Tokens.from_lengths(values, lengths, "text")
    tokens = Tokens(values, tokens.offsets, tokens.modality, fields, ("text",))
    entry = InputProjection({"text": 7}, dim=26, fields={"text": 2})
    entry.calibrate({"text": tokens})
    scaled = values * entry.projections["text"].scale[fields][:, None]
    torch.testing.assert_close(segment_mean(scaled.norm(dim=1)[:, None], fields, 2), torch.ones(2, 1))


def test_pooling_by_hand() -> None:
    tokens = Tokens.from_lengths(
        torch.tensor([[1.0, 0.0], [3.0, 2.0], [5.0, 4.0]]), torch.tensor([2, 1]), "text"
    )
    pool = AttentionPool(2, num_modalities=1, heads=1, initial_gains=[0.5])
    assert pool(tokens).by_modality[:, 0].tolist() == [[2.0, 1.0], [5.0, 4.0]]
    torch.testing.assert_close(pool(tokens).pooled[0], torch.tensor([2.0, 1.0]) * 0.5 * 2**0.5)
    with torch.no_grad():
        pool.score.weight.copy_(torch.tensor([[1.0, 0.0]]))
    share = torch.tensor([1.0, 3.0]).softmax(0)
    torch.testing.assert_close(pool(tokens).by_modality[0, 0], share @ tokens.values[:2])


def test_segment_softmax_is_softmax_of_each_segment() -> None:
    logits, segment = torch.randn(13, 3) * 50, torch.tensor([4, 0, 0, 4, 2, 0, 2, 4, 4, 0, 0, 2, 2])
    weights = segment_softmax(logits, segment, 5)
    for which in (0, 2, 4):
        rows = segment == which
        torch.testing.assert_close(weights[rows], logits[rows].softmax(0))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "got no tokens of any modality"),
        ({"txt": Tokens.empty(1, 7)}, "got tokens of 'txt'. Did you mean 'text'"),
        ({"text": Tokens.empty(1, 5)}, "got 'text' tokens of width 5, expected 7"),
    ],
)
def test_what_does_not_fit_is_named(parts: dict[str, Tokens], message: str) -> None:
    with pytest.raises(InputError, match=message):
        InputProjection(WIDTHS, dim=26)(parts)


def test_an_entry_that_cannot_be_built() -> None:
    with pytest.raises(InputError, match="got no modality"):
        InputProjection({}, dim=26)
    with pytest.raises(InputError, match="got width 13, expected an even number"):
        InputProjection(WIDTHS, dim=13)
    with pytest.raises(InputError, match="add up to at most 1"):
        InputProjection(WIDTHS, dim=26, dim_fractions={"text": 0.9, "image": 0.2})
