"""Attention as a program: a value that says who attends to whom and how, and a layer that runs it.

from mmattn import attention as A

program = A.Program(score=A.dot() >> A.modality_bias("pair"), mask=A.route({"*": ["text", "image"]}))
layer = A.Attention(program, dim=64, heads=4)
"""

from mmattn.attention.analysis.modality_flow import flow
from mmattn.attention.analysis.recording import LayerWeights, Recording, record
from mmattn.attention.analysis.rollout import Paths, relevance, rollout
from mmattn.attention.backends.selection import Plan, backends
from mmattn.attention.language.biases import alibi, box_bias, graph_bias, modality_bias, relative, time_bias
from mmattn.attention.language.extensions import register_mask, register_score
from mmattn.attention.language.mask_algebra import Mask
from mmattn.attention.language.modality_masks import global_tokens, present, route, where
from mmattn.attention.language.norms import entmax15, sigmoid, softmax, sparsemax, topk
from mmattn.attention.language.parameters import dynamic, learned
from mmattn.attention.language.position_masks import blocks, causal, dilated, full, window
from mmattn.attention.language.program import Program, heads, parse
from mmattn.attention.language.scores import additive, bilinear, cosine, dot, head_gate, softcap, temperature
from mmattn.attention.language.term import Term
from mmattn.attention.layer.attention import Attention
from mmattn.attention.layer.exact_weights import Explanation, Row, Rows, rows
from mmattn.attention.layer.head_gates import gate_penalty, layers, prune, prune_to_match
from mmattn.attention.layer.kv_cache import Cache
from mmattn.attention.layer.nan_checks import debug
from mmattn.attention.layer.quantization import quantize, quantize_to_match
from mmattn.attention.layer.reprogram import reprogram
from mmattn.attention.testing.backend_check import CheckReport, Disagreement, check

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
    "prune_to_match",
    "quantize",
    "quantize_to_match",
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
