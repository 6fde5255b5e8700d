"""What a new layer starts with: arguments that fit, its program for each range of heads, its parameters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mmattn.attention.language.program import Heads, Program
from mmattn.attention.language.term import Term
from mmattn.errors import InputError

if TYPE_CHECKING:
    from mmattn.attention.language.parameters import ParameterSpec

__all__ = ["MAX_MODALITIES", "HeadPrograms", "check_arguments", "head_programs", "init_parameter"]

# Rows that a parameter over modalities has until its term names them.
MAX_MODALITIES = 8

# First head, last head + 1, and what they run.
HeadPrograms = tuple[tuple[int, int, Program], ...]


def check_arguments(program: Any, dim: int, heads: int, dropout: float) -> None:
    """Refuse what no layer can be made of.

    Args:
        program: of the layer.
        dim: width of the tokens.
        heads: number of heads.
        dropout: probability.

    Raises:
        InputError: says which argument, what came and what was expected.
        InputError: an argument out of range, or a program that does not cover the heads.
    """
    if not isinstance(program, (Program, Heads)):
        hint = ": wrap it, Program(score=..., mask=...)" if isinstance(program, Term) else ""
        raise InputError(f"Attention(program): got {program!r}, expected a Program or heads({{...}}){hint}")
    for name, value in (("dim", dim), ("heads", heads)):
        if type(value) is not int or value < 1:
            raise InputError(f"Attention({name}): got {value!r}, expected a whole number from 1")
    if dim % heads:
        raise InputError(f"Attention(dim): got {dim}, expected a multiple of heads, {heads}")
    if not 0.0 <= dropout < 1.0:
        raise InputError(f"Attention(dropout): got {dropout}, expected 0 or more and below 1")


def head_programs(program: Program | Heads, heads: int) -> HeadPrograms:
    """The program of each range of heads.

    Args:
        program: a program for all heads, or one for each range of heads.
        heads: number of heads.

    Raises:
        InputError: the ranges do not end with the last head.
    """
    if isinstance(program, Program):
        return ((0, heads, program),)
    if program.num_heads != heads:
        raise InputError(f"Attention: the program's heads go to {program.num_heads}, expected {heads}")
    return program.parts


def init_parameter(spec: ParameterSpec, heads: int, width: int, dim: int) -> nn.Parameter:
    """A parameter as its term starts it, with one leading row a head.

    Args:
        spec: shape and start value that a term asks for.
        heads: number of heads.
        width: width of a head.
        dim: width of the tokens.
    """
    sizes = {"K": width, "D": dim, "M": MAX_MODALITIES}
    shape = [heads, *(sizes[size] if isinstance(size, str) else size for size in spec.shape)]
    match spec.init:
        case "zero":
            return nn.Parameter(torch.zeros(shape))
        case "identity":
            return nn.Parameter(torch.eye(shape[-1]).expand(shape).clone())
        case "random":
            return nn.Parameter(torch.randn(shape) / math.sqrt(shape[1]))
        case number:
            return nn.Parameter(torch.full(shape, float(number)))
