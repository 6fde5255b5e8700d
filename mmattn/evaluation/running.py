"""What every run of `mmattn fit` does alike: its folder, its clock, the cards of its encoders."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from mmattn import schema
from mmattn.encoders.base import Encoder
from mmattn.errors import InputError

__all__ = ["Clock", "encoder_card", "open_folder"]


def open_folder(config: Any, resume: bool) -> Path:
    """The run's folder with its configuration; one run never writes over another.

    Args:
        config: a dataclass with `out` and `name`.
        resume: go on in a folder that holds a run of the same settings.

    Raises:
        InputError: the folder exists and `resume` is False, or holds something else.
    """
    folder: Path = config.out / config.name
    settings = folder / "config.yaml"
    if settings.exists():
        if not resume:
            raise InputError(f"{folder}: this run exists; choose another name, or --resume to go on with it")
        if schema.load(type(config), settings) != config:
            raise InputError(f"{folder}: holds a run with other settings; choose another name")
    elif folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: exists and is no run; choose another name")
    else:
        schema.dump(config, settings)
    return folder


def encoder_card(encoder: Encoder) -> dict[str, Any]:
    """An encoder's card for the report, without the long lists of its vocabulary."""
    card = encoder.describe()
    short = {"name": card.name, "revision": card.revision, "fingerprint": card.fingerprint()[:16]}
    return short | {"weights": card.weights_hash[:16] or "trained with the model", "width": card.dim}


class Clock:
    """Seconds of the steps of a run.

    Attributes:
        laps: step -> seconds.
    """

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """The step of that name ends now."""
        now = time.perf_counter()
        self.laps[name] = round(now - self._last, 1)
        self._last = now
