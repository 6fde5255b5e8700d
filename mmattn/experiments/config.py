"""What a YAML file of `mmattn fit` may say: a recommender, or tasks whose heads learn from targets.

A recommender learns from interactions, and has a `head`:

    name: films
    data: {card: data/films}
    encoders: {text: {name: minilm}, image: {name: timm}}
    head: {name: recommendation}
    protocol: {split: cold}

Tasks learn from target columns of a card (classes, tags, transcripts, boxes, numbers, ...), one head each:

    name: digits
    data: {card: data/digits}
    encoders: {image: {name: tiny-image}, audio: {name: log-mel}}
    tasks:
      digit: {head: {name: classification}, target: digit}
      voice: {head: {name: classification}, target: voice, weight: 0.5}
    weighting: uncertainty
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mmattn import schema
from mmattn.attention.language.parameters import Dynamic
from mmattn.attention.language.program import parse
from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.errors import InputError, did_you_mean
from mmattn.training.training_config import TrainingConfig

__all__ = [
    "AdversarialConfig",
    "BaselineConfig",
    "DataConfig",
    "DistillationConfig",
    "EvaluationConfig",
    "FitConfig",
    "HybridConfig",
    "ProtocolConfig",
    "TaskConfig",
    "TrainingConfig",
    "load_fit",
]

# Keys that one kind of run has, and the other must not set: nothing that a file says is ignored.
_RECOMMENDER, _TASKS = {"of": "recommender"}, {"of": "tasks"}


@dataclass(frozen=True)
class DataConfig:
    """Where the data is.

    Args:
        card: the card.yaml, or the folder that holds it; of tasks, for those that name none of their own.
        features: folder of the feature store, shared between runs.
        reject_limit: fraction of bad rows above which reading stops; 0 refuses the first one.
        min_rating: least value (rating) of an interaction that counts as a choice; left out, all count
            (recommenders).
    """

    card: Path | None = None
    features: Path = Path("features")
    reject_limit: float = 0.5
    min_rating: float | None = field(default=None, metadata=_RECOMMENDER)


@dataclass(frozen=True)
class ProtocolConfig:
    """What is held out, and what is measured.

    Tasks use the parts that the card's split column names; for them `split`, `test`, `metrics` and
    `tuning_trials` have no meaning.

    Args:
        split: "cold" (unseen items), "mixed" (unseen items and hidden interactions with the others, in one
            list), "random", "time" (one moment for everybody), "leave-one-out" (the last interaction of each
            user), "cold-users" (unseen users, asked with half of their interactions) or "given" (the data
            set's own, as its card's split column says; validation is drawn from its training if it has none).
        seeds: one run of everything a seed.
        test: fraction of items (cold), of users (cold-users), of interactions, or of both (mixed) that is
            tested on; unused by "given" and "leave-one-out".
        validation: fraction that every choice is made on: of the items, users or interactions that the test
            leaves, of all of them where the split is random or by time; of tasks, of the training items, if
            the card has no validation part.
        metrics: names with a cut-off; the first one selects the epoch, on validation.
        tuning_trials: settings that are tried for each baseline, on validation, the file's own first; 0 takes
            those.
    """

    split: Literal["cold", "mixed", "random", "time", "leave-one-out", "cold-users", "given"] = field(
        default="cold", metadata=_RECOMMENDER
    )
    seeds: tuple[int, ...] = (0, 1, 2)
    test: float = field(default=0.2, metadata=_RECOMMENDER)
    validation: float = 0.2
    metrics: tuple[str, ...] = field(default=("ndcg@20", "recall@20", "mrr@20"), metadata=_RECOMMENDER)
    tuning_trials: int = field(default=0, metadata=_RECOMMENDER)

    def __post_init__(self) -> None:
        if not self.seeds:
            raise InputError("seeds: got none, expected at least one")
        if self.tuning_trials < 0:
            raise InputError(f"tuning_trials: got {self.tuning_trials}, expected trials, or 0 for none")
        for name in ("test", "validation"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"{name}: got {getattr(self, name)}, expected a fraction between 0 and 1")


@dataclass(frozen=True)
class BaselineConfig:
    """A system that ours is measured against (see `mmattn.recommenders`).

    Args:
        kind: which one.
        regularization: strength of the regularization; 0 takes the kind's own default.
        options: other keyword arguments of its class; `{dim: 32, epochs: 20}` for bpr.
        vectors: modality -> weight of the cosine of its mean token.
        tags: columns -> weight of the cosine of their values; "director+actors" joins columns.
        tfidf: the same with values weighted by rarity (tf-idf).
        gaussian: column -> width of a Gaussian of its difference.
        exponent: above 0, the kernel is exp(exponent * the sum of all).
        cold_user_half_life: half-life in days of the popularity that answers users without a history, 0 for
            one that never fades; left out, the baseline answers them itself.
    """

    kind: Literal[
        "popularity", "recent-popularity", "item-knn", "ease", "als", "bpr", "lightgcn", "vbpr", "sasrec",
        "content-ridge", "content-knn", "kernel-ridge",
    ]  # fmt: skip
    regularization: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)
    vectors: dict[str, float] = field(default_factory=dict)
    tags: dict[str, float] = field(default_factory=dict)
    tfidf: dict[str, float] = field(default_factory=dict)
    gaussian: dict[str, float] = field(default_factory=dict)
    exponent: float = 0.0
    cold_user_half_life: float | None = None


@dataclass(frozen=True)
class HybridConfig:
    """A closed form around the trained head, for warm and cold items in one list:
    `mmattn.recommenders.hybrid`.

    Of several values the best one is selected on validation: the items' and the users' part by themselves,
    then their mixture, one setting after the other in the order given here.

    Args:
        regularization: of the items' part.
        activity_power: of the items' part: how much less active users count.
        user_regularization: of the users' part.
        kernel_scale: of the users' part.
        idf_power: of the users' part.
        user_activity_power: of the users' part: how much less active users count.
        profile_scale: of the users' part: weight of the card's table of users, if it has one.
        user_weight: of the users' part in the mixture; 0 alone goes without it.
        shrinkage: interactions that an item needs before they count as much as its content.
        popularity_penalty: how much popular items are discounted.
        content_scale: factor on the content; validation must contain new items to select it.
        max_users: users that the users' part learns from, at most; time grows with the cube of their number.
    """

    regularization: tuple[float, ...] = (300.0, 500.0, 1000.0)
    activity_power: tuple[float, ...] = (0.5,)
    user_regularization: tuple[float, ...] = (2.0, 3.0, 5.0)
    kernel_scale: tuple[float, ...] = (2.0,)
    idf_power: tuple[float, ...] = (0.25,)
    user_activity_power: tuple[float, ...] = (0.5,)
    profile_scale: tuple[float, ...] = (0.0, 0.3)
    user_weight: tuple[float, ...] = (0.65, 0.5, 0.8)
    shrinkage: tuple[float, ...] = (0.0, 1.0, 5.0)
    popularity_penalty: tuple[float, ...] = (0.0, 0.05, 0.1)
    content_scale: tuple[float, ...] = (1.0,)
    max_users: int = 20_000

    def __post_init__(self) -> None:
        for each in fields(self):
            if getattr(self, each.name) == ():
                raise InputError(f"{each.name}: got no value, expected one or several")


@dataclass(frozen=True)
class AdversarialConfig:
    """Adversarial training, `mmattn.training.tasks.adversarial`.

    Args:
        name: one step along the gradient (fgm), or a search (pgd).
        options: keyword arguments of `FGM` or `PGD`; `{radius: 0.1}`.
    """

    name: Literal["fgm", "pgd"] = "fgm"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DistillationConfig:
    """Learning from a trained model, `mmattn.training.tasks.distillation`.

    Args:
        teacher: folder of the trained model, for example `runs/large/seed-0/model`; its head has the name of
            the task and knows the same classes.
        temperature: above 0; a higher one tells more of the classes that are not the answer.
        teacher_weight: of the teacher's answers in the loss, from 0 to 1.
        hint_weight: weight of the joint vectors; 0 for none.
    """

    teacher: Path
    temperature: float = 2.0
    teacher_weight: float = 0.5
    hint_weight: float = 0.0


@dataclass(frozen=True)
class TaskConfig:
    """One task: a head that learns a column of a card.

    Args:
        head: its name in the registry and its keyword arguments; what follows from the training targets
            (classes, vocabularies) need not be said.
        target: column of the card, with a role that the head can learn from: label, labels, tags,
            transcript, value, boxes.
        card: of this task, if it is not the run's own: tasks may learn from different data.
        inputs: the encoders that it may read; left out, all. A caption is not to be written from itself.
        weight: of its loss, if the weighting is fixed.
        batch_size: samples a step.
        drop_modality: probability of dropping a modality of a sample in a step.
        metric: one of several sets of metrics that the head offers. Of a head that predicts text:
            "transcript" (the default: word and character errors) or "translation" (BLEU and chrF; captions
            too).
        augment: encoder -> how its contents are changed, anew in each epoch
            (`mmattn.training.augmentation.augment`).
        mixup: alpha of the distribution Beta(alpha, alpha) that pairs of samples are mixed with
            (`mmattn.training.tasks.mixup`); 0 for none.
        adversarial: adversarial training; left out, none.
        distillation: a trained model to learn from; left out, none.
    """

    head: HeadConfig
    target: str
    card: Path | None = None
    inputs: tuple[str, ...] = ()
    weight: float = 1.0
    batch_size: int = 32
    drop_modality: float = 0.0
    metric: str = ""
    augment: dict[str, dict[str, Any]] = field(default_factory=dict)
    mixup: float = 0.0
    adversarial: AdversarialConfig | None = None
    distillation: DistillationConfig | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"batch_size: got {self.batch_size}, expected at least 1")
        if not 0 <= self.drop_modality <= 1:
            raise InputError(f"drop_modality: got {self.drop_modality}, expected a probability")
        if self.mixup < 0:
            raise InputError(f"mixup: got {self.mixup}, expected alpha above 0, or 0 for none")
        if self.mixup and self.distillation is not None:
            raise InputError("mixup and distillation: got both, expected one of them")


@dataclass(frozen=True)
class EvaluationConfig:
    """What is asked of the finished systems beside their metrics, for the report.

    Args:
        ablations: ways in which each content is taken away at the test: "drop", as if no item had it;
            "shuffle", each item gets another one's; "noise", random vectors of the same scale (stored
            features only).
        ablate_encoders: take away single encoders too, where several read one content.
        subsets: measure every subset of the contents.
        subgroups: measure popular and rare items, long and short histories apart (recommenders).
        subgroup_metric: how, at the cut-off of the protocol's first metric. Recall falls into the subgroups'
            parts; nDCG is that of a subgroup's positives in the one ranking (recommenders).
        index_dim: width of the vectors whose search through an approximate index is measured; 0 for none
            (recommenders).
        noise_levels: levels of normal noise on the encoders' tokens, as fractions of their norm (tasks).
        attack_radii: lengths of one step along the gradient that raises the loss most, as fractions of that
            norm (tasks).
    """

    ablations: tuple[Literal["drop", "shuffle", "noise"], ...] = ("drop", "shuffle", "noise")
    ablate_encoders: bool = True
    subsets: bool = True
    subgroups: bool = field(default=True, metadata=_RECOMMENDER)
    subgroup_metric: Literal["recall", "ndcg"] = field(default="recall", metadata=_RECOMMENDER)
    index_dim: int = field(default=128, metadata=_RECOMMENDER)
    noise_levels: tuple[float, ...] = field(default=(0.1, 0.3, 1.0), metadata=_TASKS)
    attack_radii: tuple[float, ...] = field(default=(), metadata=_TASKS)


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Everything `mmattn fit` needs. A file with `tasks` trains those; one without trains a recommender.

    Args:
        name: of the run; its folder is `out`/`name`.
        encoders: modality -> encoder; tasks with different cards share those of one modality.
        data: where the data is.
        fusion: the core; where its program has numbers that are `dynamic(..., on="task")`, each task is known
            to it by its name.
        head: of a recommender.
        tasks: name -> task; each is a head of the one model.
        protocol: what is held out, seeds and metrics.
        training: how it is trained.
        hybrid: a closed form around the trained head, whose content part it then is; left out, none
            (recommenders).
        baselines: systems in the same report, by the name they have there (recommenders).
        weighting: how the tasks' losses are joined: fixed, uncertainty, or a method of torchjd.
        single_task_baselines: of several tasks, train each one by itself too, with as many steps, for the
            report.
        evaluation: the evidence beside the metrics.
        out: folder of the runs.
    """

    name: str
    encoders: dict[str, EncoderConfig]
    data: DataConfig = DataConfig()
    fusion: FusionConfig = field(default_factory=FusionConfig)
    head: HeadConfig = field(default_factory=HeadConfig, metadata=_RECOMMENDER)
    tasks: dict[str, TaskConfig] = field(default_factory=dict)
    protocol: ProtocolConfig = ProtocolConfig()
    training: TrainingConfig = field(default_factory=TrainingConfig)
    hybrid: HybridConfig | None = field(default=None, metadata=_RECOMMENDER)
    baselines: dict[str, BaselineConfig] = field(
        default_factory=lambda: {"popularity": BaselineConfig("popularity"), "ease": BaselineConfig("ease")},
        metadata=_RECOMMENDER,
    )
    weighting: str | dict[str, Any] = field(default="fixed", metadata=_TASKS)
    single_task_baselines: bool = field(default=True, metadata=_TASKS)
    evaluation: EvaluationConfig = EvaluationConfig()
    out: Path = Path("runs")

    def __post_init__(self) -> None:
        for key in _foreign_keys(self, "tasks" if self.tasks else "recommender"):
            which = "this run has tasks" if self.tasks else "this run has no tasks"
            raise InputError(f"{key}: has no meaning here, as {which}")
        if not self.tasks and self.data.card is None:
            raise InputError("data.card: is missing (a card.yaml, or the folder that holds it)")
        for name, task in self.tasks.items():
            self._check_task(name, task)

    def _check_task(self, name: str, task: TaskConfig) -> None:
        if not name or "." in name:
            raise InputError(f"tasks: got the name {name!r}, expected text without dots")
        if task.card is None and self.data.card is None:
            raise InputError(f"tasks.{name}: has no card, and data.card is not there either")
        for what, names in (("inputs", task.inputs), ("augment", task.augment)):
            for encoder in names:
                if encoder not in self.encoders:
                    raise InputError(
                        f"tasks.{name}.{what}: no encoder {encoder!r}.{did_you_mean(encoder, self.encoders)}"
                    )

    @property
    def sources(self) -> dict[str, str]:
        """Modality -> key of `Sample.content` that its encoder reads."""
        return {name: encoder.source or name for name, encoder in self.encoders.items()}

    def modalities_by_source(self, modalities: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
        """Return key of `Sample.content` -> the modalities whose encoders read it.

        Args:
            modalities: those that count; () for all.
        """
        groups: dict[str, tuple[str, ...]] = {}
        for name, source in self.sources.items():
            if not modalities or name in modalities:
                groups[source] = (*groups.get(source, ()), name)
        return groups

    def model_config(self, heads: Mapping[str, HeadConfig] | None = None) -> ModelConfig:
        """Return what builds the model.

        Args:
            heads: name -> head; left out, those of a recommender.
        """
        if heads is None:
            heads = {self.head.name: self.head}
            if self.training.alignment:
                heads["alignment"] = HeadConfig("alignment", self.training.alignment_options)
        return ModelConfig(self.encoders, self._fusion_with_tasks(), dict(heads))

    def _fusion_with_tasks(self) -> FusionConfig:
        """The core, which knows the tasks by name if its program asks for them."""
        if not self.tasks:
            return self.fusion
        if self.fusion.tasks:
            for name in self.tasks:
                if name not in self.fusion.tasks:
                    raise InputError(f"fusion.tasks: no task {name!r}, expected all of the run's tasks")
            return self.fusion
        terms = parse(self.fusion.program).walk()
        asks = any(isinstance(term, Dynamic) and term.on == "task" for term in terms)
        return replace(self.fusion, tasks=tuple(self.tasks)) if asks else self.fusion

    def card_path(self, task: str = "") -> Path:
        """Return the card that a task, or the recommender, learns from.

        Args:
            task: its name; "" for the run's own card.
        """
        card = (self.tasks[task].card if task else None) or self.data.card
        assert card is not None  # checked above
        return card


def load_fit(path: str | Path, overrides: Mapping[str, Any] | None = None) -> FitConfig:
    """Read a run's YAML file.

    Args:
        path: the file.
        overrides: dotted key -> value, put over what the file says.

    Raises:
        InputError: one line with the file, the key, what came and what was expected.
    """
    return schema.load_config(FitConfig, path, overrides)


def _foreign_keys(config: Any, kind: str, prefix: str = "") -> Iterator[str]:
    """Keys that are set and belong to the other kind of run."""
    empty = {each.name: each.default_factory() for each in fields(config) if callable(each.default_factory)}
    for each in fields(config):
        value = getattr(config, each.name)
        default = empty.get(each.name, each.default)
        if each.metadata.get("of", kind) != kind:
            if value != default:
                yield prefix + each.name
        elif is_dataclass(value):
            yield from _foreign_keys(value, kind, f"{prefix}{each.name}.")
