"""How many threads an operation of torch takes, in one thread of Python."""

from __future__ import annotations

from functools import lru_cache

import torch
from threadpoolctl import ThreadpoolController

__all__ = ["set_torch_threads"]


def set_torch_threads(count: int) -> None:
    """Set the number of threads of torch operations that this thread starts; other threads keep theirs.

    `torch.set_num_threads` would also decide for every thread that starts later.

    Args:
        count: number of threads.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> with ThreadPoolExecutor(1, initializer=set_torch_threads, initargs=(1,)) as pool:
        ...     pool.submit(torch.get_num_threads).result()
        1
    """
    torch.get_num_threads()  # a thread's first question sets the number that the process has
    _controller().limit(limits=count, user_api="openmp")


@lru_cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()  # looks through all loaded libraries: a millisecond or two
