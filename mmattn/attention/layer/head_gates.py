"""The gated heads of a whole model: what they cost, and taking out those that training has closed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from mmattn.attention.layer.attention import Attention
from mmattn.attention.layer.head_pruning import prune_to_state
from mmattn.errors import InputError

__all__ = ["gate_penalty", "layers", "prune", "prune_to_match"]


def layers(module: nn.Module) -> Iterator[tuple[str, Attention]]:
    """Every attention layer in a module, with its name there.

    Args:
        module: with attention layers.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, Attention):
            yield name, layer


def gate_penalty(module: nn.Module) -> Tensor:
    """The expected number of open heads over all layers with a `head_gate`, a scalar.

    A share of it in the loss closes the heads that are worth less than that share
    (`train(task, gate_penalty=...)` adds it).

    Paper: Louizos et al., "Learning Sparse Neural Networks through L0 Regularization", 2018; Voita et
    al., "Analyzing Multi-Head Self-Attention", 2019 (on heads).

    Args:
        module: with attention layers.

    Raises:
        InputError: no layer has a `head_gate`.

    Example:
        >>> from mmattn import attention as A
        >>> gated = A.Attention(A.Program(score=A.dot() >> A.head_gate("gate")), dim=8, heads=4)
        >>> round(A.gate_penalty(nn.Sequential(gated)).item(), 2)  # four heads, each open with .99
        3.96
    """
    gated = [layer.gate_penalty() for _, layer in layers(module) if layer.has_gates]
    if not gated:
        raise InputError(
            "gate penalty: no layer has a gate to close, expected a score such as dot() >> head_gate('gate')"
        )
    return torch.stack(gated).sum()


def prune(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Remove the heads whose gate is closed from every layer; what the module computes does not change.

    Optimizers have to be made anew.

    Args:
        module: with attention layers.

    Returns:
        Layer name -> the numbers of the heads that were removed, for layers that lost any.

    Example:
        >>> from mmattn import attention as A
        >>> gated = A.Attention(A.Program(score=A.dot() >> A.head_gate("gate")), dim=8, heads=4)
        >>> gated.program_parameters()["gate"].data[1] = -9.0
        >>> A.prune(nn.Sequential(gated)), gated.q_proj.out_features
        ({'0': (1,)}, 6)
    """
    removed = {name: layer.prune() for name, layer in layers(module)}
    return {name: heads for name, heads in removed.items() if heads}


def prune_to_match(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Remove the heads that are missing in the state dict of another module of the same making.

    `load_state_dict` does it by itself; this is for those who look at shapes before they load.

    Args:
        module: with attention layers.
        state: state dict of a pruned module.

    Raises:
        InputError: the state has heads that a layer here does not have.
    """
    for name, layer in layers(module):
        prune_to_state(layer, state, f"{name}." if name else "")
