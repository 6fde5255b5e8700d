"""Proof: every backend that says it can run a program agrees with the reference, gradients included.

    python -m mmattn.attention --programs 2000

Tolerances, as a share of (1 + the largest value of what is compared): in float64 1e-9, some 1e6 units
in the last place, which sums over a few hundred keys in another order never reach; in float32 2e-4
(the same 1e3 to 1e4 units, since scores of size 10 lose a digit in the exponential and gradients sum
over all tokens of the batch); in bfloat16 and float16 5e-2, a few units of their 8 and 11 bits. A norm
whose value or gradient jumps (`topk`, `sparsemax`, `entmax15`) is compared in float64 only: in fewer
digits two right answers differ where two keys nearly tie.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mmattn.attention.backends.selection import backends
from mmattn.attention.language.program import Heads, Program
from mmattn.attention.layer.attention import Attention
from mmattn.attention.testing.random_programs import random_batch, random_context
from mmattn.errors import InputError, MmattnError
from mmattn.types import Tokens

__all__ = ["CheckReport", "Disagreement", "check"]

TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4, torch.bfloat16: 5e-2, torch.float16: 5e-2}

_DISCONTINUOUS_NORMS = ("topk", "sparsemax", "entmax15")


class Disagreement(MmattnError, AssertionError):
    """A backend and the reference differ. The message holds the program, ready to paste."""


@dataclass
class CheckReport:
    """What was compared.

    Args:
        comparisons: (backend, dtype) -> number of comparisons.
        max_error: (backend, dtype) -> largest error, as a share of the tolerance.
    """

    comparisons: dict[tuple[str, str], int] = field(default_factory=dict)
    max_error: dict[tuple[str, str], float] = field(default_factory=dict)

    def add(self, backend: str, dtype: torch.dtype, relative_error: float) -> None:
        key = (backend, str(dtype).removeprefix("torch."))
        self.comparisons[key] = self.comparisons.get(key, 0) + 1
        self.max_error[key] = max(self.max_error.get(key, 0.0), relative_error)

    def merge(self, other: CheckReport) -> None:
        for key, count in other.comparisons.items():
            self.comparisons[key] = self.comparisons.get(key, 0) + count
            self.max_error[key] = max(self.max_error.get(key, 0.0), other.max_error[key])

    def __str__(self) -> str:
        return "\n".join(
            f"{backend:>10} {dtype:>8}: {count:6d} comparisons, "
            f"largest error {self.max_error[backend, dtype]:.1%} of the tolerance"
            for (backend, dtype), count in sorted(self.comparisons.items())
        )


def check(
    program: Program | Heads,
    *,
    heads: int | None = None,
    width: int = 5,
    batches: int = 3,
    dtypes: Sequence[torch.dtype] = (torch.float64, torch.float32),
    device: str = "cpu",
    seed: int = 0,
) -> CheckReport:
    """Hold every able backend to the float64 reference, over random jagged multimodal batches.

    Compared are the output under `no_grad`, and with gradients the output and the gradients of the
    tokens' values, the projections and the program's parameters; once with the program trained and once
    with it frozen, since other backends are able then.

    Args:
        program: what to check. The batches know the modalities text, image and audio and those that the
            program names; only the latter where it is closed to others (a route without `"*"`).
        heads: H; left out, what the program's head ranges need, or 4.
        width: K of a head.
        batches: how many batches.
        dtypes: types to run the backends in.
        device: "cpu" or "cuda".
        seed: of batches and parameters.

    Returns:
        What was compared, and how large the errors were.

    Raises:
        Disagreement: with the backend, what differs and the program as text.

    Example:
        >>> from mmattn import attention as A
        >>> report = A.check(A.Program(mask=A.window(2)), batches=1)
        >>> max(report.max_error.values()) < 1
        True
    """
    rng = random.Random(seed)
    heads = heads or (program.num_heads if isinstance(program, Heads) else 4)
    report = CheckReport()
    for _ in range(batches):
        torch.manual_seed(rng.randrange(1 << 30))
        layer = Attention(program, heads * width, heads).double().eval()
        for name, parameter in layer.program_parameters().items():
            # A number predicted from D inputs moves as far as one that is learned.
            spread = 0.5 / layer.dim**0.5 if name in layer._dynamic else 0.5
            parameter.data += spread * torch.randn_like(parameter)
        q, kv = random_batch(rng, program, layer.dim)
        context = random_context(program, q, kv, rng)
        report.merge(
            _check_batch(
                layer.to(device), q.to(device), kv.to(device), _context_to_device(context, device), dtypes
            )
        )
    return report


def _check_batch(
    layer: Attention, q: Tokens, kv: Tokens, context: Mapping[str, Any], dtypes: Sequence[torch.dtype]
) -> CheckReport:
    report = CheckReport()
    itself = q is kv
    for trained in (True, False):
        for parameter in layer.terms.values():
            parameter.requires_grad_(trained)
        expected = _results(layer, "reference", q, kv, itself, context)
        for dtype in dtypes:
            if dtype != torch.float64 and any(
                term.term_name in _DISCONTINUOUS_NORMS for term in layer.program.walk()
            ):
                continue
            typed = copy.deepcopy(layer).to(dtype)
            typed_q = q.to(dtype=dtype)
            typed_kv = typed_q if itself else kv.to(dtype=dtype)
            for backend in _supported_backends(typed, typed_q, typed_kv):
                got = _results(typed, backend, typed_q, typed_kv, itself, context)
                for name, value in got.items():
                    share = _error(value, expected[name]) / TOLERANCE[dtype]
                    if not share <= 1:
                        raise Disagreement(_mismatch_message(layer, backend, dtype, name, share, q, kv))
                    report.add(backend, dtype, share)
    return report


def _supported_backends(layer: Attention, q: Tokens, kv: Tokens) -> Iterator[str]:
    """Backends that can run all of the program's parts, with or without gradients."""
    for name in backends():
        layer.backend = name
        try:
            layer.plan(q, kv)
        except InputError:
            continue
        yield name


