"""Write weights as safetensors, and check that weights fit a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from mmattn.errors import InputError
from mmattn.files import atomic_path

__all__ = ["check_weights", "write_weights"]


def write_weights(path: Path, state_dict: Mapping[str, Tensor]) -> None:
    """Write weights as safetensors, atomically.

    Args:
        path: the file.
        state_dict: name -> weight, on any device.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in state_dict.items()}
    with atomic_path(path) as temporary:
        save_file(plain, str(temporary))


def check_weights(
    expected: Mapping[str, Tensor], state_dict: Mapping[str, Tensor], where: str, owner: str
) -> None:
    """Check that weights have the expected names and shapes.

    Args:
        expected: name -> weight of the model as it is.
        state_dict: name -> weight to be loaded.
        where: prefix of the error message.
        owner: what the weights belong to, for the message ("model", for example).

    Raises:
        InputError: weights are missing, left over, or of another shape; the first one is named.
    """
    mismatches = sorted(set(expected) ^ set(state_dict)) or sorted(
        name for name, value in expected.items() if value.shape != state_dict[name].shape
    )
    if mismatches:
        raise InputError(
            f"{where}: weights of another {owner}; the first that does not fit is {mismatches[0]!r}"
        )
