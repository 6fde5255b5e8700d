"""Configuration of `mmattn fit` for recommendation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from mmattn import schema
from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.errors import InputError
from mmattn.training.loop_config import LoopConfig

__all__ = [
    "BaselineConfig",
    "DataConfig",
    "EvaluationConfig",
    "FitConfig",
    "HybridConfig",
    "ProtocolConfig",
    "TrainingConfig",
    "load_fit",
]


@dataclass(frozen=True)
class DataConfig:
    """Where the data is.

    Args:
        card: the card.yaml, or the folder that holds it.
        features: folder of the feature store, shared between runs.
        reject_limit: share of bad rows above which reading stops.
        min_rating: least value (rating) of an interaction that counts as a choice; left out, all count.
    """

    card: Path
    features: Path = Path("features")
    reject_limit: float = 0.5
    min_rating: float | None = None


@dataclass(frozen=True)
class ProtocolConfig:
    """How the interactions are split and what is measured.

    Args:
        split: "cold" (unseen items), "mixed" (unseen items and hidden interactions with the others, in one
            list), "random", "time" (one moment for everybody) or "given" (the data set's own, as its card's
            split column says; validation is drawn from its training where it has none).
        seeds: one run of everything a seed.
        test: share of items (cold), of interactions, or of both (mixed) that is tested on; unused where the
            split is given.
        validation: the share that every choice is made on: of the items or interactions that the test leaves,
            of all of them where the split is random or by time.
        metrics: names with a cut-off; the first one chooses the epoch, on validation.
        tuning_trials: settings that are tried for each rival, on validation, the file's own first; 0 takes
            those.
    """

    split: Literal["cold", "mixed", "random", "time", "given"] = "cold"
    seeds: tuple[int, ...] = (0, 1, 2)
    test: float = 0.2
    validation: float = 0.2
    metrics: tuple[str, ...] = ("ndcg@20", "recall@20", "mrr@20")
    tuning_trials: int = 0

    def __post_init__(self) -> None:
        if not self.seeds:
            raise InputError("seeds: got none, expected at least one")
        if self.tuning_trials < 0:
            raise InputError(f"budget: got {self.tuning_trials}, expected trials, or 0 for none")
        for name in ("test", "validation"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"{name}: got {getattr(self, name)}, expected a share between 0 and 1")


@dataclass(frozen=True)
class TrainingConfig(LoopConfig):
    """How a recommender is trained: the keys of `LoopConfig`, and how episodes are drawn.

    Args:
        steps_per_epoch: batches an epoch.
        refit: train again on training and validation together, for as many epochs as validation chose.
        users_per_batch: users a batch; 0 for all. Or {epochs done: users}; `{0: 256, 10: 1024}` goes on with
            1,024 users a batch after 10 epochs.
        candidate_fraction: share of the known items that a step pretends not to know, and ranks.
        history_fraction: share of the known items that a step's histories may hold.
        drop_modality: probability of dropping a modality of an item in training.
        alignment: weight of a contrastive loss between the modalities of an item beside the ranking; 0 for
            none.
        alignment_options: of its head, `mmattn.heads.contrastive.alignment.AlignmentHead`; `{loss:
            TripletMarginLoss}`.
    """

    steps_per_epoch: int = 25
    refit: bool = True
    users_per_batch: int | dict[int, int] = 2048
    candidate_fraction: float = 0.25
    history_fraction: float = 0.6
    drop_modality: float = 0.1
    alignment: float = 0.0
    alignment_options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BaselineConfig:
    """A system that ours is measured against (see `mmattn.recommenders`).

    Args:
        kind: which one.
        regularization: of the regularisation; 0 takes the kind's own default.
        options: other keyword arguments of its class; `{dim: 32, epochs: 20}` for bpr.
        vectors: modality -> weight of the cosine of its mean token.
        tags: columns -> weight of the cosine of their values; "director+actors" joins columns.
        tfidf: the same with values weighted by rarity (tf-idf).
        gaussian: column -> width of a Gaussian of its difference.
        exponent: above 0, the kernel is exp(exponent * the sum of all).
        cold_user_half_life: half-life in days of the popularity that answers users without a history, 0 for
            one that never fades; left out, the rival answers them itself.
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

    Of several values the best one is taken, on validation: the items' and the users' part by themselves, then
    their mixture, one setting after the other in the order given here.

    Args:
        regularization: of the items' part.
        activity_power: of the items' part: how much less those count who chose much.
        user_regularization: of the users' part.
        kernel_scale: of the users' part.
        idf_power: of the users' part.
        user_activity_power: of the users' part: how much less those count who chose much.
        profile_scale: of the users' part: how much it matters what the card says of users, where it has a
            table.
        user_weight: of the users' part in the mixture; 0 alone goes without it.
        shrinkage: choices that an item needs before they count as much as its content.
        popularity_penalty: how much is taken from items that many chose.
        content_scale: factor on the content; what validation is drawn from must hold new items to choose it.
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
class EvaluationConfig:
    """What is asked of the finished systems beside their figures, for the report.

    Args:
        ablations: ways in which each content is taken away at the test: "drop", as if no item had it;
            "shuffle", each item gets another one's; "noise", random vectors of the same scale.
        ablate_encoders: take away single encoders too, where several read one content.
        subsets: measure every subset of the contents.
        subgroups: look at popular and rare items, long and short histories apart.
        subgroup_metric: how, at the cut-off of the protocol's first metric. Recall falls into the strata's
            parts; nDCG is that of a stratum's positives in the one ranking.
        index_dim: width of the vectors whose search through an approximate index is measured; 0 for none.
    """

    ablations: tuple[Literal["drop", "shuffle", "noise"], ...] = ("drop", "shuffle", "noise")
    ablate_encoders: bool = True
    subsets: bool = True
    subgroups: bool = True
    subgroup_metric: Literal["recall", "ndcg"] = "recall"
    index_dim: int = 128


