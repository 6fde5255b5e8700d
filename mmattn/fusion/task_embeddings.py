"""What a task is to the programs of a core: a learned vector under the task's name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmattn.errors import InputError, did_you_mean

__all__ = ["TaskEmbeddings"]


class TaskEmbeddings(nn.Module):
    """A learned vector a task, from which `dynamic(name, on="task")` predicts its numbers.

    The predictions do not depend on the vectors before training has moved them: programs begin as
    they are written, whatever the task.

    Paper: Perez et al., "FiLM: Visual Reasoning with a General Conditioning Layer", 2018 (numbers of a
    network predicted from a description of the task).

    Args:
        names: of the tasks.
        dim: width of the vectors.

    Raises:
        InputError: no name, or one that comes twice.

    Example:
        >>> tasks = TaskEmbeddings(["read", "listen"], dim=8)
        >>> tasks("listen").shape, tasks(["read", "listen", "read"]).shape
        (torch.Size([8]), torch.Size([3, 8]))
    """

    def __init__(self, names: Sequence[str], dim: int):
        super().__init__()
        self.names = tuple(names)
        if not self.names or len(set(self.names)) != len(self.names):
            raise InputError(f"tasks: got the names {list(names)}, expected some, each of them once")
        self.embeddings = nn.Parameter(torch.randn(len(self.names), dim))

    def forward(self, task: str | Sequence[str] | Tensor) -> Tensor:
        """The task of the batch -> [D], or the task of each sample -> [B, D].

        Args:
            task: a name; B names; or the places of B names, int64 [B].

        Raises:
            InputError: no such task; the nearest name is suggested.
        """
        if isinstance(task, Tensor):
            if task.dtype != torch.int64 or bool(((task < 0) | (task >= len(self.names))).any()):
                raise InputError(
                    f"tasks: got {task.dtype} {tuple(task.shape)}, expected int64 "
                    f"from 0 to {len(self.names) - 1}"
                )
            return self.embeddings[task]
        return self.embeddings[self._index(task) if isinstance(task, str) else [*map(self._index, task)]]

    def _index(self, name: Any) -> int:
        if name not in self.names:
            raise InputError(f"tasks: no task {name!r}.{did_you_mean(str(name), self.names)}")
        return self.names.index(name)
