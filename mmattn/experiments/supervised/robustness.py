"""What is left of a score when a model's input is disturbed: by noise, or by pushes that mean harm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from mmattn.errors import InputError
from mmattn.training.tasks.adversarial import adversarial_tokens
from mmattn.training.tasks.supervised import SupervisedTask
from mmattn.types import Tokens

__all__ = ["add_noise", "evaluate_under_attack", "evaluate_under_noise"]

ScoreT = TypeVar("ScoreT")
ScoreFn = Callable[[list[Any], list[Any]], ScoreT]  # predictions, targets
PerturbFn = Callable[[dict[str, Tokens], list[Any]], dict[str, Tokens]]  # tokens and targets of some samples


def add_noise(
    parts: Mapping[str, Tokens], level: float, generator: torch.Generator | None = None
) -> dict[str, Tokens]:
    """Normal noise on all tokens, as loud against them as `level` says.

    Args:
        parts: modality -> tokens.
        level: expected norm of the noise on a modality of a sample, as a share of the norm of its tokens.
        generator: on the CPU.

    Example:
        >>> tokens = Tokens.from_sequences([torch.ones(1000, 3), torch.zeros(2, 3)], "text")
        >>> noisy = add_noise({"text": tokens}, 0.5, torch.Generator().manual_seed(0))["text"].values
        >>> round((noisy[:1000] - 1).square().mean().sqrt().item(), 2), noisy[1000:].abs().max().item()
        (0.5, 0.0)
    """
    return {name: _add_noise(tokens, level, generator) for name, tokens in parts.items()}


def _add_noise(tokens: Tokens, level: float, generator: torch.Generator | None) -> Tokens:
    x_ND = tokens.values
    power_B = x_ND.new_zeros(len(tokens), dtype=torch.float32)
    power_B = power_B.index_add(0, tokens.sample, x_ND.float().square().mean(1))
    scale_B = level * (power_B / tokens.lengths.clamp_min(1)).sqrt()
    noise_ND = torch.randn(x_ND.shape, generator=generator).to(x_ND.device)
    return tokens.with_values(x_ND + (noise_ND * scale_B[tokens.sample, None]).to(x_ND.dtype))


def evaluate_under_noise(
    task: SupervisedTask,
    rows: Sequence[int] | np.ndarray,
    score_fn: ScoreFn[ScoreT],
    levels: Sequence[float] = (0.0, 0.1, 0.3, 1.0, 3.0),
    *,
    batch_size: int = 64,
    seed: int = 0,
) -> dict[str, list[ScoreT]]:
    """The score at each level of noise, on one modality at a time and on all together.

    Args:
        task: with the trained model, and the samples.
        rows: the samples to test.
        score_fn: of predictions and targets: a figure, or whatever is to be known of them.
        levels: see `add_noise`.
        batch_size: samples at a time.
        seed: of the noise; every level gets the same, only louder.

    Returns:
        Modality -> one score a level; and "all", where there are several modalities.
    """
    names = list(task.inputs.modalities)
    chosen = {name: [name] for name in names} | ({"all": names} if len(names) > 1 else {})

    def at(disturbed: Sequence[str], level: float) -> ScoreT:
        generator = torch.Generator().manual_seed(seed)

        def disturb(parts: dict[str, Tokens], targets: list[Any]) -> dict[str, Tokens]:
            return parts | add_noise({name: parts[name] for name in disturbed}, level, generator)

        return _evaluate(task, rows, score_fn, disturb, batch_size)

    return {key: [at(disturbed, level) for level in levels] for key, disturbed in chosen.items()}


def evaluate_under_attack(
    task: SupervisedTask,
    rows: Sequence[int] | np.ndarray,
    score_fn: ScoreFn[ScoreT],
    radii: Sequence[float] = (0.0, 0.02, 0.05, 0.1, 0.2),
    *,
    steps: int = 1,
    batch_size: int = 64,
) -> list[ScoreT]:
    """The score where each sample's tokens are pushed to raise its own loss (see `training.adversarial`).

    Args:
        task: as for `evaluate_under_noise`.
        rows: as for `evaluate_under_noise`.
        score_fn: as for `evaluate_under_noise`.
        radii: lengths of the pushes, as a share of each sample's norm.
        steps: 1 for one push (FGM), more for a search (PGD).
        batch_size: as for `evaluate_under_noise`.

    Raises:
        InputError: a sample whose target is not known: nothing says what would harm it.
    """
    if unknown := [int(row) for row in rows if task.targets[int(row)] is None]:
        raise InputError(f"attack: sample {unknown[0]} has no target, expected one for each")

    def at(radius: float) -> ScoreT:
        def disturb(parts: dict[str, Tokens], targets: list[Any]) -> dict[str, Tokens]:
            if not radius:
                return parts

            def loss_of(tokens: Mapping[str, Tokens]) -> torch.Tensor:
                return task.head.loss(task.model.fuse(tokens, task.context), targets)

            return adversarial_tokens(parts, loss_of, radius, steps)

        return _evaluate(task, rows, score_fn, disturb, batch_size)

    return [at(radius) for radius in radii]


@torch.no_grad()
def _evaluate(
    task: SupervisedTask,
    rows: Sequence[int] | np.ndarray,
    score_fn: ScoreFn[ScoreT],
    perturb: PerturbFn,
    batch_size: int,
) -> ScoreT:
    """The score of predictions from disturbed tokens, in evaluation mode."""
    model, training = task.model, task.model.training
    model.eval()
    predictions: list[Any] = []
    targets = [task.targets[int(row)] for row in rows]
    for part in torch.tensor([int(row) for row in rows]).long().split(batch_size):
        parts = model.tokens(task.inputs, part)
        disturbed = perturb(parts, [task.targets[row] for row in part.tolist()])
        predictions += task.head.predict(model.fuse(disturbed, task.context))
    model.train(training)
    return score_fn(predictions, targets)
