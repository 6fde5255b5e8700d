"""Another program for layers that are trained already; what they know stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from mmattn.attention.language.biases import Alibi, alibi_slopes
from mmattn.attention.language.program import Heads, Program
from mmattn.attention.layer.head_gates import layers
from mmattn.attention.layer.head_pruning import KEPT_HEADS
from mmattn.attention.layer.parameter_init import init_parameter
from mmattn.errors import InputError

if TYPE_CHECKING:
    from mmattn.attention.layer.attention import Attention

__all__ = ["reprogram"]


def reprogram(module: nn.Module, program: Program | Heads) -> None:
    """Make every attention layer in a module run another program, with the weights it has.

    Parameters that both programs have, by name and shape, keep their values. New ones start as their
    terms say: learned biases at zero, numbers as written, gates open, so that
    `dot() >> modality_bias("pair")` computes at first what `dot()` did. Optimizers have to be made anew.

    Args:
        module: a layer, or anything that holds layers.
        program: the new program.

    Raises:
        InputError: there is no layer; the program's head ranges do not cover a layer's heads; or head
            ranges for a layer that was pruned, whose heads have other numbers when it is loaded again.

    Example:
        >>> from mmattn import attention as A
        >>> layer = A.Attention(A.Program(), dim=8, heads=2)
        >>> A.reprogram(layer, A.Program(score=A.dot() >> A.relative("near", 8)))
        >>> {name: tuple(value.shape) for name, value in layer.program_parameters().items()}
        {'near': (2, 8)}
    """
    attentions = [layer for _, layer in layers(module)]
    if not attentions:
        raise InputError(f"reprogram: {type(module).__name__} has no attention layer")
    for layer in attentions:
        if isinstance(program, Heads) and (
            program.num_heads != layer.heads or getattr(layer, KEPT_HEADS) is not None
        ):
            raise InputError(
                f"reprogram: got a program for {program.num_heads} heads, expected {layer.heads}, not "
                f"pruned; "
                "a program without head ranges fits any layer"
            )
    for layer in attentions:
        _replace_program(layer, program)


def _replace_program(layer: Attention, program: Program | Heads) -> None:
    before, like = layer.terms, layer.q_proj.weight
    layer.program = program
    layer.terms = nn.ParameterDict()
    for spec in program.parameters():
        new = init_parameter(spec, layer.heads, layer.width, layer.dim)
        kept = before.get(spec.name)
        layer.terms[spec.name] = kept if kept is not None and kept.shape == new.shape else new.to(like)
    had_slope, layer._has_slope = layer._has_slope, any(isinstance(term, Alibi) for term in program.walk())
    if layer._has_slope and not had_slope:
        layer.register_buffer("slope", alibi_slopes(layer.heads).to(like))
    elif had_slope and not layer._has_slope:
        del layer.slope
    layer._index_program()