@dataclass(frozen=True)
class FitConfig:
    """Everything `mmattn fit` needs.

    Args:
        name: of the run; its folder is `out`/`name`.
        data: where the data is.
        encoders: modality -> encoder.
        protocol: splits, seeds and metrics.
        fusion: the core.
        head: what it is trained for.
        training: how.
        hybrid: a closed form around the trained head, whose content part it then is; None goes without.
        baselines: systems in the same report, by the name they have there.
        evaluation: the evidence beside the figures.
        out: folder of the runs.
    """

    name: str
    data: DataConfig
    encoders: dict[str, EncoderConfig]
    protocol: ProtocolConfig = ProtocolConfig()
    fusion: FusionConfig = field(default_factory=FusionConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    training: TrainingConfig = TrainingConfig()
    hybrid: HybridConfig | None = None
    baselines: dict[str, BaselineConfig] = field(
        default_factory=lambda: {"popularity": BaselineConfig("popularity"), "ease": BaselineConfig("ease")}
    )
    evaluation: EvaluationConfig = EvaluationConfig()
    out: Path = Path("runs")

    @property
    def model_config(self) -> ModelConfig:
        """The part that builds the model."""
        heads = {self.head.name: self.head}
        if self.training.alignment:
            heads["alignment"] = HeadConfig("alignment", self.training.alignment_options)
        return ModelConfig(self.encoders, self.fusion, heads)

    @property
    def sources(self) -> dict[str, str]:
        """Modality -> key of `Sample.source` that its encoder reads."""
        return {name: encoder.source or name for name, encoder in self.encoders.items()}

    @property
    def modalities_by_source(self) -> dict[str, tuple[str, ...]]:
        """Key of `Sample.source` -> the modalities whose encoders read it."""
        sources = self.sources
        return {
            content: tuple(name for name, source in sources.items() if source == content)
            for content in dict.fromkeys(sources.values())
        }


def load_fit(path: str | Path, overrides: Mapping[str, Any] | None = None) -> FitConfig:
    """Read a run's YAML file.

    Args:
        path: the file.
        overrides: dotted key -> value, put over what the file says.

    Raises:
        InputError: one line with the file, the key, what came and what was expected.
    """
    return schema.load_config(FitConfig, path, overrides)
