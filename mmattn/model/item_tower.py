"""The item tower alone: what an item's content gives as one vector, for recommenders of other people.

A plain `torch.nn.Module` that knows nothing of users, losses or training loops.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mmattn.data.modality_dropout import drop_modalities
from mmattn.encoders.base import Encoder
from mmattn.encoders.model_inputs import ModelInputs
from mmattn.errors import InputError
from mmattn.fusion.core import FusionCore
from mmattn.types import Tokens

__all__ = ["ItemTower"]


class ItemTower(nn.Module):
    """Items in, vectors out: tokens of all modalities, fused, and pooled to one vector an item.

    An item may lack any modality; one that has no content at all (and no id) gets the zero vector. What is
    learned about single items beside their content is optional and dropped at random in training, so that
    a new item is scored like an old one.

    `mmattn.model.build.build_item_tower` makes one from the encoders (or only the widths of tokens stored before);
    `ItemTower(model.core, model.encoders)` is the tower of a trained `Model`.

    Args:
        core: the fusion core.
        encoders: modality -> encoder, for the modalities that come as contents. Modalities that come as
            tokens (frozen encoders' features) need none.
        dim: width of the item vectors; 0 keeps the core's own.
        num_ids: number of items that get a learned vector beside their content; 0 for none.
        id_dropout: share of the items whose learned vector is dropped in a training step.
        modality_dropout: probability of dropping a modality of an item in a training step.
        dropout: probability of dropping a component of an item vector in training.

    Example:
        >>> import torch
        >>> from mmattn.model.build import build_item_tower
        >>> from mmattn.encoders.model_inputs import ModelInputs
        >>> from mmattn.encoders.text.tiny_text import TinyText
        >>> items = ModelInputs(contents={"text": ["Heat (1995)", None, "Up (2009)"]})
        >>> tower = build_item_tower({"text": TinyText(dim=16)}, dim=8)
        >>> tower(items, torch.tensor([2, 0])).shape
        torch.Size([2, 8])
    """

    def __init__(
        self,
        core: FusionCore,
        encoders: Mapping[str, Encoder] | None = None,
        *,
        dim: int = 0,
        num_ids: int = 0,
        id_dropout: float = 0.5,
        modality_dropout: float = 0.0,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.core = core
        self.encoders: Any = nn.ModuleDict(encoders or {})  # modality -> Encoder
        self.dim = dim or core.dim
        # Without a bias: nothing in, nothing out.
        self.output_projection = nn.Linear(core.dim, dim, bias=False) if dim else nn.Identity()
        self.id_embedding = nn.Embedding(num_ids, self.dim) if num_ids else None
        if self.id_embedding is not None:
            nn.init.zeros_(self.id_embedding.weight)
        self.id_dropout = id_dropout
        self.modality_dropout = modality_dropout
        self.dropout = nn.Dropout(dropout)

    @property
    def device(self) -> torch.device:
        """Where the core's weights are."""
        return next(self.core.parameters()).device

    def forward(
        self, items: ModelInputs | Mapping[str, Tokens], item_ids: Tensor | None = None, context: Any = None
    ) -> Tensor:
        """The vectors of some items.

        Args:
            items: the whole catalogue, or tokens of the wanted items by modality.
            item_ids: [B] int64, the wanted items' numbers, which are also those of their learned vectors.
                With tokens, they are needed for the learned vectors only; -1 is an item without one.
            context: for the attention programs.

        Returns:
            [B, dim].

        Raises:
            InputError: a catalogue without numbers, or numbers that are not in it.
        """
        parts = self.tokens(items, item_ids) if isinstance(items, ModelInputs) else items
        if self.training and self.modality_dropout:
            parts = drop_modalities(parts, self.modality_dropout)
        vectors_BD = self.output_projection(self.core(parts, context).pooled)
        if self.id_embedding is not None and item_ids is not None:
            vectors_BD = vectors_BD + self._id_vectors(item_ids.to(vectors_BD.device))
        return self.dropout(vectors_BD)

    def tokens(self, items: ModelInputs, item_ids: Tensor | None) -> dict[str, Tokens]:
        """Tokens of some items of a catalogue by modality; encoders that learn run now."""
        if item_ids is None:
            raise InputError("item tower: got a catalogue without item numbers, expected int64 [B]")
        if len(item_ids) and not (0 <= int(item_ids.min()) and int(item_ids.max()) < len(items)):
            raise InputError(
                f"item tower: got items {int(item_ids.min())} to {int(item_ids.max())}, "
                f"expected 0 to {len(items) - 1}"
            )
        stored = {name: tokens.select(item_ids.to(tokens.device)) for name, tokens in items.tokens.items()}
        made = ModelInputs(contents=items.contents).select_tokens(item_ids, self.encoders)
        return {name: tokens.to(self.device) for name, tokens in {**stored, **made}.items()}

    def calibrate(self, items: ModelInputs, item_ids: Tensor | None = None) -> None:
        """Start from the principal axes of the stored tokens, see `mmattn.fusion.input_projection`.

        Args:
            items: the catalogue.
            item_ids: the items that may be looked at (those of training); None for all.
        """
        chosen = torch.arange(len(items)) if item_ids is None else item_ids
        self.core.input_projection.calibrate(
            self.tokens(ModelInputs(items.tokens), chosen) if items.tokens else {}
        )

    @torch.no_grad()
    def vectors(
        self,
        items: ModelInputs,
        *,
        known_ids: Tensor | None = None,
        context: Any = None,
        batch_size: int = 1024,
    ) -> Tensor:
        """Vectors of a whole catalogue, in evaluation mode, a block at a time.

        Args:
            items: I items.
            known_ids: [K] int64, the items that are given their learned vectors; None for content alone.
            context: for the attention programs.
            batch_size: items at a time.

        Returns:
            [I, dim] on the tower's device.
        """
        rows = [torch.zeros(0, self.dim, device=self.device)]
        learned = torch.full((len(items),), -1)
        if known_ids is not None:
            learned[known_ids] = known_ids
        with _eval_mode(self):
            for numbers in torch.arange(len(items)).split(batch_size):
                rows.append(self(self.tokens(items, numbers), learned[numbers], context))
        return torch.cat(rows)

    def _id_vectors(self, ids_B: Tensor) -> Tensor:
        assert self.id_embedding is not None
        kept_B = ids_B >= 0
        if self.training:
            kept_B = kept_B & (torch.rand(len(ids_B), device=ids_B.device) >= self.id_dropout)
        return self.id_embedding(ids_B.clamp_min(0)) * kept_B[:, None]


@contextmanager
def _eval_mode(module: nn.Module) -> Iterator[None]:
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
