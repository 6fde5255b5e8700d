"""Vectors of raw texts, images and clips, from the encoders of a finished run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmattn import schema
from mmattn.encoders.model_inputs import ModelInputs, prepare_inputs
from mmattn.errors import InputError, did_you_mean
from mmattn.files import sha256_file
from mmattn.model.build import choose_device
from mmattn.model.model import Model
from mmattn.types import Sample, Tokens

__all__ = ["RunEncoder", "model_folder", "model_provenance"]


class RunEncoder:
    """Vectors of samples, as output by a head of a trained model; any modality may be absent.

    Args:
        folder: folder that `Model.save_pretrained` wrote.
        head: name of the head; "" means the only one.
        model: the same model, if it is in memory already; None loads it from the folder.

    Raises:
        InputError: no model there, an encoder that has changed since, or no such head.
    """

    def __init__(self, folder: str | Path, head: str = "", model: Model | None = None):
        self.folder = Path(folder)
        self.model = (model or Model.from_pretrained(folder).to(choose_device())).eval()
        heads = list(self.model.heads)
        if not head and len(heads) != 1:
            raise InputError(f"{folder}: the model has heads {', '.join(heads)}; name one of them")
        self.head = head or heads[0]
        self.model.head(self.head)

    @classmethod
    def from_run(cls, run: str | Path, seed: int | None = None, head: str = "") -> RunEncoder:
        """Load the model of a run.

        Args:
            run: folder of a finished run, or of a model.
            seed: seed of the run; None means the first one.
            head: name of the head; "" means the only one.
        """
        return cls(model_folder(run, seed), head)

    @cached_property
    def provenance(self) -> dict[str, str]:
        """Provenance of the vectors, part -> fingerprint: encoders, program, weights, head."""
        return model_provenance(self.folder, self.head)

    @cached_property
    def sources(self) -> dict[str, str]:
        """Modality -> key of `Sample.content` that its encoder reads."""
        configs = {} if self.model.config is None else self.model.config.encoders
        return {
            name: (configs[name].source if name in configs else "") or name for name in self.model.encoders
        }

    @torch.inference_mode()
    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """Encode samples that all have content.

        Args:
            samples: B samples, each with content that the encoders can read.

        Returns:
            [B, D] float32 vectors.

        Raises:
            InputError: a sample without such content, content under an unknown name, or content that cannot
                be read.
        """
        known = set(self.sources.values())
        for sample in samples:
            for name in sample.content:
                if name not in known:
                    raise InputError(
                        f"sample {sample.id!r}: no encoder reads {name!r}.{did_you_mean(name, known)}"
                    )
        parts = self.model.encode(samples)
        has_content = _has_tokens(parts)
        if not bool(has_content.all()):
            empty = samples[int((~has_content).nonzero()[0])]
            raise InputError(
                f"sample {empty.id!r}: has nothing to encode, expected one of {', '.join(sorted(known))}"
            )
        return self._vectors(parts)

    def read_inputs(
        self, samples: Sequence[Sample], features: str | Path, *, progress: bool = True
    ) -> ModelInputs:
        """Run the encoders over many samples, with a feature store.

        Contents that cannot be read are listed in the `rejected` field of the result.

        Args:
            samples: the samples.
            features: folder of the feature store.
            progress: whether to show progress bars.
        """
        return prepare_inputs(samples, self.model.encoders, features, self.sources, progress=progress)

    @torch.inference_mode()
    def vectors(self, inputs: ModelInputs, batch_size: int = 512) -> tuple[np.ndarray, np.ndarray]:
        """Compute the vectors of encoded samples.

        Args:
            inputs: encoder outputs of B samples, from `read_inputs`.
            batch_size: samples per batch.

        Returns:
            [B, D] float32 vectors, and [B] boolean, whether the sample has content; the vector of a sample
            without content is meaningless.
        """
        result, has_content = [], []
        for chosen in torch.arange(len(inputs)).split(batch_size):
            parts = self.model.tokens(inputs, chosen)
            has_content.append(_has_tokens(parts).numpy())
            result.append(self._vectors(parts))
        return np.concatenate(result), np.concatenate(has_content)

    def _vectors(self, parts: Mapping[str, Tokens]) -> np.ndarray:
        given = self.model.head(self.head)(self.model.fuse(parts))
        if not isinstance(given, Tensor) or given.dim() != 2:
            raise InputError(f"head {self.head!r} gives no vectors [B, D], so nothing can be found with it")
        return given.float().cpu().numpy()


def model_folder(run: str | Path, seed: int | None = None) -> Path:
    """Folder of the saved model of a run.

    Args:
        run: folder of a finished run, or of a model.
        seed: seed of the run; None means the first one. Ignored if `run` is the folder of a model.

    Raises:
        InputError: no model is saved there, or none of this seed.
    """
    run = Path(run)
    if (run / "config.json").is_file():
        return run
    seeds = sorted(int(path.parts[-3].removeprefix("seed-")) for path in run.glob("seed-*/model/config.json"))
    if not seeds:
        raise InputError(f"{run}: holds no finished run, expected seed-0/model/config.json or the like")
    if seed is not None and seed not in seeds:
        raise InputError(f"{run}: no seed {seed}, expected one of {', '.join(map(str, seeds))}")
    return run / f"seed-{seeds[0] if seed is None else seed}" / "model"


def model_provenance(folder: str | Path, head: str) -> dict[str, str]:
    """Provenance of the vectors of a saved model, part -> fingerprint, without building the model.

    Args:
        folder: folder of the model.
        head: name of the head.
    """
    written = schema.read_yaml(Path(folder) / "config.json")
    encoders = {f"encoder {name}": str(value)[:16] for name, value in written["encoders"].items()}
    weights = sha256_file(Path(folder) / "model.safetensors")[:16]
    return {**encoders, "program": str(written["program"])[:16], "weights": weights, "head": head}


def _has_tokens(parts: Mapping[str, Tokens]) -> Tensor:
    """[B] boolean on the CPU, whether the sample has a token of any modality."""
    return torch.stack([tokens.lengths > 0 for tokens in parts.values()]).any(0).cpu()
