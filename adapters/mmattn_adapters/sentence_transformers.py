"""mmattn for sentence-transformers: one modality of a trained model as a module, text by default."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from sentence_transformers.base.modules import InputModule
from torch import Tensor

from mmattn.errors import InputError, did_you_mean
from mmattn.model.model import Model

__all__ = ["MmattnText"]


class MmattnText(InputModule):
    """Texts to the vectors of a trained model's head, as the first module of a `SentenceTransformer`.

        SentenceTransformer(modules=[MmattnText(Model.from_pretrained("runs/demo/aligned"))])

    The vectors are those that the model's pictures and sounds have, where it was trained by alignment.
    `encode`, `save_pretrained` and `SentenceTransformerTrainer` work as with other modules; the folder that
    is written is also one of `Model.save_pretrained`. sentence-transformers 6 wants
    `SentenceTransformer(folder, trust_remote_code=True)` for every module outside its own package, this
    installed one too; nothing is downloaded.

    Args:
        model: with the modality and the head.
        modality: the modality that the texts are.
        head: whose vectors; left out, the model's only one.

    Raises:
        InputError: the model has no such modality or head.

    Example:
        >>> module = MmattnText.example()
        >>> module(module.preprocess(["sette", "seven"]))["sentence_embedding"].shape
        torch.Size([2, 64])
    """

    config_file_name = "mmattn_text.json"
    config_keys = ["modality", "head"]  # noqa: RUF012 (the name and the kind are theirs)

    def __init__(self, model: Model, modality: str = "text", head: str = ""):
        super().__init__()
        if modality not in model.encoders:
            raise InputError(f"MmattnText: no modality {modality!r}.{did_you_mean(modality, model.encoders)}")
        self.modality = modality
        self.head = head or (next(iter(model.heads)) if len(model.heads) == 1 else "")
        model.head(self.head)  # says now if there is none
        self.model = model

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Read the texts as the encoder does.

        The list goes by the name of `input_ids` because `SentenceTransformerTrainer` knows inputs by name.

        Args:
            inputs: texts.
            prompt: put before each text; None for none.
            **kwargs: unused.
        """
        texts = [f"{prompt}{text}" for text in inputs] if prompt else inputs
        return {"input_ids": [self.model.encoders[self.modality].read(text) for text in texts]}

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Add the vectors [B, D] as `sentence_embedding`.

        Args:
            features: as `preprocess` returned them.
            **kwargs: unused.
        """
        tokens = self.model.encoders[self.modality](features["input_ids"])
        vectors: Tensor = self.model.heads[self.head](self.model.fuse({self.modality: tokens}))
        return features | {"sentence_embedding": vectors}

    def get_embedding_dimension(self) -> int:
        """Width D of the vectors."""
        projection = getattr(self.model.heads[self.head], "project", None)
        return self.model.core.dim if projection is None else projection.out_features

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Write the whole model, other modalities too, and which part of it is used.

        Args:
            output_path: folder.
            *args: unused.
            safe_serialization: must be true: nothing else is written.
            **kwargs: unused.
        """
        self.model.save_pretrained(output_path)
        self.save_config(output_path)

    @classmethod
    def load(  # type: ignore[override]
        cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any
    ) -> Self:
        """Read what `save` wrote, from a folder or from the hub.

        Args:
            model_name_or_path: a folder, or a name on the hub.
            subfolder: of it.
            **kwargs: of the download.

        Raises:
            InputError: there is no model, or one with other encoders.
        """
        hub = ("token", "cache_folder", "revision", "local_files_only")
        options = {key: value for key, value in kwargs.items() if key in hub}
        config = cls.load_config(model_name_or_path, subfolder=subfolder, **options)
        folder = cls.load_dir_path(model_name_or_path, subfolder=subfolder, **options)
        return cls(Model.from_pretrained(Path(folder or model_name_or_path)), **config)

    @classmethod
    def example(cls) -> MmattnText:
        """A small module with new weights, for `mmattn.testing.plugin_checks.check_adapter`."""
        from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
        from mmattn.model.build import build_encoders, build_model

        config = ModelConfig(
            {"text": EncoderConfig("tiny-text", {"dim": 7, "layers": 1})},
            FusionConfig(dim=8, heads=2),
            {"alignment": HeadConfig("alignment")},
        )
        return cls(build_model(build_encoders(config.encoders), config).eval())
