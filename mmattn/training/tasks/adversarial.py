"""Adversarial training: the loss also has to be small where tokens are pushed the way that raises it most.

Both are values for `SupervisedTask(perturb=...)`. A push is measured in shares of the sample itself: the
norm of all its tokens' changes against the norm of all its tokens, so that one radius fits every encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from mmattn.errors import InputError
from mmattn.types import Tokens

__all__ = ["FGM", "PGD", "adversarial_tokens"]

ModalityTokens = Mapping[str, Tokens]
LossFn = Callable[[ModalityTokens], Tensor]
_EPS = 1e-12


class FGM:
    """The loss, and the loss after one push along the gradient: one more pass forward and backward.

    Paper: Miyato, Dai and Goodfellow, "Adversarial Training Methods for Semi-Supervised Text
    Classification", 2017.

    Args:
        radius: length of the push as a share of the sample's norm.
        weight: of the loss after the push; that of the plain loss is 1.

    Raises:
        InputError: an argument below 0, or a radius of 0.

    Example:
        >>> tokens = Tokens.from_sequences([torch.tensor([[3.0, 4.0]])], "text")
        >>> def loss_of(parts): return parts["text"].values[0, 0]  # grows along the first coordinate
        >>> FGM(radius=0.2)({"text": tokens}, loss_of).item()  # 3, and 3 + .2 * 5
        7.0
    """

    steps = 1

    def __init__(self, radius: float = 0.05, weight: float = 1.0):
        if radius <= 0 or weight < 0:
            raise InputError(
                f"adversarial training: got radius {radius} and weight {weight}, expected above 0"
            )
        self.radius, self.weight = radius, weight

    def __call__(self, tokens_by_modality: ModalityTokens, loss_fn: LossFn) -> Tensor:
        """The loss to train with."""
        leaves = _as_leaves(tokens_by_modality)
        plain = loss_fn(leaves)
        pushed = _ascent_step(leaves, _gradients(plain, leaves, retain_graph=True), self.radius)
        return plain + self.weight * loss_fn(_apply_perturbation(leaves, pushed))


class PGD:
    """The loss, and the loss at the worst place that some smaller pushes find within the radius.

    Paper: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", 2018.

    Args:
        radius: of the ball around the sample, as a share of its norm.
        steps: pushes; each costs a pass forward and backward.
        step_size: length of a push as a share of the radius; left out, 2.5 / `steps`, with which every place
            of the ball can be reached.
        weight: of the loss at the worst place; that of the plain loss is 1.

    Raises:
        InputError: an argument out of range.

    Example:
        >>> tokens = Tokens.from_sequences([torch.tensor([[3.0, 4.0]])], "text")
        >>> def loss_of(parts): return parts["text"].values[0, 0]
        >>> round(PGD(radius=0.2, steps=5)({"text": tokens}, loss_of).item(), 3)
        7.0
    """

    def __init__(
        self, radius: float = 0.05, steps: int = 3, step_size: float | None = None, weight: float = 1.0
    ):
        if radius <= 0 or steps < 1 or weight < 0 or (step_size is not None and step_size <= 0):
            raise InputError(
                f"adversarial training: got radius {radius}, steps {steps}, step {step_size} and weight "
                f"{weight}, "
                "expected radius, steps and step above 0"
            )
        self.radius, self.steps, self.weight = radius, steps, weight
        self.step_size = 2.5 / steps if step_size is None else step_size

    def __call__(self, tokens_by_modality: ModalityTokens, loss_fn: LossFn) -> Tensor:
        """The loss to train with."""
        leaves = _as_leaves(tokens_by_modality)
        pushed = _projected_ascent(leaves, loss_fn, self.radius, self.steps, self.step_size)
        return loss_fn(leaves) + self.weight * loss_fn(_apply_perturbation(leaves, pushed))


def adversarial_tokens(
    tokens_by_modality: ModalityTokens, loss_fn: LossFn, radius: float, steps: int = 1
) -> dict[str, Tokens]:
    """The same samples, pushed so that the loss rises: what a test of robustness is given.

    Args:
        tokens_by_modality: modality -> tokens of the encoders.
        loss_fn: the loss of such tokens.
        radius: how far, as a share of each sample's norm.
        steps: 1 for one push (FGM), more for a search (PGD).

    Returns:
        Tokens without gradients.

    Raises:
        InputError: a radius or number of steps that is not above 0.
    """
    if radius <= 0 or steps < 1:
        raise InputError(f"attack: got radius {radius} and {steps} steps, expected above 0")
    with torch.enable_grad():
        leaves = _detached(tokens_by_modality)
        if steps == 1:
            leaves = _as_leaves(leaves)
            pushed = _ascent_step(leaves, _gradients(loss_fn(leaves), leaves), radius)
        else:
            pushed = _projected_ascent(leaves, loss_fn, radius, steps, 2.5 / steps)
    return {
        name: tokens.with_values(tokens.values.detach())
        for name, tokens in _apply_perturbation(leaves, pushed).items()
    }


def _projected_ascent(
    tokens_by_modality: ModalityTokens, loss_fn: LossFn, radius: float, steps: int, step_size: float
) -> dict[str, Tensor]:
    """Changes of all values that raise the loss, within the radius of each sample."""
    still = _detached(tokens_by_modality)
    room_B = radius * _sample_norms(still, {name: tokens.values for name, tokens in still.items()})
    pushed = {name: torch.zeros_like(tokens.values) for name, tokens in still.items()}
    for _ in range(steps):
        here = _as_leaves(_apply_perturbation(still, pushed))
        push = _ascent_step(here, _gradients(loss_fn(here), here), radius * step_size, still)
        pushed = {name: pushed[name] + push[name] for name in pushed}
        back_B = (room_B / _sample_norms(still, pushed).clamp_min(_EPS)).clamp_max(1.0)
        pushed = {name: change * back_B[still[name].sample, None] for name, change in pushed.items()}
    return pushed


def _ascent_step(
    tokens_by_modality: ModalityTokens,
    gradients: Mapping[str, Tensor],
    radius: float,
    reference: ModalityTokens | None = None,
) -> dict[str, Tensor]:
    """A change of the length `radius` along each sample's gradient; none where there is no gradient."""
    reference = tokens_by_modality if reference is None else reference
    size_B = _sample_norms(reference, {name: tokens.values.detach() for name, tokens in reference.items()})
    factor_B = radius * size_B / _sample_norms(tokens_by_modality, gradients).clamp_min(_EPS)
    return {
        name: gradient * factor_B[tokens_by_modality[name].sample, None]
        for name, gradient in gradients.items()
    }


