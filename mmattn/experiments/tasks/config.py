"""What a YAML file of `mmattn fit` may say where heads learn from targets: classes, tags, transcripts, boxes.

name: digits
data: {card: data/digits}
encoders: {image: {name: tiny-image}, audio: {name: log-mel}}
tasks:
  digit: {head: {name: classification}, target: digit}
  voice: {head: {name: classification}, target: voice, weight: 0.5}
weighting: uncertainty
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from mmattn import attention, schema
from mmattn.attention.language.parameters import Dynamic
from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.errors import InputError, did_you_mean
from mmattn.training.loop_config import LoopConfig

__all__ = [
    "AdversarialConfig",
    "RobustnessConfig",
    "TaskConfig",
    "TaskDataConfig",
    "TaskFitConfig",
    "TaskProtocolConfig",
    "TaskTrainingConfig",
    "load_task_fit",
]


@dataclass(frozen=True)
class TaskDataConfig:
    """Where the data is.

    Args:
        card: the card.yaml, or the folder that holds it, of the tasks that name none of their own.
        features: folder of the feature store, shared between runs.
        reject_limit: share of bad rows above which reading stops; 0 refuses the first one.
    """

    card: Path | None = None
    features: Path = Path("features")
    reject_limit: float = 0.5


@dataclass(frozen=True)
class AdversarialConfig:
    """Adversarial training, `mmattn.training.tasks.adversarial`.

    Args:
        name: one push along the gradient (fgm), or a search (pgd).
        options: keyword arguments of `FGM` or `PGD`; `{radius: 0.1}`.
    """

    name: Literal["fgm", "pgd"] = "fgm"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskConfig:
    """One task: a head that learns a column of a card.

    Args:
        head: its name in the registry and its keyword arguments; what follows from the training targets
            (classes, alphabets) need not be said.
        target: column of the card, with one of the roles label, labels, tags, transcript, boxes.
        card: of this task, where it is not the run's own: tasks may learn from different data.
        inputs: the encoders that it may look at; left out, all. A caption is not to be written from itself.
        weight: of its loss, where the weighting is fixed.
        batch_size: samples a step.
        drop_modality: probability of dropping a modality of a sample in a step.
        metric: of a head that says text: what was said ("transcript": word and character errors), or what
            might as well be said ("translation": BLEU and chrF; captions too).
        augment: encoder -> how its contents are changed, anew in each epoch
            (`mmattn.training.augmentation.augment`).
        adversarial: adversarial training; left out, none.
    """

    head: HeadConfig
    target: str
    card: Path | None = None
    inputs: tuple[str, ...] = ()
    weight: float = 1.0
    batch_size: int = 32
    drop_modality: float = 0.0
    metric: Literal["transcript", "translation"] = "transcript"
    augment: dict[str, dict[str, Any]] = field(default_factory=dict)
    adversarial: AdversarialConfig | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"batch_size: got {self.batch_size}, expected at least 1")
        if not 0 <= self.drop_modality <= 1:
            raise InputError(f"drop_modality: got {self.drop_modality}, expected a probability")


@dataclass(frozen=True)
class TaskProtocolConfig:
    """What is held out: the parts that the card's split column says.

    Args:
        seeds: one run of everything a seed.
        validation: share of the training items that choices are made on, drawn by the seed, where the card
            has no part of that name.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    validation: float = 0.15

    def __post_init__(self) -> None:
        if not self.seeds:
            raise InputError("seeds: got none, expected at least one")
        if not 0 < self.validation < 1:
            raise InputError(f"validation: got {self.validation}, expected a share between 0 and 1")


@dataclass(frozen=True)
class TaskTrainingConfig(LoopConfig):
    """How it is trained: the keys of `LoopConfig`.

    Args:
        steps_per_epoch: steps an epoch, each with a batch of every task; 0 takes as many as the largest task
            has batches.
    """

    epochs: int = 10
    steps_per_epoch: int = 0


