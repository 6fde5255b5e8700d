"""The whole model as one function of padded tensors: what is exported."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from mmattn.attention.execution.padded import check_supports_padding
from mmattn.attention.language.norms import TopK
from mmattn.attention.language.term import Term
from mmattn.attention.layer.attention import Attention
from mmattn.attention.layer.quantization import QuantizedLinear
from mmattn.errors import InputError
from mmattn.export.padded_encoders import padded_encoder_for
from mmattn.export.padded_fusion import fuse_padded
from mmattn.model.model import Model

__all__ = ["PaddedModel"]


# With it no slice of a rectangle is empty or of length 1, which tracing would treat apart.
_MIN_LENGTH = 4


class PaddedModel(nn.Module):
    """Encoders, core and heads over padded tensors, in evaluation mode, on the CPU.

    Args:
        model: whose weights are copied.
        heads: names of heads; left out, all.
        task: of the programs, where they ask for one.

    Raises:
        InputError: a part that has no padded form; it is named.
    """

    def __init__(self, model: Model, heads: Sequence[str] | None = None, task: str | None = None):
        super().__init__()
        _check_exportable(model)
        copied = copy.deepcopy(model).cpu().eval()
        self.encoders: Any = nn.ModuleDict(
            {name: padded_encoder_for(each) for name, each in copied.encoders.items()}
        )
        self.core = copied.core
        self.heads: Any = nn.ModuleDict(
            {name: copied.head(name) for name in (copied.heads if heads is None else heads)}
        )
        self.task = task
        self.requires_grad_(False)

    @property
    def min_length(self) -> int:
        """The shortest rectangle of a modality: exporters take short lengths for constants, and `topk(k)`
        chooses among at least k keys."""
        return max([_MIN_LENGTH, *(term.k for term in _terms(self.core) if isinstance(term, TopK))])

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs, modality and tensor."""
        return [f"{name}.{tensor}" for name, form in self.encoders.items() for tensor in form.dynamic_dims]

    def output_names(self, inputs: dict[str, Tensor]) -> list[str]:
        """Names of what `forward` gives.

        Args:
            inputs: name -> padded input.
        """
        return list(self(inputs))

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The joint vectors as "pooled" [B, D], "presence" [B, M], and what each head says under its name.

        Args:
            inputs: as `input_names` names them, of B samples.
        """
        parts = {
            name: form(**{tensor: inputs[f"{name}.{tensor}"] for tensor in form.dynamic_dims})
            for name, form in self.encoders.items()
        }
        fused = fuse_padded(self.core, parts, self.task)
        outputs = {"pooled": fused.pooled, "presence": fused.presence}
        for name, head in self.heads.items():
            if hasattr(head, "forward_padded"):
                answer = head.forward_padded(fused.padded)
            else:
                answer = head(replace(fused, head=name))
            outputs |= _flatten_output(name, answer)
        return outputs


def _flatten_output(name: str, answer: Any) -> dict[str, Tensor]:
    if isinstance(answer, Tensor):
        return {name: answer}
    if isinstance(answer, dict) and all(isinstance(part, Tensor) for part in answer.values()):
        return {f"{name}.{key}": part for key, part in answer.items()}
    raise InputError(
        f"export: the head {name!r} gave {type(answer).__name__}, expected a tensor or a dict of them"
    )


def _terms(model: nn.Module) -> list[Term]:
    layers = [module for module in model.modules() if isinstance(module, Attention)]
    return [term for layer in layers for term in layer.program.walk()]


def _check_exportable(model: Model) -> None:
    """Refuse what no padded form can say, before anything is traced."""
    for where, module in model.named_modules():
        if isinstance(module, QuantizedLinear):
            raise InputError(f"export: {where} is quantised; export the model as it was before that")
        if isinstance(module, Attention):
            check_supports_padding(module)
