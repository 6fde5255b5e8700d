"""Random programs over random jagged batches: every able backend against the float64 reference.

300 programs here; more on request: `MMATTN_PROGRAMS=2000 pytest ...`, or `python -m mmattn.attention`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from mmattn import attention as A
from mmattn.attention.backends import costs, eager, sdpa
from mmattn.attention.execution import block_sparsity, tiling
from mmattn.attention.execution.schedule import CostModel
from mmattn.attention.testing.backend_check import CheckReport
from mmattn.attention.testing.random_programs import random_program

PROGRAMS = int(os.environ.get("MMATTN_PROGRAMS", "300"))
GROUPS = 10

# Ways to cut a batch: as measured; everything packed with others; everything alone and in
# small blocks; short ones in one row.
CUTS = {
    "measured": None,
    "packed": CostModel(seconds_per_step=1.0, seconds_per_pair=1e-4, seconds_per_moved_token=0.0),
    "blocks": CostModel(
        seconds_per_step=1e-9, seconds_per_pair=1.0, seconds_per_moved_token=1.0, max_pairs=50
    ),
    "joined": CostModel(
        seconds_per_step=1.0, seconds_per_pair=1e-3, seconds_per_moved_token=1e6, concatenate=True
    ),
}


def _always(settings: CostModel) -> Callable[..., CostModel]:
    """Settings that depend on nothing, except that only who may join does."""
    return lambda conditions, join=False: replace(settings, join=settings.concatenate and join)


@pytest.mark.parametrize("group", range(GROUPS))
def test_random_programs(group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    report = CheckReport()
    for seed in range(group, PROGRAMS, GROUPS):
        way = list(CUTS)[seed % len(CUTS)]
        with monkeypatch.context() as patch:
            if (settings := CUTS[way]) is not None:
                for module in (eager, sdpa):
                    for name in ("eager_settings", "fused_settings"):
                        patch.setattr(module, name, _always(settings), raising=False)
                patch.setattr(block_sparsity, "_QUERY_BLOCK_SIZE", 8)
                patch.setattr(block_sparsity, "_KEY_BLOCK_SIZE", 4)
                patch.setattr(tiling, "_LONG_SAMPLE_TOKENS", 8)
            report.merge(A.check(random_program(random.Random(seed)), heads=4, batches=1, seed=seed))
    assert sum(report.comparisons.values()) > 10 * PROGRAMS / GROUPS
    assert max(report.max_error.values()) < 1


@pytest.mark.gpu
@pytest.mark.parametrize("group", range(GROUPS))
def test_random_programs_on_a_gpu(group: int) -> None:
    dtypes = (torch.float32, torch.bfloat16, torch.float16)
    for seed in range(group, PROGRAMS, GROUPS):
        A.check(
            random_program(random.Random(seed)), heads=4, width=16, dtypes=dtypes, device="cuda", seed=seed
        )


def test_a_wrong_backend_is_found_and_its_program_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = costs.sdpa_costs
    assert right is sdpa.sdpa_costs
    attend = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(sdpa.F, "scaled_dot_product_attention", lambda *a, **k: attend(*a, **k) * 1.001)
    program = A.Program(mask=A.causal & A.window(3))
    with pytest.raises(A.Disagreement) as caught:
        A.check(program, batches=2)
    assert str(program) in str(caught.value)
    assert A.parse(str(caught.value).split("\n")[-1]) == program
