"""The whole model in one readable forward: encode, fuse, heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mmattn import attention, schema
from mmattn.config import ModelConfig
from mmattn.encoders.base import Encoder
from mmattn.encoders.model_inputs import ModelInputs
from mmattn.errors import InputError, did_you_mean
from mmattn.files import write_json
from mmattn.fusion.core import FusionCore
from mmattn.model.weights import check_weights, write_weights
from mmattn.types import Fused, Sample, Tokens

__all__ = ["Model"]

FORMAT_VERSION = 1


class Model(nn.Module):
    """Encoders, one shared fusion core, heads.

    Args:
        encoders: modality -> encoder; the keys are looked up in `Sample.source`.
        core: the fusion core, built for the widths of these encoders.
        heads: name -> head.
        config: what built all this; needed to save the model.

    Example:
        See `mmattn.model.build.build_model`, which puts one together from a configuration.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        core: FusionCore,
        heads: Mapping[str, nn.Module],
        config: ModelConfig | None = None,
    ):
        super().__init__()
        self.config = config
        self.encoders: Any = nn.ModuleDict(encoders)  # modality -> Encoder
        self.core = core
        self.heads: Any = nn.ModuleDict(heads)  # name -> head

    def encode(self, samples: Sequence[Sample]) -> dict[str, Tokens]:
        """Tokens of each modality, [B] samples each; what a sample does not have gives no tokens."""
        return {
            name: encoder([sample.content.get(self._source(name)) for sample in samples])
            for name, encoder in self.encoders.items()
        }

    def _source(self, modality: str) -> str:
        """The key of `Sample.source` that a modality's encoder reads."""
        return (self.config.encoders[modality].source if self.config else "") or modality

    def tokens(self, model_inputs: ModelInputs, sample_ids: Tensor) -> dict[str, Tokens]:
        """Tokens of the named samples of a data set, stored or made now, on the model's device."""
        device = self.device
        selected = model_inputs.select_tokens(sample_ids, self.encoders)
        return {name: tokens.to(device) for name, tokens in selected.items()}

    @property
    def device(self) -> torch.device:
        """Where the core's weights are."""
        return next(self.core.parameters()).device

    def fuse(self, tokens_by_modality: Mapping[str, Tokens], context: Any = None) -> Fused:
        """Fuse tokens that encoders (or the feature store) made."""
        return self.core(tokens_by_modality, context)

    def forward(self, samples: Sequence[Sample], context: Any = None) -> dict[str, Any]:
        """Samples in, what each head says out."""
        fused = self.fuse(self.encode(samples), context)
        return {name: head(fused) for name, head in self.heads.items()}

    def head(self, name: str) -> Any:
        """The head of that name.

        Raises:
            InputError: there is none; the nearest name is suggested.
        """
        if name not in self.heads:
            raise InputError(f"model: no head {name!r}.{did_you_mean(name, self.heads)}")
        return self.heads[name]

    def trained_state(self) -> dict[str, Tensor]:
        """All weights but those of frozen encoders, which are known by their hash."""
        frozen = tuple(f"encoders.{name}." for name, encoder in self.encoders.items() if encoder.frozen)
        return {name: value for name, value in self.state_dict().items() if not name.startswith(frozen)}

    def load_trained(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights that `trained_state` gave; everything but frozen encoders has to be there.

        Heads that were pruned before those weights were saved are removed here too, and layers that were
        quantised are quantised.

        Raises:
            InputError: weights are missing, left over, or of another shape; or they have heads that were
                pruned here.
        """
        attention.prune_to_match(self, state)
        attention.quantize_to_match(self, state)
        self.core.edges.allocate_buffers(state, "core.edges.")
        check_weights(self.trained_state(), state, "model", "model")
        self.load_state_dict(dict(state), strict=False)

    def prune(self) -> dict[str, tuple[int, ...]]:
        """Remove the heads whose `head_gate` is closed; what the model computes does not change.

        The model can be saved and loaded as before. Optimizers have to be made anew.

        Returns:
            Name of the attention layer -> the numbers of the heads that were removed.
        """
        return attention.prune(self)

    def quantize(self) -> tuple[str, ...]:
        """Turn the linear layers of core, heads and trained encoders to int8, for inference on the CPU.

        Frozen encoders stay: tokens that were stored before stay those of the model. It can be saved and
        loaded as before.

        Returns:
            Names of the layers that were turned (see `mmattn.attention.quantize`).
        """
        trained = {name: encoder for name, encoder in self.encoders.items() if not encoder.frozen}
        parts = {"core": self.core, "heads": self.heads, "encoders": nn.ModuleDict(trained)}
        turned = attention.quantize(nn.ModuleDict(parts))
        self.eval()
        return turned

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json`, then `model.safetensors`, each atomically.

        The configuration names every encoder by its card, so that a loaded model is never fed with
        tokens of other weights.
        """
        write_json(Path(folder) / "config.json", self.description())
        write_weights(Path(folder) / "model.safetensors", self.trained_state())

    def description(self) -> dict[str, Any]:
        """All but the weights, as JSON values: the configuration, and what made it (see `from_description`).

        Raises:
            InputError: the model was put together by hand.
        """
        if self.config is None:
            raise InputError("model: has no configuration to save; build it with mmattn.model.build")
        encoders = {
            name: replace(self.config.encoders[name], options=encoder.options())
            for name, encoder in self.encoders.items()
        }
        return {
            "format": FORMAT_VERSION,
            "model": schema.to_mapping(replace(self.config, encoders=encoders)),
            "encoders": {name: encoder.describe().fingerprint() for name, encoder in self.encoders.items()},
            "program": attention.parse(self.config.fusion.program).fingerprint(),
        }

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Model:
        """Build the model that `save_pretrained` wrote, in evaluation mode.

        Raises:
            InputError: the folder holds no model, a newer format, or an encoder that is not the one
                the model was trained with (both fingerprints are named).
            MissingDependency: an encoder needs something that is not installed.
        """
        path = Path(folder) / "config.json"
        model = cls.from_description(schema.read_yaml(path), where=str(path))  # JSON is YAML
        try:
            model.load_trained(load_file(str(Path(folder) / "model.safetensors")))
        except (OSError, SafetensorError) as error:
            raise InputError(f"{folder}: model.safetensors cannot be read ({error})") from error
        return model.eval()

    @classmethod
    def from_description(cls, description: Mapping[str, Any], where: str = "model") -> Model:
        """Build the model that `description` describes, with new weights.

        Args:
            description: as `description` gave it; keys of others are left alone.
            where: what errors call it.

        Raises: as `from_pretrained`.
        """
        from mmattn.model.build import build_encoders, build_model

        if description.get("format") != FORMAT_VERSION:
            raise InputError(f"{where}: got format {description.get('format')!r}, expected {FORMAT_VERSION}")
        config = schema.from_mapping(ModelConfig, description["model"], location=where)
        encoders = build_encoders(config.encoders)
        for name, encoder in encoders.items():
            found, expected = encoder.describe().fingerprint(), description["encoders"][name]
            if found != expected:
                raise InputError(
                    f"{where}: encoder {name!r} is {found[:12]} here, expected {expected[:12]}, "
                    "the one that the model was trained with"
                )
        return build_model(encoders, config)
