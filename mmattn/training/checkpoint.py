"""One file holds a whole checkpoint: written at once or not at all, and never unpickled.

Tensors go into a safetensors file; everything else (numbers, lists, optimizer groups) into the
JSON of its header. A file that was cut short does not open.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmattn.errors import InputError
from mmattn.files import atomic_path

__all__ = ["load", "save"]


def save(path: str | Path, state: Any) -> None:
    """Write a nested state (dicts, lists, tensors, numbers, strings) to `path`, atomically.

    Args:
        path: of the file.
        state: nested dicts and lists of tensors, numbers and strings.

    Example:
        >>> import tempfile, torch
        >>> path = tempfile.mkdtemp() + "/last.safetensors"
        >>> save(path, {"epoch": 3, "moments": {0: [torch.ones(2)]}})
        >>> load(path)
        {'epoch': 3, 'moments': {0: [tensor([1., 1.])]}}
    """
    tensors: dict[str, Tensor] = {}
    skeleton = _split(state, tensors)
    with atomic_path(path) as temporary:
        save_file(tensors, str(temporary), metadata={"state": json.dumps(skeleton)})


def load(path: str | Path, device: str = "cpu") -> Any:
    """Read what `save` wrote.

    Args:
        path: of the file.
        device: of the tensors.

    Raises:
        InputError: the file is not there, was cut short, or is of another kind.
    """
    try:
        with safe_open(str(path), framework="pt", device=device) as file:
            skeleton = json.loads((file.metadata() or {})["state"])
            return _join(skeleton, file.get_tensor)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such checkpoint") from error
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not a whole mmattn checkpoint ({error})") from error


def _split(state: Any, tensors: dict[str, Tensor]) -> Any:
    """The JSON skeleton of a state; its tensors are put aside, under numbers."""
    if isinstance(state, Tensor):
        name = str(len(tensors))
        tensors[name] = state.detach().contiguous().clone()
        return {"tensor": name}
    if isinstance(state, dict):  # pairs, because JSON would turn the optimizer's number keys into text
        return {"dict": [[key, _split(value, tensors)] for key, value in state.items()]}
    if isinstance(state, (list, tuple)):
        return [_split(value, tensors) for value in state]
    if state is None or isinstance(state, (bool, int, float, str)):
        return state
    raise TypeError(f"checkpoint: cannot hold a {type(state).__name__}")


def _join(skeleton: Any, tensor: Any) -> Any:
    if isinstance(skeleton, list):
        return [_join(value, tensor) for value in skeleton]
    if not isinstance(skeleton, dict):
        return skeleton
    if "tensor" in skeleton:
        return tensor(skeleton["tensor"])
    return {key: _join(value, tensor) for key, value in skeleton["dict"]}


def cpu_copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy a state to the CPU, unaffected by later steps of the optimizer.

    Args:
        state: name -> tensor.
    """
    return {name: torch.clone(value.detach()).cpu() for name, value in state.items()}
