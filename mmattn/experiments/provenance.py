"""What a report says about how a run can be repeated: libraries, program, encoders, time, settings."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import torch
import yaml

from mmattn import schema
from mmattn.attention.language.program import parse
from mmattn.experiments.config import FitConfig
from mmattn.experiments.seed_result import SeedResult

__all__ = ["provenance", "versions"]

_LIBRARIES = ("mmattn", "torch", "numpy", "scipy", "faiss-gpu", "faiss-cpu", "transformers", "timm")


def provenance(
    config: FitConfig, results: Sequence[SeedResult], device: torch.device
) -> dict[str, Mapping[str, Any] | str]:
    """Return what repeats a run.

    Args:
        config: of the run.
        results: of all seeds.
        device: that it ran on.
    """
    program = parse(config.fusion.program)
    return {
        "versions": versions(device),
        "program": {
            "text": str(program),
            "in words": program.describe(),
            "fingerprint": program.fingerprint(),
        },
        "encoders": results[-1].encoders,
        "seconds": {f"seed {result.seed}": dict(result.seconds) for result in results},
        "config": yaml.safe_dump(schema.to_mapping(config), sort_keys=False, allow_unicode=True),
    }


def versions(device: torch.device) -> dict[str, Any]:
    """Return the versions of Python and the libraries, the device and the number of threads.

    Args:
        device: that the run used.
    """
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _LIBRARIES if _installed(name)},
        "device": str(device),
        "threads": torch.get_num_threads(),
    }


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
