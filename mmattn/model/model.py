"""The whole model in one readable forward: encode, fuse, heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mmattn import schema
from mmattn.attention.language.program import parse
from mmattn.attention.layer.head_gates import prune, prune_to_match
from mmattn.attention.layer.quantization import quantize, quantize_to_match
from mmattn.config import ModelConfig
from mmattn.errors import InputError, did_you_mean
from mmattn.files import write_json
from mmattn.model.components import build_core, build_encoders, build_heads
from mmattn.model.weights import check_weights, write_weights
from mmattn.types import Fused, Sample, Tokens

if TYPE_CHECKING:
    from mmattn.encoders.base import Encoder
    from mmattn.encoders.model_inputs import ModelInputs
    from mmattn.fusion.core import FusionCore

__all__ = ["Model"]

FORMAT_VERSION = 1


class Model(nn.Module):
    """Encoders, one shared fusion core, heads.

    Args:
        encoders: modality -> encoder.
        core: the fusion core, built for the token widths of these encoders.
        heads: name -> head.
        config: the configuration of all these parts; needed to save the model.

    Example:
        See `mmattn.model.build.build_model`, which builds a model from a configuration.
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
        """Encode samples.

        Args:
            samples: B samples; a modality that a sample lacks gives it no tokens.

        Returns:
            modality -> tokens of the B samples.

        Raises:
            Unreadable: a content cannot be read.
        """
        return {
            name: encoder([sample.content.get(self._source(name)) for sample in samples])
            for name, encoder in self.encoders.items()
        }

    def _source(self, modality: str) -> str:
        """The key of `Sample.content` that a modality's encoder reads."""
        return (self.config.encoders[modality].source if self.config else "") or modality

    def tokens(self, model_inputs: ModelInputs, sample_ids: Tensor) -> dict[str, Tokens]:
        """Return the tokens of some samples of a dataset; trainable encoders run now.

        Args:
            model_inputs: stored tokens and contents of the whole dataset.
            sample_ids: [B] int64 indices of the samples.

        Returns:
            modality -> tokens of the B samples, on the model's device.
        """
        device = self.device
        selected = model_inputs.select_tokens(sample_ids, self.encoders)
        return {name: tokens.to(device) for name, tokens in selected.items()}

    @property
    def device(self) -> torch.device:
        """The device of the core's weights."""
        return next(self.core.parameters()).device

    def fuse(self, tokens_by_modality: Mapping[str, Tokens], context: Any = None) -> Fused:
        """Fuse tokens from the encoders or the feature store.

        Args:
            tokens_by_modality: modality -> tokens of B samples; modalities may be missing.
            context: context of the attention programs.

        Returns:
            The fused tokens, and one pooled vector a sample [B, dim].
        """
        return self.core(tokens_by_modality, context)

    def forward(self, samples: Sequence[Sample], context: Any = None) -> dict[str, Any]:
        """Encode and fuse samples, and apply every head.

        Args:
            samples: B samples.
            context: context of the attention programs.

        Returns:
            head name -> the head's output.
        """
        fused = self.fuse(self.encode(samples), context)
        return {name: head(fused) for name, head in self.heads.items()}

    def head(self, name: str) -> Any:
        """Return the head of that name.

        Args:
            name: name of a head.

        Raises:
            InputError: no head has that name; the nearest one is suggested.
        """
        if name not in self.heads:
            raise InputError(f"model: no head {name!r}.{did_you_mean(name, self.heads)}")
        return self.heads[name]

    def trained_state(self) -> dict[str, Tensor]:
        """Return all weights except those of frozen encoders, which their hashes identify."""
        frozen = tuple(f"encoders.{name}." for name, encoder in self.encoders.items() if encoder.frozen)
        return {name: value for name, value in self.state_dict().items() if not name.startswith(frozen)}

    def load_trained(self, state: Mapping[str, Tensor]) -> None:
        """Load weights from `trained_state`.

        Attention heads that were pruned before the weights were saved are removed here too, and layers that
        were quantised are quantised.

        Args:
            state: name -> weight; complete but for frozen encoders.

        Raises:
            InputError: weights are missing, left over, or of another shape; or the state has attention heads
                that this model has pruned.
        """
        prune_to_match(self, state)
        quantize_to_match(self, state)
        self.core.edges.allocate_buffers(state, "core.edges.")
        check_weights(self.trained_state(), state, "model", "model")
        self.load_state_dict(dict(state), strict=False)

    def prune(self) -> dict[str, tuple[int, ...]]:
        """Remove the attention heads whose `head_gate` is closed; the model's output does not change.

        The model can be saved and loaded as before. Optimizers have to be created anew.

        Returns:
            Name of the attention layer -> indices of the heads that were removed.
        """
        return prune(self)

    def quantize(self) -> tuple[str, ...]:
        """Quantise the linear layers of core, heads and trained encoders to int8, for inference on the CPU.

        Frozen encoders stay as they are, so that stored tokens remain valid. The model can be saved and
        loaded as before.

        Returns:
            Names of the quantised layers (see `mmattn.attention.quantize`).
        """
        trained = {name: encoder for name, encoder in self.encoders.items() if not encoder.frozen}
        parts = {"core": self.core, "heads": self.heads, "encoders": nn.ModuleDict(trained)}
        quantized = quantize(nn.ModuleDict(parts))
        self.eval()
        return quantized

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json`, then `model.safetensors`, each atomically.

        The configuration holds the fingerprint of every encoder's card, so that a loaded model is never fed
        with tokens of other weights.

        Args:
            folder: where to write; created if needed.

        Raises:
            InputError: the model has no configuration.
        """
        write_json(Path(folder) / "config.json", self.description())
        write_weights(Path(folder) / "model.safetensors", self.trained_state())

    def description(self) -> dict[str, Any]:
        """Return everything but the weights as JSON values: the configuration and the fingerprints.

        Raises:
            InputError: the model has no configuration, because it was not built from one.
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
            "program": parse(self.config.fusion.program).fingerprint(),
        }

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Model:
        """Load a model from `save_pretrained`, in evaluation mode.

        Args:
            folder: folder of the model.

        Raises:
            InputError: the folder holds no model, one of a newer format, or an encoder differs from the one
                that the model was trained with (the message has both fingerprints).
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
        """Build a model from `description`, with new weights.

        Args:
            description: the result of `description`; other keys are ignored.
            where: prefix of the error messages.

        Raises:
            InputError: another format, or an encoder differs from the one that the model was trained with.
            MissingDependency: an encoder needs something that is not installed.
        """
        if description.get("format") != FORMAT_VERSION:
            raise InputError(f"{where}: got format {description.get('format')!r}, expected {FORMAT_VERSION}")
        config = schema.from_mapping(ModelConfig, description["model"], location=where)
        encoders = build_encoders(config.encoders)
        for name, encoder in encoders.items():
            fingerprint, expected = encoder.describe().fingerprint(), description["encoders"][name]
            if fingerprint != expected:
                raise InputError(
                    f"{where}: encoder {name!r} is {fingerprint[:12]} here, expected {expected[:12]}, "
                    "the one that the model was trained with"
                )
        widths = {name: encoder.dim for name, encoder in encoders.items()}
        return cls(encoders, build_core(widths, config), build_heads(config), config)
