"""Debug mode: say where a NaN or an infinity came from, before it has spread over a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from mmattn.errors import InputError
from mmattn.types import Tokens

__all__ = ["check_inputs", "check_result", "debug", "debug_enabled"]

_DEBUG_MODE: ContextVar[bool] = ContextVar("mmattn_attention_debug", default=False)


@contextmanager
def debug() -> Iterator[None]:
    """Within it every attention layer refuses values that are not finite, and names where they stand.

    It looks at every tensor of every call and so costs time; outside of it nothing is looked at.

    Example:
        >>> import torch
        >>> from mmattn import attention as A
        >>> from mmattn.types import Tokens
        >>> layer = A.Attention(A.Program(), dim=4, heads=1)
        >>> words = Tokens.from_sequences([torch.zeros(2, 4), torch.full((1, 4), float("nan"))], "text")
        >>> with A.debug():
        ...     layer(words)
        Traceback (most recent call last):
        ...
        mmattn.errors.InputError: Attention: the queries hold nan at sample 1, token 2 ('text', position 0), \
expected finite numbers
    """
    token = _DEBUG_MODE.set(True)
    try:
        yield
    finally:
        _DEBUG_MODE.reset(token)


def debug_enabled() -> bool:
    """Is debug mode on?"""
    return _DEBUG_MODE.get()


def check_inputs(layer: torch.nn.Module, q: Tokens, kv: Tokens, context: Mapping[str, Any]) -> None:
    """Refuse tokens, weights or context that are not finite.

    Args:
        layer: the attention layer.
        q: queries.
        kv: keys and values.
        context: what a call gives beside the tokens, by name.

    Raises:
        InputError: with the first bad number and where it stands.
        InputError: a token, weight or context value is not finite.
    """
    _check_tokens("queries", q)
    if kv is not q:
        _check_tokens("keys", kv)
    for name, parameter in layer.named_parameters():
        _check_finite("weights", parameter, f"in the parameter {name}")
    task = context.get("task")
    if isinstance(task, Tensor):
        _check_finite("context", task, 'in "task"')


def check_result(name: str, values: Tensor, tokens: Tokens) -> None:
    """Refuse a result that is not finite although everything that went in was.

    Args:
        name: of the layer.
        values: [N, D] the result.
        tokens: that it belongs to.

    Raises:
        InputError: the result overflowed.
        InputError: the result is not finite.
    """
    if bool(values.isfinite().all()):
        return
    raise InputError(
        f"Attention: the {name} {_describe_first_nonfinite(values, tokens)}, though everything that went in "
        f"is finite: "
        f"it overflowed {values.dtype}"
    )


def _check_tokens(name: str, tokens: Tokens) -> None:
    if not bool(tokens.values.isfinite().all()):
        raise InputError(
            f"Attention: the {name} {_describe_first_nonfinite(tokens.values, tokens)}, expected finite "
            f"numbers"
        )


def _describe_first_nonfinite(values: Tensor, tokens: Tokens) -> str:
    token, column = (~values.isfinite()).nonzero()[0].tolist()
    modality = tokens.modalities[int(tokens.modality[token])]
    return (
        f"hold {values[token, column].item()} at sample {int(tokens.sample[token])}, token {token} "
        f"({modality!r}, position {int(tokens.position[token])})"
    )


def _check_finite(name: str, values: Tensor, location: str) -> None:
    bad = ~values.isfinite()
    if bool(bad.any()):
        raise InputError(
            f"Attention: the {name} hold {values[bad][0].item()} {location}, expected finite numbers"
        )
