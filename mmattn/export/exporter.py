"""Writing a model as one file that runs without this library's training code, or without PyTorch."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmattn.encoders.pretrained import import_optional
from mmattn.errors import InputError
from mmattn.export.network import PaddedModel
from mmattn.export.runtime import DESCRIPTION_FILE, FORMAT, SUFFIXES
from mmattn.files import atomic_path
from mmattn.model.model import Model

__all__ = ["export"]

# Samples and lengths of the example that is traced: primes, so that no two are taken for one.
_EXAMPLE_SAMPLES, _EXAMPLE_LENGTHS = 3, (7, 11, 13, 17, 19, 23, 29, 31)


def export(
    model: Model, path: str | Path, *, heads: Sequence[str] | None = None, task: str | None = None
) -> None:
    """Write encoders, core and heads as one graph for any number of samples and any lengths.

    Jagged tokens become padded ones for it: a rectangle a modality, in which nobody attends to padding, so
    that every sample gives what it gives alone. Weights of frozen encoders are in the file, too. The file
    is a `torch.export` program (.pt2) or ONNX (.onnx); `Exported.load` reads either.

    Args:
        model: of encoders that have a padded form (tiny-text, tiny-image, log-mel, and pictures through timm
            networks), and of heads that read the joint vector, the modalities' vectors, or have a
            `forward_padded`.
        path: ends in .pt2 or .onnx.
        heads: which; left out, all.
        task: of programs that ask for one, as a constant.

    Raises:
        InputError: another ending, or a part of the model that cannot be exported: an encoder, a head, a
            word of its attention program, quantised weights; it is named.
        MissingDependency: ONNX is not installed.

    Example:
        See `Exported`.
    """
    suffix = Path(path).suffix
    if suffix not in SUFFIXES:
        raise InputError(f"export: got {str(path)!r}, expected a name that ends in {' or '.join(SUFFIXES)}")
    network = PaddedModel(model, heads, task).eval()
    example = _example_inputs(network)
    description = _description(model, network, example)
    program = _trace(network, example)
    with atomic_path(path) as temporary:
        if suffix == ".pt2":
            with temporary.open("wb") as file:
                torch.export.save(program, file, extra_files={DESCRIPTION_FILE: json.dumps(description)})
        else:
            _write_onnx(program, description, temporary)


def _example_inputs(network: PaddedModel) -> dict[str, Tensor]:
    """Inputs to trace with: samples that have nothing, in rectangles of different lengths."""
    inputs: dict[str, Tensor] = {}
    for number, (name, form) in enumerate(network.encoders.items()):
        length = _EXAMPLE_LENGTHS[number % len(_EXAMPLE_LENGTHS)] + network.min_length
        arrays = form.collate(form.reader(form.settings()), [None] * _EXAMPLE_SAMPLES, length)
        inputs |= {f"{name}.{tensor}": value for tensor, value in arrays.items()}
    return inputs


def _trace(network: PaddedModel, example: dict[str, Tensor]) -> torch.export.ExportedProgram:
    samples = torch.export.Dim("samples", min=1)
    shapes: dict[str, dict[int, Any]] = {}
    for name, form in network.encoders.items():
        for tensor, lengths in form.dynamic_dims.items():
            shapes[f"{name}.{tensor}"] = {0: samples} | dict.fromkeys(lengths, torch.export.Dim.AUTO)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one fused operator that no exporter knows
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's own, about its tracing
            return torch.export.export(network, (example,), dynamic_shapes=(shapes,), strict=False)
    except InputError:
        raise
    except Exception as error:  # what tracing meets in plugins can be anything
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(f"export: PyTorch cannot trace this model: {reason}") from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _write_onnx(program: torch.export.ExportedProgram, description: dict[str, Any], path: Path) -> None:
    for name in ("onnx", "onnxscript"):
        import_optional(name, "onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        written = torch.onnx.export(
            program,
            dynamo=True,
            input_names=description["inputs"],
            output_names=description["outputs"],
            verbose=False,
        )
    if written is None:
        raise InputError("export: PyTorch gave no ONNX program")
    written.model.metadata_props[DESCRIPTION_FILE] = json.dumps(description)
    written.save(path, external_data=False)


def _description(model: Model, network: PaddedModel, example: dict[str, Tensor]) -> dict[str, Any]:
    """What `Exported` has to know beside the graph."""
    return {
        "format": FORMAT,
        "modalities": {
            name: {"form": form.name, "content": model._source(name), "settings": form.settings()}
            for name, form in network.encoders.items()
        },
        "least": network.min_length,
        "inputs": network.input_names,
        "outputs": network.output_names(example),
        "names": {
            name: list(names)
            for name, head in network.heads.items()
            if (names := getattr(head, "classes", None) or getattr(head, "labels", None))
        },
    }
