"""Number of OpenMP threads that torch uses, per Python thread."""

from __future__ import annotations

from functools import lru_cache

import torch
from threadpoolctl import ThreadpoolController

__all__ = ["set_torch_threads"]


def set_torch_threads(count: int) -> None:
    """Set the number of threads of torch operations in this Python thread; other threads keep theirs.

    `torch.set_num_threads` would also apply to every thread that is started later.

    Args:
        count: OpenMP threads per operation.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> with ThreadPoolExecutor(1, initializer=set_torch_threads, initargs=(1,)) as pool:
        ...     pool.submit(torch.get_num_threads).result()
        1
    """
    torch.get_num_threads()  # the first call in a thread resets it to the process default: call it before
    _controller().limit(limits=count, user_api="openmp")


@lru_cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()  # scans all loaded libraries, which takes a millisecond or two
