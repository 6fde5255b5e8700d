"""mmattn for Hugging Face: the whole model as a `PreTrainedModel`, for `Trainer`, accelerate and peft."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from mmattn.errors import InputError, did_you_mean
from mmattn.heads.contrastive.alignment import single_modality_views
from mmattn.model.model import Model
from mmattn.types import Fused, Sample, Tokens

__all__ = ["MmattnConfig", "MmattnModel", "MmattnOutput", "collate"]

_HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "force_download")
_AUTO_MODEL_OPTIONS = (
    "trust_remote_code",
    "adapter_kwargs",
)  # what AutoModel adds, and what changes nothing here


class MmattnConfig(PreTrainedConfig):
    """What `Model.description` says, and which head answers.

    Args:
        format: version.
        model: configuration of the model, as `Model.description` returns it.
        encoders: modality -> fingerprint of its encoder.
        program: attention program as text, for readers.
        head: name of the head that answers.
        **kwargs: of `PretrainedConfig`.
    """

    model_type = "mmattn"

    def __init__(
        self,
        format: int = 1,
        model: Mapping[str, Any] | None = None,
        encoders: Mapping[str, str] | None = None,
        program: str = "",
        head: str = "",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.format = format
        self.model = dict(model or {})
        self.encoders = dict(encoders or {})
        self.program = program
        self.head = head

    @property
    def description(self) -> dict[str, Any]:
        """The part that builds the model."""
        return {key: getattr(self, key) for key in ("format", "model", "encoders", "program")}


@dataclass
class MmattnOutput(ModelOutput):
    """What `MmattnModel` says.

    Args:
        loss: of the head, where targets were given.
        vectors: what the head says of each sample, one row each; not computed in training.
    """

    loss: Tensor | None = None
    vectors: Tensor | None = None


class MmattnModel(PreTrainedModel):
    """The whole of mmattn (encoders, fusion core, heads) as Hugging Face has models.

    `save_pretrained` writes `config.json` and `model.safetensors` as `Model.save_pretrained` does, so
    each reads what the other wrote: a run of `mmattn fit` can be tuned by `Trainer`, and what `Trainer`
    wrote goes into `mmattn embed`. No remote code is needed where mmattn is installed; `AutoModel` knows
    the model once this module is imported. `peft.get_peft_model` adapts it: attention projections are
    called `q_proj`, `k_proj`, `v_proj`, `o_proj`, encoders that are not frozen have the names of their
    own networks under `encoders.<modality>.trained`.

    Args:
        config: of the model.
        model: the model; None builds one from the configuration.

    Raises:
        InputError: no such head, or encoders that are not the ones of the configuration.

    Example:
        >>> model = MmattnModel.example()
        >>> samples = [Sample("1", {"text": "sette"}), Sample("2", {"text": "seven"})]
        >>> model(samples).vectors.shape
        torch.Size([2, 64])
        >>> model.train()(samples, group=torch.tensor([0, 0])).loss.dim()
        0
    """

    config_class = MmattnConfig
    accepts_loss_kwargs = False  # the keywords of forward are the head's: Trainer is to add none

    def __init__(self, config: MmattnConfig, model: Model | None = None):
        super().__init__(config)
        model = Model.from_description(config.description, "MmattnConfig") if model is None else model
        if not config.head and len(model.heads) == 1:
            config.head = next(iter(model.heads))
        model.head(config.head)  # says now if there is none
        self.encoders, self.core, self.heads = model.encoders, model.core, model.heads
        self._model_config = model.config
        self.post_init()

    @classmethod
    def from_model(cls, model: Model, head: str = "") -> MmattnModel:
        """An mmattn model in Hugging Face's dress; the parts are shared.

        Args:
            model: built by `mmattn.model.build`, so that it has a configuration.
            head: the one that is trained and answers; left out, the only one.
        """
        return cls(MmattnConfig(**model.description(), head=head), model)

    @property
    def mmattn(self) -> Model:
        """The same parts as mmattn has models: for `mmattn.training`, `mmattn.retrieval` and the rest."""
        return Model(self.encoders, self.core, self.heads, self._model_config)

    def forward(
        self,
        samples: Sequence[Sample] | None = None,
        tokens: Mapping[str, Tokens] | None = None,
        context: Any = None,
        **targets: Any,
    ) -> MmattnOutput:
        """Fuse the samples and ask the head.

        Args:
            samples: raw samples, which the encoders read; None with `tokens`.
            tokens: modality -> tokens made before; None with `samples`.
            context: for the attention programs.
            **targets: the other arguments of the head's `loss`; without them there is no loss.

        Raises:
            InputError: neither samples nor tokens, or both.
        """
        if (samples is None) == (tokens is None):
            raise InputError("MmattnModel: expected either samples or tokens")
        model, head = self.mmattn, self.heads[self.config.head]
        parts = model.encode(samples) if samples is not None else tokens or {}
        loss = None
        if targets:
            fused, targets = self._loss_inputs(head, parts, targets, context)
            loss = head.loss(fused, **targets)
        vectors = None if targets and self.training else head(model.fuse(parts, context))
        return MmattnOutput(loss=loss, vectors=vectors)

    def _loss_inputs(
        self, head: Any, parts: Any, targets: dict[str, Any], context: Any
    ) -> tuple[Fused, dict[str, Any]]:
        """What a head's loss works on: the samples, or each of their modalities by itself."""
        if not getattr(head, "needs_modality_views", False):
            return self.core(parts, context), targets
        views, sample = single_modality_views(parts)
        return self.core(views, context), {name: target[sample] for name, target in targets.items()}

    def save_pretrained(  # type: ignore[override]
        self, save_directory: Any, *, state_dict: Mapping[str, Tensor] | None = None, **kwargs: Any
    ) -> None:
        """As in transformers; frozen encoders are named by their hash and not written.

        Args:
            save_directory: folder.
            state_dict: weights to write in place of the model's own.
            **kwargs: of `PreTrainedModel.save_pretrained`.
        """
        model = self.mmattn
        for key, value in model.description().items():
            setattr(self.config, key, value)
        wanted = model.trained_state()
        state = {name: value for name, value in (state_dict or self.state_dict()).items() if name in wanted}
        super().save_pretrained(save_directory, state_dict=state, **kwargs)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        config: MmattnConfig | None = None,
        head: str = "",
        dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> MmattnModel:
        """The model that `save_pretrained` wrote, or mmattn's own `Model.save_pretrained`.

        It is built as mmattn builds it and not on the meta device: encoders have weights of their own
        to read, and pruned heads are removed before the weights come.

        Args:
            pretrained_model_name_or_path: a folder, or a name on the hub.
            config: another configuration of the same model (its `head` counts).
            head: the head that answers, where it is another than the configuration's.
            dtype: of the weights; left out, as they were saved.
            **kwargs: of the download.

        Raises:
            InputError: no model there, one with other encoders, or a keyword that is not known.
        """
        hub = {
            key: value
            for key, value in kwargs.items()
            if not key.startswith("_") and key not in _AUTO_MODEL_OPTIONS and value is not None
        }
        for key in hub:
            if key not in _HUB_OPTIONS:
                raise InputError(
                    f"MmattnModel.from_pretrained: no option {key!r}.{did_you_mean(key, _HUB_OPTIONS)}"
                )
        folder = Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            folder = Path(snapshot_download(str(pretrained_model_name_or_path), **hub))
        config = config or MmattnConfig.from_pretrained(folder)
        config.head = head or config.head
        model = Model.from_pretrained(folder)
        return cls(config, model if dtype is None else model.to(dtype)).eval()

    def _init_weights(self, module: Any) -> None:
        """Nothing: every part of mmattn initialises itself."""

    @classmethod
    def example(cls) -> MmattnModel:
        """A small model with new weights, for `mmattn.testing.plugin_checks.check_adapter`."""
        from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
        from mmattn.model.build import build_encoders, build_model

        config = ModelConfig(
            {"text": EncoderConfig("tiny-text", {"dim": 7, "layers": 1})},
            FusionConfig(dim=8, heads=2),
            {"alignment": HeadConfig("alignment")},
        )
        return cls.from_model(build_model(build_encoders(config.encoders), config)).eval()


def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The collator for `Trainer`: rows {"samples": a Sample, target: number or tensor, ...} to one batch.

    Name the targets in `TrainingArguments(label_names=[...])`: Trainer drops what it does not know.

    Args:
        rows: {"samples": a Sample, target: number or tensor, ...} each.

    Example:
        >>> collate([{"samples": Sample("1", {"text": "uno"}), "group": 3}])["group"]
        tensor([3])
    """
    batch: dict[str, Any] = {"samples": [row["samples"] for row in rows]}
    for name in rows[0]:
        if name != "samples":
            batch[name] = torch.stack([torch.as_tensor(row[name]) for row in rows])
    return batch


AutoConfig.register("mmattn", MmattnConfig, exist_ok=True)
AutoModel.register(MmattnConfig, MmattnModel, exist_ok=True)
