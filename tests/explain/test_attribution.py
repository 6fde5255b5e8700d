"""The numbers of an explanation: leaving out by hand, gradients, sums, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmattn import attention as A
from mmattn.errors import InputError
from mmattn.explain.attribution import explain
from mmattn.explain.targets import ItemVector, index_of
from mmattn.explain.token_spans import TokenSpan
from mmattn.fusion.block import FusionBlock
from mmattn.fusion.core import FusionCore
from mmattn.fusion.input_projection import InputProjection
from mmattn.fusion.pool import AttentionPool
from mmattn.types import Tokens

WIDTHS = {"text": 5, "image": 7, "audio": 3}
UNITS = {
    "text": [TokenSpan((0, 1), "two pieces"), TokenSpan((2,), "a word")],
    "image": [TokenSpan((token,), f"patch {token}") for token in range(2)],
}


def core_of(layers: int) -> FusionCore:
    torch.manual_seed(0)
    program = A.Program(A.dot() >> A.modality_bias("pair"))
    blocks = [FusionBlock(A.Attention(program, dim=12, heads=3), dim=12) for _ in range(layers)]
    core = FusionCore(
        InputProjection(WIDTHS, dim=12), blocks, AttentionPool(12, num_modalities=3, heads=3)
    ).eval()
    with torch.no_grad():
        for parameter in core.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return core


@pytest.fixture
def parts() -> dict[str, Tokens]:
    torch.manual_seed(1)
    counts = {"text": 3, "image": 2, "audio": 0}
    return {name: Tokens.from_sequences([torch.randn(n, WIDTHS[name])], name) for name, n in counts.items()}


@pytest.mark.parametrize("layers", [0, 2])
def test_leaving_out_is_what_the_core_does_without_it(parts: dict[str, Tokens], layers: int) -> None:
    core = core_of(layers)
    whole = core(parts).pooled[0].detach()
    actual = explain(core, parts, UNITS, ItemVector(whole))
    assert actual.score == pytest.approx(1.0, abs=1e-5)

    def without(name: str, *tokens: int) -> float:
        keep = torch.tensor([index not in tokens for index in range(len(parts[name].values))])
        left = core({**parts, name: parts[name].filter(keep)}).pooled[0]
        return float(left.detach() @ whole / whole.square().sum())

    expected = [without("text", 0, 1), without("text", 2), without("image", 0), without("image", 1)]
    np.testing.assert_allclose(actual.attributions["leave_out"].total, 1 - np.array(expected), atol=1e-5)
    assert actual.leave_out_changes == pytest.approx(
        {"text": without("text", 0, 1, 2) - 1, "image": without("image", 0, 1) - 1}, abs=1e-5
    )


def test_shares_and_rows_add_up(parts: dict[str, Tokens]) -> None:
    core = core_of(2)
    actual = explain(core, parts, UNITS, ItemVector(core(parts).pooled[0].detach()))
    assert actual.modalities == ("text", "image", "audio")
    assert len(actual.layers) == 2
    assert len(actual.layers[0]) == 3
    readings = [actual.attributions[name] for name in ("rollout", "relevance", "pool")]
    for reading in [*readings, *(head for layer in actual.layers for head in layer)]:
        assert reading.total.sum() == pytest.approx(1.0, abs=1e-5)
        if reading.pairwise is not None and reading.flow is not None:
            np.testing.assert_allclose(reading.pairwise.sum(1), 1.0, atol=1e-5)
            np.testing.assert_allclose(reading.flow.sum(1), [1, 1, 0], atol=1e-5)
    assert sum(actual.modality_shares("rollout").values()) == pytest.approx(1.0, abs=1e-5)
    assert actual.modality_shares("rollout")["audio"] == 0.0
    assert all(change is not None and change > 0 for change in actual.layer_update_ratios)


def test_without_layers_gradients_are_the_tokens_own_parts(parts: dict[str, Tokens]) -> None:
    """The joint vector is a sum over tokens, so what a token adds along it is known exactly."""
    core = core_of(0)
    fused = core(parts)
    whole = fused.pooled[0].detach()
    actual = explain(core, parts, UNITS, ItemVector(whole))
    shares_NH = core.pool.token_weights(fused.tokens)  # type: ignore[operator]
    adds = (shares_NH[..., None] * (fused.tokens.values * whole).unflatten(1, (3, -1))).sum(2)
    expected_N = adds.clamp(min=0).mean(1)
    expected_N = (expected_N / expected_N.sum()).detach().numpy()
    by_unit = [expected_N[0] + expected_N[1], *expected_N[2:]]
    np.testing.assert_allclose(actual.attributions["relevance"].total, by_unit, atol=1e-5)


def test_what_cannot_be_explained_is_said(parts: dict[str, Tokens]) -> None:
    core = core_of(1)
    question = ItemVector(torch.ones(12))
    nothing = {
        name: tokens.filter(torch.zeros(len(tokens.values), dtype=torch.bool))
        for name, tokens in parts.items()
    }
    with pytest.raises(InputError, match="at least one token"):
        explain(core, nothing, UNITS, question)
    with pytest.raises(InputError, match="expected the tokens of one sample"):
        explain(core, {"text": parts["text"].select([0, 0])}, UNITS, question)
    core.pool = torch.nn.Identity()
    with pytest.raises(InputError, match="Identity does not define the weight of each token"):
        explain(core, parts, UNITS, question)


def test_the_nearest_ids_are_named() -> None:
    assert index_of("b2", ["a1", "b2"], "item") == 1
    with pytest.raises(InputError, match="no item 'film-10' among 3; the nearest are 'film-1'"):
        index_of("film-10", ["film-1", "other", "x"], "item")
