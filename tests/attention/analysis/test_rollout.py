"""Rollout, relevance and flow: worked out by hand, against matrix products, and by their properties."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmattn import attention as A
from mmattn.attention.analysis.modality_flow import flow
from mmattn.attention.analysis.recording import LayerWeights, record
from mmattn.attention.analysis.rollout import relevance, rollout
from mmattn.errors import InputError
from mmattn.types import Tokens


def layout(**counts: list[int]) -> Tokens:
    """Tokens without values: modality -> tokens of each sample."""
    return Tokens.cat(
        Tokens.from_lengths(torch.zeros(sum(each), 0), torch.tensor(each), name)
        for name, each in counts.items()
    )


def weights(tokens: Tokens, *matrices: list[list[list[float]]], **more: object) -> LayerWeights:
    return LayerWeights(tokens, tokens, tuple(map(torch.tensor, matrices)), **more)  # type: ignore[arg-type]


# --- by hand ----------------------------------------------------------------------------------------


def test_two_layers_by_hand() -> None:
    """(A1 + I) / 2 = [[.5, .5], [0, 1]] and (A2 + I) / 2 = [[1, 0], [.5, .5]], multiplied from the left."""
    two = layout(text=[2])
    first = weights(two, [[[0.0, 1.0], [0.0, 1.0]]])
    second = weights(two, [[[1.0, 0.0], [1.0, 0.0]]])
    assert rollout([first, second]).matrices[0].tolist() == [[0.5, 0.5], [0.25, 0.75]]
    assert rollout([second, first]).matrices[0].tolist() == [[0.75, 0.25], [0.5, 0.5]]
    # Without residual connections the weights themselves are multiplied.
    assert rollout([first, second], residual=0).matrices[0].tolist() == [[0.0, 1.0], [0.0, 1.0]]
    assert rollout([first, second], [0.5, 1.0]).matrices[0].tolist() == [[0.5, 0.5], [0.0, 1.0]]


def test_heads_count_by_their_gates() -> None:
    two = layout(text=[2])
    heads = [[[0.0, 1.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]]
    assert rollout([weights(two, heads)]).matrices[0].tolist() == [[0.75, 0.25], [0.25, 0.75]]
    gated = weights(two, heads, gate=torch.tensor([0.0, 0.3]))
    assert rollout([gated]).matrices[0].tolist() == [[1.0, 0.0], [0.5, 0.5]]
    shut = weights(two, heads, gate=torch.zeros(2))
    assert rollout([shut]).matrices[0].tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_rows_without_weight_stay_themselves_and_others_are_brought_to_one() -> None:
    two = layout(text=[2])
    layer = weights(two, [[[0.0, 0.0], [1.5, 1.5]]])  # nothing to attend to; a sigmoid's row
    actual = rollout([layer]).matrices[0]
    torch.testing.assert_close(actual, torch.tensor([[1.0, 0.0], [0.375, 0.625]]))
    assert rollout([layer], residual=0).matrices[0].tolist() == [[0.0, 0.0], [0.5, 0.5]]


def test_latents_read_the_tokens_and_the_tokens_read_the_latents() -> None:
    """One latent, two words. Reading: latent = (latent + .25 a + .75 b) / 2. Writing back to the words:
    half of each word is the latent."""
    latent, words = layout(latent=[1]), layout(text=[2])
    reads = LayerWeights(latent, words, (torch.tensor([[[0.25, 0.75]]]),))
    writes = LayerWeights(words, latent, (torch.tensor([[[1.0], [1.0]]]),))
    paths = rollout([reads])
    assert paths.key.modalities == ("text", "latent")
    assert paths.matrices[0].tolist() == [[0.125, 0.375, 0.5]]
    back = rollout([reads, writes])
    assert back.matrices[0].tolist() == [[0.5625, 0.1875, 0.25], [0.0625, 0.6875, 0.25]]
    assert flow(back)[0].tolist() == [[0.75, 0.25]]


def test_relevance_by_hand() -> None:
    """Heads: (1 * 2)+ and (.5 * -3)+ = 0, their mean 1; then R = I + A and R' = R + A' R."""
    two = layout(text=[2])
    layer = weights(
        two,
        [[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.0, 1.0]]],
        gradient=(torch.tensor([[[2.0, 0.0], [0.0, 0.0]], [[-3.0, 4.0], [0.0, -1.0]]]),),
    )
    assert relevance([layer]).matrices[0].tolist() == [[2.0, 1.0], [0.0, 1.0]]
    assert relevance([layer, layer]).matrices[0].tolist() == [[4.0, 3.0], [0.0, 1.0]]


def test_flow_by_hand() -> None:
    """Sample 0: words 0 and 1, picture 2. Sample 1 has no picture, sample 2 nothing."""
    scene = layout(text=[2, 1, 0], image=[1, 0, 0], audio=[0, 0, 0])
    head = [[0.5, 0.25, 0.25], [0.0, 0.5, 0.5], [0.75, 0.25, 0.0]]
    other = [[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    layer = LayerWeights(
        scene, scene, (torch.tensor([head, other]), torch.ones(2, 1, 1), torch.zeros(2, 0, 0))
    )
    actual = flow(layer)
    assert actual.shape == (3, 2, 3, 3)
    assert actual[0, 0].tolist() == [[0.625, 0.375, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert actual[0, 1].tolist() == [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert actual[1, 0].tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert not actual[2].any()
    assert flow(LayerWeights(layout(text=[]), layout(text=[]), ())).shape == (0, 1, 1)


def test_what_does_not_fit_is_said() -> None:
    entry, two = layout(text=[2]), layout(text=[2, 1])
    layer = weights(entry, [[[1.0, 0.0], [0.0, 1.0]]])
    with pytest.raises(InputError, match="rollout: got no layer"):
        rollout([])
    with pytest.raises(InputError, match="got residual 1.5, expected 0 to 1"):
        rollout([layer], residual=1.5)
    with pytest.raises(InputError, match=r"got residual \[0.5\], expected 0 to 1, one number or one a layer"):
        rollout([layer, layer], residual=[0.5])
    with pytest.raises(InputError, match="layer 1 has 2 samples, expected 1 as layer 0"):
        rollout([layer, weights(two, [[[1.0, 0.0], [0.0, 1.0]]], [[[1.0]]])])
    with pytest.raises(InputError, match="relevance: got weights without a gradient"):
        relevance([layer])


# --- of real layers ---------------------------------------------------------------------------------

NORMS = [A.softmax(), A.softmax("sink"), A.sigmoid, A.sparsemax, A.entmax15, A.topk(2)]
MASKS = [A.full, A.causal, A.window(1), A.route({"audio": [], "*": ["text", "image"]}), A.blocks(2)]
LENGTHS = st.lists(st.integers(0, 4), min_size=3, max_size=3)


@settings(max_examples=40)
@given(LENGTHS, LENGTHS, LENGTHS, st.sampled_from(NORMS), st.sampled_from(MASKS), st.integers(0, 99))
def test_rows_sum_to_one_and_samples_stay_apart(
    text: list[int], image: list[int], audio: list[int], norm: A.Term, mask: A.Mask, seed: int
) -> None:
    torch.manual_seed(seed)
    tokens = layout(text=text, image=image, audio=audio)
    tokens = tokens.with_values(torch.randn(len(tokens.values), 6, dtype=torch.float64))
    layers = [A.Attention(A.Program(mask=mask, norm=norm), dim=6, heads=2).double() for _ in range(3)]
    with record(torch.nn.ModuleList(layers)) as heard:
        x = tokens
        for layer in layers:
            x = x.with_values(x.values + layer(x).values)
        score = x.values.square().sum()
    seen = heard.weights(score)
    paths = rollout(seen)
    assert paths.key.modalities == tokens.modalities
    for sample, matrix in enumerate(paths.matrices):
        size = tokens.length_list[sample]
        assert matrix.shape == (size, size)
        assert (matrix >= 0).all()
        torch.testing.assert_close(matrix.sum(1), torch.ones(size, dtype=torch.float64))
        plain = torch.eye(size, dtype=torch.float64)
        for layer in seen:  # Abnar and Zuidema, as the paper writes it
            mixed = layer.matrices[sample].mean(0) + torch.eye(size, dtype=torch.float64)
            plain = mixed / mixed.sum(1, keepdim=True) @ plain
        torch.testing.assert_close(matrix, plain)
    present = tokens.presence.double()
    torch.testing.assert_close(flow(paths).sum(2), present)
    for layer in seen:
        total = flow(layer).sum(3)
        assert (total[~tokens.presence[:, None].expand_as(total)] == 0).all()
        if isinstance(norm, type(A.softmax())) and norm.sink is None and mask == A.full:
            torch.testing.assert_close(total, present[:, None].expand_as(total))
    for matrix in relevance(seen).matrices:
        assert (matrix.diagonal() >= 1).all()
        assert (matrix >= 0).all()
