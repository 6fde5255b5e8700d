"""Full float32 precision in matrix products, whatever the process-wide setting."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["full_precision"]

_LOCK = threading.Lock()
_nesting = 0
_previous_settings = ("none", "none")


@contextmanager
def full_precision() -> Iterator[None]:
    """Disable TF32 on GPUs and bfloat16 on CPUs for float32 matrix products within this block.

    With `torch.set_float32_matmul_precision("high")`, which training scripts often use, scores would have
    only three correct digits and the error bounds of `ExactSearch` would not hold. The setting is
    process-wide: if several threads are inside, the last one to leave restores it.

    Example:
        >>> torch.set_float32_matmul_precision("high")
        >>> with full_precision():
        ...     torch.backends.cuda.matmul.fp32_precision
        'ieee'
        >>> torch.get_float32_matmul_precision(), torch.set_float32_matmul_precision("highest")
        ('high', None)
    """
    global _nesting, _previous_settings
    gpu, cpu = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    with _LOCK:
        if not _nesting:
            _previous_settings = (gpu.fp32_precision, cpu.fp32_precision)
            gpu.fp32_precision = cpu.fp32_precision = "ieee"
        _nesting += 1
    try:
        yield
    finally:
        with _LOCK:
            _nesting -= 1
            if not _nesting:
                gpu.fp32_precision, cpu.fp32_precision = _previous_settings
