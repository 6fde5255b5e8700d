"""Computing a cheap function again on the way back, in place of keeping its result from the way there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

__all__ = ["recompute_in_backward"]


@contextmanager
def recompute_in_backward(function: Callable[[Tensor], Tensor], x: Tensor) -> Iterator[Tensor]:
    """Gives `function(x)`; what is computed from it inside keeps `x` for its gradient, not the result.

    Worth it for a function of single entries or rows: in a transformer's network the activation's result
    is the largest tensor of all, and `x` is kept anyway, for the activation's own gradient.

    Paper: Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016.

    Args:
        function: deterministic, and cheap beside what is computed from its result.
        x: its argument; nobody may change it in place before the gradient is there.

    Example:
        >>> import torch
        >>> x = torch.tensor([2.0], requires_grad=True)
        >>> with recompute_in_backward(torch.exp, x) as y:
        ...     z = y.square()
        >>> torch.allclose(torch.autograd.grad(z, x)[0], 2 * torch.exp(2 * x))
        True
    """
    y = function(x)
    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or _inside_function_transform():
        yield y
        return
    kept, result = x.detach(), (y.data_ptr(), y.shape, y.stride())

    def keep(saved: Tensor) -> Tensor:
        return kept if (saved.data_ptr(), saved.shape, saved.stride()) == result else saved

    def give(packed: Tensor) -> Tensor:
        return function(packed).detach() if packed is kept else packed

    with saved_tensors_hooks(keep, give):
        yield y


def _inside_function_transform() -> bool:
    return torch._C._are_functorch_transforms_active()
