"""Settings of the training loop."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from mmattn.training.optimizers import check_optimizer

__all__ = ["LoopConfig"]


@dataclass(frozen=True)
class LoopConfig:
    """How `mmattn.training.loop.train` trains a task; also the keys of `training` in a run's file.

    Args:
        epochs: number of epochs, at most; the schedule is made for all of them.
        learning_rate: peak learning rate.
        optimizer: name of an optimizer of `torch.optim` or timm, in lower case: adamw, sgd, lion, adopt, ...
            (see `mmattn.training.optimizers`).
        optimizer_options: further keyword arguments of the optimizer; `{momentum: 0.9}`.
        weight_decay: applied to weights; not to biases, norms and parameters of attention programs.
        lr_multipliers: part of the model -> factor on its learning rate; `{encoders.text: 0.01}`.
        layer_decay: factor on the learning rate from each layer of a trained encoder to the one below it.
        schedule: learning rate after the warm-up: cosine decay to 0, constant, decay by `lr_decay` in steps,
            exponential decay, or decay when the validation score reaches a plateau.
        warmup_ratio: fraction of all steps in which the learning rate rises from 0.
        lr_decay: factor on the learning rate, for step, exponential and plateau.
        lr_decay_epochs: epochs between two decays; for plateau, epochs without a better score.
        max_grad_norm: largest norm of the gradient; 0 does not clip.
        grad_accumulation: batches whose mean gradient makes one optimizer step (in each process).
        patience: epochs without a better validation score after which training stops; 0 never stops early.
        ema_decay: decay of the moving average of the weights that is validated and kept; 0 keeps the weights
            themselves.
        gate_penalty: factor on the expected number of open heads, added to the loss of programs with a
            `head_gate`; closed heads are removed from the model that is kept.
        gate_learning_rate: peak learning rate of the gates then; 0 trains them at the rate of the weights.
        precision: "auto" is bf16 on a GPU that has it, and full precision elsewhere; fp16 needs a GPU.
        save_every: optimizer steps between two checkpoints within an epoch; 0 writes one an epoch only.
        loggers: experiment loggers that get a row an epoch: tensorboard, wandb, mlflow, or several of them.
    """

    epochs: int = 8
    learning_rate: float = 2e-3
    optimizer: str = "adamw"
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

    def __post_init__(self) -> None:
        check_optimizer(self.optimizer)

    def numeric_settings(self) -> dict[str, Any]:
        """Return the settings that change the numbers of a training: not when it stops, saves or logs.

        Example:
            >>> sorted(asdict(LoopConfig()).keys() - LoopConfig().numeric_settings().keys())
            ['loggers', 'patience', 'save_every']
        """
        settings = {key: value for key, value in asdict(self).items() if key in _LOOP_KEYS}
        return {key: value for key, value in settings.items() if key not in _NOT_NUMERIC}


_LOOP_KEYS = frozenset(LoopConfig.__dataclass_fields__)  # a subclass may have keys of its own
_NOT_NUMERIC = ("patience", "save_every", "loggers")
