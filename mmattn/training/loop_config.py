"""Settings of the training loop."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

__all__ = ["LoopConfig"]


@dataclass(frozen=True)
class LoopConfig:
    """How anything is trained: the arguments of `mmattn.training.loop.train`, which explains them further.

    Args:
        epochs: how many, at most.
        learning_rate: peak rate.
        optimizer: adamw, or sgd or adagrad.
        optimizer_options: what else the optimizer of that name in `torch.optim` takes; `{momentum: 0.9}`.
        weight_decay: on weights, not on biases, norms and the parameters of attention programs.
        lr_multipliers: part of the model -> factor on its rate; `{encoders.text: 0.01}`.
        layer_decay: factor on the rate from each layer of a trained encoder to the one below it.
        schedule: what the rate does after the warm-up: follow a cosine down to 0, stay constant, fall by
            `lr_decay` in steps, fall exponentially, or fall when validation reaches a plateau.
        warmup_ratio: share of all steps in which the rate rises from 0.
        lr_decay: factor on the rate, for step, exponential and plateau.
        lr_decay_epochs: epochs in which the rate falls by it; for plateau, epochs without a better score.
        max_grad_norm: largest norm of the gradient; 0 does not clip.
        grad_accumulation: batches whose mean gradient makes one optimizer step (in each process).
        patience: epochs without a better validation figure; 0 never stops early.
        ema_decay: decay of the moving average of the weights that is kept; 0 keeps the last.
        gate_penalty: what an open head costs, where the program has a `head_gate`; closed heads are
            removed from the model that is kept.
        gate_learning_rate: peak rate of the gates then: they have far to go; 0 lets them learn as the rest
            does.
        precision: "auto" is bf16 on a GPU that has it, and full precision elsewhere; fp16 needs a GPU.
        save_every: optimizer steps between two checkpoints within an epoch; 0 keeps whole epochs only.
        loggers: who gets the curves while it runs: tensorboard, wandb, mlflow, or several of them.
    """

    epochs: int = 8
    learning_rate: float = 2e-3
    optimizer: Literal["adamw", "sgd", "adagrad"] = "adamw"
    optimizer_options: dict[str, Any] = field(default_factory=dict)
    weight_decay: float = 0.02
    lr_multipliers: dict[str, float] = field(default_factory=dict)
    layer_decay: float = 1.0
    schedule: Literal["cosine", "constant", "step", "exponential", "plateau"] = "cosine"
    warmup_ratio: float = 0.1
    lr_decay: float = 0.1
    lr_decay_epochs: int = 10
    max_grad_norm: float = 1.0
    grad_accumulation: int = 1
    patience: int = 3
    ema_decay: float = 0.98
    gate_penalty: float = 0.0
    gate_learning_rate: float = 0.1
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    save_every: int = 0
    loggers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()

    @property
    def train_kwargs(self) -> dict[str, Any]:
        """Keyword arguments of `train`."""
        return {key.name: getattr(self, key.name) for key in fields(LoopConfig)}
