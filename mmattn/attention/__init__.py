"""Attention as a program: a value that says who attends to whom and how, and a layer that runs it.

from mmattn import attention as A

program = A.Program(score=A.dot() >> A.modality_bias("pair"), mask=A.route({"*": ["text", "image"]}))
layer = A.Attention(program, dim=64, heads=4)
"""

from mmattn.attention.biases import modality_bias
from mmattn.attention.layer import Attention
from mmattn.attention.masks import blocks, causal, dilated, full, global_tokens, present, route, where, window
from mmattn.attention.norms import softmax
from mmattn.attention.parameters import dynamic, learned
from mmattn.attention.plan import Plan, backends
from mmattn.attention.program import Program, heads
from mmattn.attention.scores import dot, softcap, temperature
from mmattn.attention.serial import parse

__all__ = [
    "Attention",
    "Plan",
    "Program",
    "backends",
    "blocks",
    "causal",
    "dilated",
    "dot",
    "dynamic",
    "full",
    "global_tokens",
    "heads",
    "learned",
    "modality_bias",
    "parse",
    "present",
    "route",
    "softcap",
    "softmax",
    "temperature",
    "where",
    "window",
]
