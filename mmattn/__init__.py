"""mmattn: programmable attention across modalities.

`import mmattn` is light: public names are loaded on first use, and heavy libraries (transformers, timm,
faiss, torchvision, torchaudio, pandas) are imported only by the modules that need them.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Public name -> module that defines it.
_PUBLIC = {
    "Fused": "mmattn.types",
    "Index": "mmattn.retrieval.index",
    "InputError": "mmattn.errors",
    "ItemTower": "mmattn.model.item_tower",
    "MmattnError": "mmattn.errors",
    "Model": "mmattn.model.model",
    "Sample": "mmattn.types",
    "RecommenderService": "mmattn.serving.service",
    "Tokens": "mmattn.types",
    "recommend": "mmattn.serving.service",
    "registries": "mmattn.registry",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'mmattn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
