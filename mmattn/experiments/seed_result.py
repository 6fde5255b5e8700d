"""What one seed of a run gave, and how it is kept on the disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmattn.array_types import Floats, Ints
from mmattn.evaluation.index_loss import IndexCost
from mmattn.evaluation.modality_gap import ModalityGap
from mmattn.experiments.runner import save_seed
from mmattn.training.loop import History

__all__ = ["SeedResult", "load_result", "save_result"]


@dataclass(frozen=True)
class SeedResult:
    """What one seed gave.

    Args:
        seed: of the split and of the training.
        values: system -> metric -> [U] per-user values, NaN for users without a positive.
        ablations: knockout -> metric -> [U] of our system with something taken away.
        history: of the training.
        part_sizes: how many interactions and items each part has.
        seconds: step -> how long it took.
        subgroups: stratum -> system -> [U] recall, NaN for users that it does not concern.
        recall_at_cutoffs: system -> mean recall at each of `cutoffs`.
        cutoffs: rising cut-offs.
        modality_gaps: "content | content" -> how far apart their vectors lie.
        index_cost: what vectors and an index lose; None where that was not measured.
        example_users: why ("drawn", "best", "worst") -> users whose recommendations the report shows.
        example_items: the same -> [users, k] items that our system ranks first for them.
        baseline_settings: rival -> settings that validation chose; empty where the file's own were taken.
        hybrid_settings: of a hybrid, as validation chose them; empty without one.
    """

    seed: int
    values: Mapping[str, Mapping[str, Floats]]
    ablations: Mapping[str, Mapping[str, Floats]]
    history: History
    part_sizes: Mapping[str, int]
    seconds: Mapping[str, float]
    subgroups: Mapping[str, Mapping[str, Floats]] = field(default_factory=dict)
    recall_at_cutoffs: Mapping[str, Sequence[float]] = field(default_factory=dict)
    cutoffs: Sequence[int] = ()
    modality_gaps: Mapping[str, ModalityGap] = field(default_factory=dict)
    index_cost: IndexCost | None = None
    example_users: Mapping[str, Ints] = field(default_factory=dict)
    example_items: Mapping[str, Ints] = field(default_factory=dict)
    baseline_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    hybrid_settings: Mapping[str, float] = field(default_factory=dict)


_TABLES = ("values", "ablations", "subgroups")  # name -> name -> array
_ROWS = ("example_users", "example_items")  # name -> array


def save_result(path: Path, result: SeedResult) -> None:
    """Write `path` (.npz) and the notes beside it (.json)."""
    arrays = {
        f"{table}/{one}/{other}": values
        for table in _TABLES
        for one, found in getattr(result, table).items()
        for other, values in found.items()
    }
    arrays |= {f"{row}/{name}": values for row in _ROWS for name, values in getattr(result, row).items()}
    notes = {
        "seed": result.seed,
        "history": vars(result.history),
        "part_sizes": dict(result.part_sizes),
        "seconds": dict(result.seconds),
        "recall_at_cutoffs": {name: list(values) for name, values in result.recall_at_cutoffs.items()},
        "cutoffs": list(result.cutoffs),
        "modality_gaps": {name: asdict(gap) for name, gap in result.modality_gaps.items()},
        "index_cost": None if result.index_cost is None else result.index_cost.to_dict(),
        "baseline_settings": {name: dict(found) for name, found in result.baseline_settings.items()},
        "hybrid_settings": dict(result.hybrid_settings),
    }
    save_seed(path, notes, arrays)


def load_result(path: Path) -> SeedResult:
    """Read what `save_result` wrote."""
    notes: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    notes["history"] = History(**notes["history"])
    notes["modality_gaps"] = {name: ModalityGap(**gap) for name, gap in notes["modality_gaps"].items()}
    notes["index_cost"] = None if notes["index_cost"] is None else IndexCost.from_dict(notes["index_cost"])
    found: dict[str, dict[str, Any]] = {name: {} for name in (*_TABLES, *_ROWS)}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            group, _, name = key.partition("/")
            if group in _ROWS:
                found[group][name] = arrays[key]
            else:
                one, _, other = name.rpartition("/")
                found[group].setdefault(one, {})[other] = arrays[key]
    return SeedResult(**{**notes, **found})
