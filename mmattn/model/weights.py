"""Weights of a model as a file, and whether they are those of the model that wants them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from mmattn.errors import InputError
from mmattn.files import atomic_path

__all__ = ["check_weights", "write_weights"]


def write_weights(path: Path, state_dict: Mapping[str, Tensor]) -> None:
    """Write weights as safetensors, atomically, from whatever device they are on."""
    plain = {name: value.detach().cpu().contiguous() for name, value in state_dict.items()}
    with atomic_path(path) as temporary:
        save_file(plain, str(temporary))


def check_weights(
    expected: Mapping[str, Tensor], state_dict: Mapping[str, Tensor], where: str, owner: str
) -> None:
    """Are these the weights that are expected, by name and shape?

    Args:
        expected: those of the model as it is.
        state_dict: what it is given.
        where: what the error begins with.
        owner: what has such weights, "model" for example.

    Raises:
        InputError: weights are missing, left over, or of another shape; the first one is named.
    """
    wrong = sorted(set(expected) ^ set(state_dict)) or sorted(
        name for name, value in expected.items() if value.shape != state_dict[name].shape
    )
    if wrong:
        raise InputError(f"{where}: weights of another {owner}; the first that does not fit is {wrong[0]!r}")