@dataclass(frozen=True)
class RobustnessConfig:
    """What is taken away or disturbed at the test.

    Args:
        ablations: ways in which each content is taken away: "drop", as if no sample had it; "shuffle", each
            sample gets another one's; "noise", random vectors of the same scale (stored features only).
        subsets: measure every subset of the contents.
        noise_levels: levels of normal noise on the encoders' tokens, as shares of their norm.
        attack_radii: lengths of one push along the gradient that raises the loss most, as shares of that
            norm.
    """

    ablations: tuple[Literal["drop", "shuffle", "noise"], ...] = ("drop", "shuffle")
    subsets: bool = True
    noise_levels: tuple[float, ...] = (0.1, 0.3, 1.0)
    attack_radii: tuple[float, ...] = ()


@dataclass(frozen=True)
class TaskFitConfig:
    """Everything `mmattn fit` needs for heads that learn from targets.

    Args:
        name: of the run; its folder is `out`/`name`.
        data: where the data is.
        encoders: modality -> encoder; tasks with different cards share those of one modality.
        tasks: name -> task; each is a head of the one model.
        fusion: the core; where its program has numbers that are `dynamic(..., on="task")`, each task is known
            to it by its name.
        training: how.
        protocol: seeds and parts.
        weighting: how the tasks' losses are joined: fixed, uncertainty, or a method of torchjd.
        single_task_baselines: of several tasks, train each one by itself too, with as many steps, for the
            report.
        robustness: the evidence beside the figures.
        out: folder of the runs.
    """

    name: str
    encoders: dict[str, EncoderConfig]
    tasks: dict[str, TaskConfig]
    data: TaskDataConfig = TaskDataConfig()
    fusion: FusionConfig = field(default_factory=FusionConfig)
    training: TaskTrainingConfig = TaskTrainingConfig()
    protocol: TaskProtocolConfig = TaskProtocolConfig()
    weighting: str | dict[str, Any] = "fixed"
    single_task_baselines: bool = True
    robustness: RobustnessConfig = RobustnessConfig()
    out: Path = Path("runs")

    def __post_init__(self) -> None:
        if not self.tasks:
            raise InputError("tasks: got none, expected at least one")
        for name, task in self.tasks.items():
            if not name or "." in name:
                raise InputError(f"tasks: got the name {name!r}, expected text without dots")
            if task.card is None and self.data.card is None:
                raise InputError(f"tasks.{name}: has no card, and data.card is not there either")
            for what, names in (("inputs", task.inputs), ("augment", task.augment)):
                for encoder in names:
                    if encoder not in self.encoders:
                        raise InputError(
                            f"tasks.{name}.{what}: no encoder "
                            f"{encoder!r}.{did_you_mean(encoder, self.encoders)}"
                        )

    @property
    def sources(self) -> dict[str, str]:
        """Modality -> key of `Sample.source` that its encoder reads."""
        return {name: encoder.source or name for name, encoder in self.encoders.items()}

    @property
    def resolved_fusion(self) -> FusionConfig:
        """The core, which knows the tasks where its program asks for them."""
        terms = attention.parse(self.fusion.program).walk()
        asks = any(isinstance(term, Dynamic) and term.on == "task" for term in terms)
        if self.fusion.tasks:
            for name in self.tasks:
                if name not in self.fusion.tasks:
                    raise InputError(f"fusion.tasks: no task {name!r}, expected all of the run's tasks")
        return (
            replace(self.fusion, tasks=tuple(self.tasks)) if asks and not self.fusion.tasks else self.fusion
        )

    def model_config(self, heads: Mapping[str, HeadConfig]) -> ModelConfig:
        """What builds the model with these heads."""
        return ModelConfig(self.encoders, self.resolved_fusion, dict(heads))

    def card_path(self, task: str) -> Path:
        """The card that a task learns from."""
        card = self.tasks[task].card or self.data.card
        assert card is not None  # checked above
        return card


def load_task_fit(path: str | Path, overrides: Mapping[str, Any] | None = None) -> TaskFitConfig:
    """Read the YAML file of a run with `tasks`.

    Args:
        path: the file.
        overrides: dotted key -> value, put over what the file says.

    Raises:
        InputError: one line with the file, the key, what came and what was expected.
    """
    return schema.load_config(TaskFitConfig, path, overrides)
