"""Base of the Hugging Face encoders of text and audio: loading, hashes, revisions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from torch import nn

from mmattn.encoders.base import hash_weights
from mmattn.encoders.pretrained import PretrainedEncoder, hash_files, import_optional
from mmattn.errors import InputError

__all__ = ["HuggingFaceEncoder"]

_WEIGHTS = ("config.json", "*.safetensors", "*.bin")
_PROCESSOR = ("tokenizer*", "vocab*", "merges.txt", "*.model", "special_tokens_map.json", "preprocessor*")


class HuggingFaceEncoder(PretrainedEncoder):
    """Base of the encoders around a transformers model.

    Args:
        model: a local folder, or a name on the Hugging Face hub, from which it is downloaded.
        revision: branch, tag or commit on the hub.
        tower: attribute of the part to use, where a model has several ("text_model").
        frozen: False to fine-tune the network as `encoder.trained`.
        batch_size: contents per batch of the network.
        modality: name of the modality in the tokens.

    Raises:
        InputError: the model cannot be loaded.
        MissingDependency: transformers is not installed.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        revision: str | None,
        tower: str,
        frozen: bool,
        batch_size: int,
        modality: str,
    ):
        super().__init__(
            partial(_load_model, str(model), revision, tower),
            modality=modality,
            frozen=frozen,
            batch_size=batch_size,
        )
        self.model = str(model)
        self.revision = revision
        self.dim = self._hidden_size()

    def _hidden_size(self) -> int:
        return int(self.network.config.hidden_size)  # type: ignore[union-attr, arg-type]

    @property
    def _local_folder(self) -> Path | None:
        return Path(self.model) if Path(self.model).is_dir() else None

    @cached_property
    def weights_hash(self) -> str:
        return (
            hash_files(self._local_folder, _WEIGHTS)
            if self._local_folder
            else hash_weights(self.network.state_dict())
        )

    @property
    def processor_hash(self) -> str:
        """Hash of the files of the tokenizer or feature extractor; on the hub, the revision name."""
        return hash_files(self._local_folder, _PROCESSOR) if self._local_folder else self.revision_name

    @property
    def revision_name(self) -> str:
        if self._local_folder:
            return "local folder"  # identified by its hashes; its path may be private
        commit = getattr(self.network.config, "_commit_hash", None)
        return f"{self.model}@{commit or self.revision}"

    def options(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "revision": self.revision,
            "batch_size": self.batch_size,
            "frozen": self.frozen,
            "modality": self.modality,
        }


def _load_model(model: str, revision: str | None, tower: str) -> nn.Module:
    transformers = import_optional("transformers", "hf")
    try:
        with _without_progress_bars():
            network = transformers.AutoModel.from_pretrained(model, revision=revision)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"Hugging Face model {model!r} cannot be loaded: {reason}") from error
    if network.config.is_encoder_decoder:
        network = network.get_encoder()
    return getattr(network, tower, network)


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Hide the progress bar that transformers shows for every model it loads."""
    logging = import_optional("transformers.utils.logging", "hf")
    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()