def _results(
    layer: Attention, backend: str, q: Tokens, kv: Tokens, is_self_attention: bool, context: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Output without and with gradients, and all gradients for a fixed direction of the output."""
    layer.backend = backend
    results: dict[str, Tensor] = {}
    q_values = q.values.detach().requires_grad_()
    kv_values = q_values if is_self_attention else kv.values.detach().requires_grad_()
    new_q = q.with_values(q_values)
    out = layer(new_q, None if is_self_attention else kv.with_values(kv_values), context).values
    results["output"] = out.detach()
    direction = torch.linspace(-1.0, 1.0, out.numel(), device=out.device, dtype=torch.float64).view_as(out)
    wanted: dict[str, Tensor] = {
        name: value for name, value in layer.named_parameters() if value.requires_grad
    }
    wanted |= {"queries' values": q_values} | ({} if is_self_attention else {"keys' values": kv_values})
    gradients = torch.autograd.grad(
        (out * direction.to(out.dtype)).sum(),
        list(wanted.values()),
        allow_unused=True,
        materialize_grads=True,
    )
    results |= {f"gradient of {name}": value for name, value in zip(wanted, gradients, strict=True)}
    with torch.no_grad():
        results["output without gradients"] = layer(q, None if is_self_attention else kv, context).values
    return results


def _error(got: Tensor, expected: Tensor) -> float:
    if not got.numel():
        return 0.0
    difference = (got.detach().double() - expected.detach().double()).abs().max()
    return (difference / (1 + expected.detach().abs().max())).item()


def _mismatch_message(
    layer: Attention,
    backend: str,
    dtype: torch.dtype,
    name: str,
    relative_error: float,
    q: Tokens,
    kv: Tokens,
) -> str:
    keys = "themselves" if q is kv else f"keys of lengths {kv.length_list}"
    return (
        f"attention: {backend} in {dtype} and the reference differ in the {name}, {relative_error:.3g} "
        f"times the "
        f"tolerance, for queries of lengths {q.length_list} over {keys}, "
        f"{layer.heads} heads of {layer.width}:\n  {layer.program}"
    )


def _context_to_device(context: Mapping[str, Any], device: str) -> dict[str, Any]:
    return {
        name: tuple(part.to(device) for part in value) if isinstance(value, tuple) else value.to(device)
        for name, value in context.items()
    }
