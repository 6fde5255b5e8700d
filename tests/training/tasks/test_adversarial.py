"""Pushes that raise the loss: their length, their direction, and that training with them helps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mmattn import Tokens
from mmattn.errors import InputError
from mmattn.training.tasks.adversarial import FGM, PGD, adversarial_tokens


def parts_of(seed: int, requires_grad: bool = False) -> dict[str, Tokens]:
    """Three samples; the second has no text, the third nothing at all."""
    torch.manual_seed(seed)
    text = Tokens.from_lengths(torch.randn(5, 7), torch.tensor([5, 0, 0]), "text")
    image = Tokens.from_lengths(10 * torch.randn(4, 3), torch.tensor([1, 3, 0]), "image")
    if requires_grad:
        text = text.with_values(text.values.requires_grad_())
    return {"text": text, "image": image}


def squares(parts: dict[str, Tokens]) -> Tensor:
    """A loss that is not linear, and of which each sample has its part."""
    return (parts["text"].values.sin().sum() + (parts["image"].values ** 2 / 50).cos().sum()) / 3


def lengths(parts: dict[str, Tokens], before: dict[str, Tokens]) -> list[list[float]]:
    """Norms of the changes and of the samples, over both modalities."""
    results = []
    for values in (
        {name: parts[name].values - before[name].values for name in parts},
        {name: before[name].values for name in parts},
    ):
        total = [0.0, 0.0, 0.0]
        for name, change in values.items():
            for token, sample in enumerate(parts[name].sample.tolist()):
                total[sample] += change[token].square().sum().item()
        results.append([each**0.5 for each in total])
    return results


@given(st.integers(0, 99), st.floats(0.01, 0.5), st.sampled_from([1, 2, 5]))
def test_a_push_has_the_length_asked_for_and_raises_the_loss(seed: int, radius: float, steps: int) -> None:
    before = parts_of(seed)
    after = adversarial_tokens(before, squares, radius, steps)
    change, size = lengths(after, before)
    for sample in (0, 1):
        assert change[sample] <= radius * size[sample] * 1.0001
        if steps == 1:
            assert change[sample] == pytest.approx(radius * size[sample], rel=1e-4)
    assert change[2] == 0
    if radius < 0.05:
        assert squares(after) > squares(before)
    assert not after["text"].values.requires_grad


def test_a_longer_search_finds_worse_places() -> None:
    before = parts_of(3)
    results = [squares(adversarial_tokens(before, squares, 0.3, steps)).item() for steps in (1, 10)]
    assert results[1] > results[0]


@pytest.mark.parametrize("perturb", [FGM(0.1), PGD(0.1, steps=3)])
@pytest.mark.parametrize("learned", [False, True])
def test_gradients_reach_the_encoder_and_the_head(perturb: FGM | PGD, learned: bool) -> None:
    head, encoder = nn.Linear(7, 1), nn.Linear(7, 7)
    parts = parts_of(5)
    if learned:
        parts["text"] = parts["text"].with_values(encoder(parts["text"].values))

    def loss_of(parts: dict[str, Tokens]) -> Tensor:
        return head(parts["text"].values).square().mean()  # the picture takes no part

    loss = perturb(parts, loss_of)
    assert loss > 2 * loss_of(parts)  # once where it is, once where it is higher
    loss.backward()
    assert head.weight.grad is not None
    assert (encoder.weight.grad is not None) == learned
    assert not parts["image"].values.requires_grad


def test_bad_arguments() -> None:
    with pytest.raises(InputError, match="got radius 0"):
        FGM(0)
    with pytest.raises(InputError, match="steps 0"):
        PGD(steps=0)
    with pytest.raises(InputError, match=r"attack: got radius -1"):
        adversarial_tokens(parts_of(0), squares, -1)


def test_training_with_pushes_makes_a_classifier_robust() -> None:
    """Two informative coordinates: a large one that means nothing under a push, and a steady one.

    Plain training leans on both; the adversary makes the margin count.
    """
    torch.manual_seed(0)
    labels = torch.randint(2, (400,))
    signs = labels * 2.0 - 1
    values = torch.randn(400, 20) * 0.5
    values[:, 0] += signs * 1.0
    values[:, 1:] += signs[:, None] * 0.15  # many weak features, which together a push turns over
    parts = {"text": Tokens.from_lengths(values, torch.ones(400, dtype=torch.long), "text")}

    def trained(perturb: FGM | PGD | None) -> nn.Module:
        torch.manual_seed(1)
        net = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 2))
        optimizer = torch.optim.Adam(net.parameters(), 0.01)
        for _ in range(150):

            def loss_of(parts: dict[str, Tokens]) -> Tensor:
                return nn.functional.cross_entropy(net(parts["text"].values), labels)

            loss = loss_of(parts) if perturb is None else perturb(parts, loss_of)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return net

    def accuracy(net: nn.Module) -> float:
        def loss_of(parts: dict[str, Tokens]) -> Tensor:
            return nn.functional.cross_entropy(net(parts["text"].values), labels)

        pushed = adversarial_tokens(parts, loss_of, 0.4, steps=5)
        return (net(pushed["text"].values).argmax(1) == labels).float().mean().item()

    plain, fgm, pgd = (accuracy(trained(perturb)) for perturb in (None, FGM(0.4), PGD(0.4, steps=3)))
    assert fgm > plain + 0.03
    assert pgd > plain + 0.03