def _sample_norms(tokens_by_modality: ModalityTokens, values: Mapping[str, Tensor]) -> Tensor:
    """[B] norm of each sample over the tokens of all modalities."""
    count = len(next(iter(tokens_by_modality.values())))
    total_B = next(iter(values.values())).new_zeros(count, dtype=torch.float32)
    for name, gradient in values.items():
        total_B = total_B.index_add(0, tokens_by_modality[name].sample, gradient.float().square().sum(1))
    return total_B.sqrt()


def _detached(tokens_by_modality: ModalityTokens) -> dict[str, Tokens]:
    """The same values, without gradients."""
    return {name: tokens.with_values(tokens.values.detach()) for name, tokens in tokens_by_modality.items()}


def _as_leaves(tokens_by_modality: ModalityTokens) -> dict[str, Tokens]:
    """Values that gradients can be asked of: stored ones become leaves."""
    stored = _detached(
        {name: tokens for name, tokens in tokens_by_modality.items() if not tokens.values.requires_grad}
    )
    for tokens in stored.values():
        tokens.values.requires_grad_()
    return {name: stored.get(name, tokens) for name, tokens in tokens_by_modality.items()}


def _gradients(
    loss: Tensor, tokens_by_modality: ModalityTokens, retain_graph: bool = False
) -> dict[str, Tensor]:
    values = [tokens.values for tokens in tokens_by_modality.values()]
    gradients = torch.autograd.grad(loss, values, retain_graph=retain_graph, allow_unused=True)
    return {
        name: torch.zeros_like(value) if gradient is None else gradient.detach()
        for (name, value, gradient) in zip(tokens_by_modality, values, gradients, strict=True)
    }


def _apply_perturbation(
    tokens_by_modality: ModalityTokens, perturbation: Mapping[str, Tensor]
) -> dict[str, Tokens]:
    return {
        name: tokens.with_values(tokens.values + perturbation[name].to(tokens.values.dtype))
        for name, tokens in tokens_by_modality.items()
    }
