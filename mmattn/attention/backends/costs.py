"""What a step, a pair and a moved row cost, measured on one core of a 2026 server CPU and on an H200.

The figures only have to rank ways of running the same thing, so that factors of two do not matter.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from mmattn.attention.execution.tiling import CostModel

if TYPE_CHECKING:
    from mmattn.attention.backends.base import Conditions

__all__ = ["eager_costs", "sdpa_costs"]

# With a gradient, forward and backward together cost this many forward passes.
_GRADIENT_COST_FACTOR = 3.5
# Numbers in the queries of one step beyond which a CPU core's cache overflows: 512 tokens of 8 heads of 64.
_CPU_CACHE_ELEMENTS = 1 << 18


@lru_cache(maxsize=256)
def sdpa_costs(conditions: Conditions, concatenate: bool = False) -> CostModel:
    """SDPA: about 60 GFLOP/s a core in float32 on the CPU, and 40 us a step.

    Args:
        conditions: device, dtype and what is needed of the result.
        concatenate: may short samples share a row? Only where nothing but a mask is asked of their pairs.
    """
    cpu = conditions.device == "cpu"
    work = _GRADIENT_COST_FACTOR if conditions.gradient else 1.0
    flops = 4 * conditions.heads * conditions.width
    return CostModel(
        seconds_per_step=(40e-6 if cpu else 30e-6) * (2.0 if conditions.gradient else 1.0),
        seconds_per_pair=flops * (1 / 60e9 if cpu else 1 / 100e12) * work,
        seconds_per_query=conditions.heads * conditions.width * (3e-9 if cpu else 1e-13) * work,
        seconds_per_moved_token=_seconds_per_moved_token(conditions, cpu),
        max_tokens=max(1, _CPU_CACHE_ELEMENTS // (conditions.heads * conditions.width)) if cpu else 1 << 62,
        concatenate=concatenate,
    )


@lru_cache(maxsize=256)
def eager_costs(conditions: Conditions) -> CostModel:
    """Scores written out: every pass over them costs about as much as a quarter of the products.

    Args:
        conditions: device, dtype and what is needed of the result.
    """
    cpu = conditions.device == "cpu"
    work = _GRADIENT_COST_FACTOR if conditions.gradient else 1.0
    products = 4 * conditions.heads * conditions.width * (1 / 60e9 if cpu else 1 / 100e12)
    passes = 8 * conditions.heads * (1e-9 if cpu else 4 / 2e12)
    return CostModel(
        seconds_per_step=(250e-6 if cpu else 200e-6) * (2.5 if conditions.gradient else 1.0),
        seconds_per_pair=(products + passes) * work,
        seconds_per_moved_token=_seconds_per_moved_token(conditions, cpu),
        # Scores of one step stay in the cache of a CPU core, or in a few hundred megabytes of a GPU.
        max_pairs=(1 << 20 if cpu else 1 << 26) // conditions.heads,
    )


def _seconds_per_moved_token(conditions: Conditions, cpu: bool) -> float:
    """Queries, keys, values and results, there and, for the gradients, back."""
    passes = 8 if conditions.gradient else 4
    return passes * conditions.heads * conditions.width * (0.3e-9 if cpu else 8 / 3e12)
