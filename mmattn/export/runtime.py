"""Running an exported file: samples in, arrays out."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmattn.encoders.pretrained import import_optional
from mmattn.errors import InputError
from mmattn.export.padded_encoders import PADDED_ENCODERS
from mmattn.types import Sample

__all__ = ["DESCRIPTION_FILE", "FORMAT", "SUFFIXES", "ExportedModel"]

FORMAT = 1
DESCRIPTION_FILE = "mmattn.json"
SUFFIXES = (".pt2", ".onnx")

RunFn = Callable[[dict[str, Tensor]], dict[str, np.ndarray]]


class ExportedModel:
    """A model that `export` wrote. It reads samples as the model did, pads them, and runs the graph.

    Args:
        run: from padded inputs by name to outputs by name.
        description: of encoders, heads and inputs, as the file holds it.

    Attributes:
        class_names: head -> the names of what it gives, for heads that have such (classes, labels).
        output_names: the names of all that it gives.

    Example:
        >>> import tempfile
        >>> from mmattn.model.build import build_encoders, build_model
        >>> from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
        >>> from mmattn.export import export
        >>> encoders = {"text": EncoderConfig("tiny-text", {"dim": 8})}
        >>> heads = {"kind": HeadConfig("classification", {"classes": ["odd", "even"]})}
        >>> config = ModelConfig(encoders, FusionConfig(dim=8, layers=1, heads=2), heads)
        >>> model = build_model(build_encoders(encoders), config)
        >>> path = Path(tempfile.mkdtemp()) / "model.pt2"
        >>> export(model, path)
        >>> exported = ExportedModel.load(path)
        >>> said = exported.run([Sample("1", {"text": "seven"}), Sample("2", {"text": "twenty one"})])
        >>> said["kind"].shape, exported.class_names["kind"]
        ((2, 2), ('odd', 'even'))
    """

    def __init__(self, run: RunFn, description: Mapping[str, Any]):
        self._run = run
        self._min_length: int = description["least"]
        self._readers = {
            modality: (
                PADDED_ENCODERS[part["form"]],
                PADDED_ENCODERS[part["form"]].reader(part["settings"]),
                part["content"],
            )
            for modality, part in description["modalities"].items()
        }
        self.output_names = tuple(description["outputs"])
        self.class_names = {head: tuple(names) for head, names in description["names"].items()}

    @property
    def modalities(self) -> tuple[str, ...]:
        """What it reads; any may be absent from a sample."""
        return tuple(self._readers)

    @classmethod
    def load(cls, path: str | Path) -> ExportedModel:
        """Open a .pt2 file with PyTorch, or an .onnx file with ONNX Runtime, on the CPU.

        Args:
            path: of a .pt2 or .onnx file.

        Raises:
            InputError: no such file, or none that `export` wrote.
            MissingDependency: ONNX Runtime is not installed.
        """
        path = Path(path)
        if path.suffix not in SUFFIXES or not path.is_file():
            raise InputError(f"{path}: expected a file that ends in {' or '.join(SUFFIXES)}")
        run, text = (_open_program if path.suffix == ".pt2" else _open_onnx)(path)
        description = json.loads(text) if text else {}
        if description.get("format") != FORMAT:
            raise InputError(
                f"{path}: got format {description.get('format')!r}, expected {FORMAT}: a file that "
                "mmattn.export wrote"
            )
        return cls(run, description)

    def inputs(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """The padded tensors of some samples, as the graph takes them.

        Args:
            samples: B samples.

        Raises:
            Unreadable: a content that is there cannot be read.
        """
        inputs: dict[str, Tensor] = {}
        for modality, (form, reader, source) in self._readers.items():
            raw = [sample.content.get(source) for sample in samples]
            read = [None if content is None else reader.read(content) for content in raw]
            arrays = form.collate(reader, read, self._min_length)
            inputs |= {f"{modality}.{name}": tensor for name, tensor in arrays.items()}
        return inputs

    def run(self, samples: Sequence[Sample], batch_size: int = 64) -> dict[str, np.ndarray]:
        """What the model says of the samples: "pooled", "presence", and each head's under its name.

        Args:
            samples: at least one; any modality may be absent.
            batch_size: samples that run at once.

        Raises:
            InputError: no sample.
            Unreadable: a content that is there cannot be read.
        """
        if not samples:
            raise InputError("exported model: got no samples, expected at least one")
        parts = [
            self._run(self.inputs(samples[first : first + batch_size]))
            for first in range(0, len(samples), batch_size)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _open_program(path: Path) -> tuple[RunFn, str]:
    extra = {DESCRIPTION_FILE: ""}
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about buffers that nobody writes to
            module = torch.export.load(file, extra_files=extra).module()
    except Exception as error:  # a damaged archive fails in many ways
        raise InputError(f"{path}: no program that torch.export wrote, or a damaged one") from error

    def run(inputs: dict[str, Tensor]) -> dict[str, np.ndarray]:
        with torch.no_grad():
            return {name: value.numpy() for name, value in module(inputs).items()}

    return run, extra[DESCRIPTION_FILE]


def _open_onnx(path: Path) -> tuple[RunFn, str]:
    onnxruntime = import_optional("onnxruntime", "onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no class of their own
        raise InputError(f"{path}: no ONNX model, or a damaged one") from error
    given = {item.name for item in session.get_inputs()}
    names = [item.name for item in session.get_outputs()]

    def run(inputs: dict[str, Tensor]) -> dict[str, np.ndarray]:
        arrays = {name: value.numpy() for name, value in inputs.items() if name in given}
        return dict(zip(names, session.run(names, arrays), strict=True))

    return run, session.get_modelmeta().custom_metadata_map.get(DESCRIPTION_FILE, "")
