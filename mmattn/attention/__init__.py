"""Attention as a program: a value that says who attends to whom and how, and a layer that runs it.

from mmattn import attention as A

program = A.Program(score=A.dot() >> A.modality_bias("pair"), mask=A.route({"*": ["text", "image"]}))
layer = A.Attention(program, dim=64, heads=4)
"""

from mmattn.attention.algebra import Mask
from mmattn.attention.biases import alibi, box_bias, graph_bias, modality_bias, relative, time_bias
from mmattn.attention.check import CheckReport, Disagreement, check
from mmattn.attention.debug import debug
from mmattn.attention.decode import Cache
from mmattn.attention.explain import Explanation, Row, Rows, rows
from mmattn.attention.extensions import register_mask, register_score
from mmattn.attention.flow import flow
from mmattn.attention.gates import gate_penalty, layers, prune, prune_like
from mmattn.attention.layer import Attention
from mmattn.attention.masks import blocks, causal, dilated, full, window
from mmattn.attention.norms import entmax15, sigmoid, softmax, sparsemax, topk
from mmattn.attention.parameters import dynamic, learned
from mmattn.attention.plan import Plan, backends
from mmattn.attention.program import Program, heads, parse
from mmattn.attention.quantized import quantize, quantize_like
from mmattn.attention.record import LayerWeights, Recording, record
from mmattn.attention.reprogram import reprogram
from mmattn.attention.rollout import Paths, relevance, rollout
from mmattn.attention.routes import global_tokens, present, route, where
from mmattn.attention.scores import additive, bilinear, cosine, dot, head_gate, softcap, temperature
from mmattn.attention.terms import Term

__all__ = [
    "Attention",
    "Cache",
    "CheckReport",
    "Disagreement",
    "Explanation",
    "LayerWeights",
    "Mask",
    "Paths",
    "Plan",
    "Program",
    "Recording",
    "Row",
    "Rows",
    "Term",
    "additive",
    "alibi",
    "backends",
    "bilinear",
    "blocks",
    "box_bias",
    "causal",
    "check",
    "cosine",
    "debug",
    "dilated",
    "dot",
    "dynamic",
    "entmax15",
    "flow",
    "full",
    "gate_penalty",
    "global_tokens",
    "graph_bias",
    "head_gate",
    "heads",
    "layers",
    "learned",
    "modality_bias",
    "parse",
    "present",
    "prune",
    "prune_like",
    "quantize",
    "quantize_like",
    "record",
    "register_mask",
    "register_score",
    "relative",
    "relevance",
    "reprogram",
    "rollout",
    "route",
    "rows",
    "sigmoid",
    "softcap",
    "softmax",
    "sparsemax",
    "temperature",
    "time_bias",
    "topk",
    "where",
    "window",
]
