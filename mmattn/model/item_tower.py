"""The item tower: item content to one vector an item, for recommenders of any library.

A plain `torch.nn.Module`, independent of users, losses and training loops.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmattn.data.modality_dropout import drop_modalities
from mmattn.encoders.model_inputs import ModelInputs
from mmattn.errors import InputError
from mmattn.types import Tokens

if TYPE_CHECKING:
    from mmattn.encoders.base import Encoder
    from mmattn.fusion.core import FusionCore

__all__ = ["ItemTower"]


class ItemTower(nn.Module):
    """Fuse the tokens of all modalities of an item and pool them to one vector.

    An item may lack any modality; one without any content (and without an id vector) gets the zero vector.
    Learned id vectors are optional and dropped at random in training, so that the scores of new items are
    comparable to those of known ones.

    `mmattn.model.build.build_item_tower` builds one from encoders, or from the widths of stored tokens;
    `ItemTower(model.core, model.encoders)` is the tower of a trained `Model`.

    Args:
        core: the fusion core.
        encoders: modality -> encoder, for modalities given as contents; those given as stored tokens need
            none.
        dim: width of the item vectors; 0 keeps the core's width.
        num_ids: number of items with a learned vector in addition to their content; 0 for none.
        id_dropout: probability of dropping the learned vector of an item in a training step.
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
        # No bias: an item without content keeps the zero vector.
        self.output_projection = nn.Linear(core.dim, dim, bias=False) if dim else nn.Identity()
        self.id_embedding = nn.Embedding(num_ids, self.dim) if num_ids else None
        if self.id_embedding is not None:
            nn.init.zeros_(self.id_embedding.weight)
        self.id_dropout = id_dropout
        self.modality_dropout = modality_dropout
        self.dropout = nn.Dropout(dropout)

    @property
    def device(self) -> torch.device:
        """The device of the core's weights."""
        return next(self.core.parameters()).device

    def forward(
        self, items: ModelInputs | Mapping[str, Tokens], item_ids: Tensor | None = None, context: Any = None
    ) -> Tensor:
        """Compute the vectors of some items.

        Args:
            items: the whole catalogue, or modality -> tokens of the B items.
            item_ids: [B] int64 indices of the items, which also select their learned vectors. With tokens,
                they are needed for the learned vectors only; -1 is an item without one.
            context: context of the attention programs.

        Returns:
            [B, dim].

        Raises:
            InputError: a catalogue without indices, or indices out of range.
        """
        tokens = self.tokens(items, item_ids) if isinstance(items, ModelInputs) else items
        if self.training and self.modality_dropout:
            tokens = drop_modalities(tokens, self.modality_dropout)
        vectors_BD = self.output_projection(self.core(tokens, context).pooled)
        if self.id_embedding is not None and item_ids is not None:
            vectors_BD = vectors_BD + self._id_vectors(item_ids.to(vectors_BD.device))
        return self.dropout(vectors_BD)

    def tokens(self, items: ModelInputs, item_ids: Tensor | None) -> dict[str, Tokens]:
        """Return the tokens of some items of a catalogue; trainable encoders run now.

        Args:
            items: the whole catalogue.
            item_ids: [B] int64 indices of the items.

        Returns:
            modality -> tokens of the B items, on the tower's device.

        Raises:
            InputError: no indices, or indices out of range.
        """
        if item_ids is None:
            raise InputError("item tower: got a catalogue without item numbers, expected int64 [B]")
        if len(item_ids) and not (0 <= int(item_ids.min()) and int(item_ids.max()) < len(items)):
            raise InputError(
                f"item tower: got items {int(item_ids.min())} to {int(item_ids.max())}, "
                f"expected 0 to {len(items) - 1}"
            )
        stored = {name: tokens.select(item_ids.to(tokens.device)) for name, tokens in items.tokens.items()}
        encoded = ModelInputs(contents=items.contents).select_tokens(item_ids, self.encoders)
        return {name: tokens.to(self.device) for name, tokens in {**stored, **encoded}.items()}

    def calibrate(self, items: ModelInputs, item_ids: Tensor | None = None) -> None:
        """Initialise the input projections with the principal axes of the stored tokens.

        See `mmattn.fusion.input_projection`.

        Args:
            items: the whole catalogue.
            item_ids: [K] int64 indices of the items to use (those of training); None for all.

        Raises:
            InputError: indices out of range.
        """
        if item_ids is None:
            item_ids = torch.arange(len(items))
        self.core.input_projection.calibrate(
            self.tokens(ModelInputs(items.tokens), item_ids) if items.tokens else {}
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
        """Compute the vectors of a whole catalogue, in evaluation mode and in batches.

        Args:
            items: the catalogue of I items.
            known_ids: [K] int64 indices of the items whose learned vectors are added; None for content alone.
            context: context of the attention programs.
            batch_size: items per batch.

        Returns:
            [I, dim] on the tower's device.
        """
        rows = [torch.zeros(0, self.dim, device=self.device)]
        learned_ids = torch.full((len(items),), -1)
        if known_ids is not None:
            learned_ids[known_ids] = known_ids
        with _eval_mode(self):
            for batch in torch.arange(len(items)).split(batch_size):
                rows.append(self(self.tokens(items, batch), learned_ids[batch], context))
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
