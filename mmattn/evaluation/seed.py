"""What one seed of a run gave, and how it is kept on the disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmattn.files import atomic_path, write_json
from mmattn.training.loop import History

__all__ = ["SeedResult", "load_result", "save_result"]


@dataclass(frozen=True)
class SeedResult:
    """What one seed gave.

    Args:
        seed: of the split and of the training.
        values: system -> metric -> [U] per-user values, NaN for users without a positive.
        knockouts: content -> metric -> [U] of our system without it.
        history: of the training.
        parts: how many interactions and items each part has.
        seconds: step -> how long it took.
        top: [U', k] items that our system ranks first for the users in `shown`.
        shown: users whose recommendations the report may show.
    """

    seed: int
    values: Mapping[str, Mapping[str, NDArray[np.float64]]]
    knockouts: Mapping[str, Mapping[str, NDArray[np.float64]]]
    history: History
    parts: Mapping[str, int]
    seconds: Mapping[str, float]
    shown: NDArray[np.int64]
    top: NDArray[np.int64]


def save_result(path: Path, result: SeedResult) -> None:
    """Write `path` (.npz) and the notes beside it (.json)."""
    arrays = {
        f"{group}/{system}/{metric}": value
        for group, systems in (("values", result.values), ("knockouts", result.knockouts))
        for system, found in systems.items()
        for metric, value in found.items()
    }
    notes = {
        "seed": result.seed,
        "history": vars(result.history),
        "parts": dict(result.parts),
        "seconds": dict(result.seconds),
    }
    write_json(path.with_suffix(".json"), notes)
    # Last, because its presence says that the seed is finished.
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, shown=result.shown, top=result.top, **arrays)  # type: ignore[arg-type]


def load_result(path: Path) -> SeedResult:
    """Read what `save_result` wrote."""
    notes = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    found: dict[str, dict[str, dict[str, Any]]] = {"values": {}, "knockouts": {}}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            if "/" in key:
                group, system, metric = key.split("/", 2)
                found[group].setdefault(system, {})[metric] = arrays[key]
        shown, top = arrays["shown"], arrays["top"]
    return SeedResult(
        seed=notes["seed"], values=found["values"], knockouts=found["knockouts"],
        history=History(**notes["history"]), parts=notes["parts"], seconds=notes["seconds"],
        shown=shown, top=top,
    )  # fmt: skip
