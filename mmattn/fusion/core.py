"""The shared fusion core: entry, layers of programmable attention, pooling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmattn.errors import InputError
from mmattn.fusion.graph_edges import GraphEdges
from mmattn.types import Fused, Tokens

if TYPE_CHECKING:
    from mmattn.attention.layer.kv_cache import Cache
    from mmattn.fusion.block import BottleneckBlock, FusionBlock
    from mmattn.fusion.input_projection import InputProjection
    from mmattn.fusion.task_embeddings import TaskEmbeddings

__all__ = ["FusionCore"]


class FusionCore(nn.Module):
    """Tokens of several encoders in, `Fused` out; every part is injected (see `mmattn.model.build`).

    Args:
        input_projection: brings all modalities to one width.
        blocks: layers over the joint tokens, in order; may be empty.
        pool: makes the joint vector and one a modality.
        task_embeddings: vectors of the tasks that a context may name; None where programs ask for none.

    Example:
        >>> from mmattn.fusion.input_projection import InputProjection
        >>> import torch
        >>> from mmattn.fusion.pool import AttentionPool
        >>> core = FusionCore(InputProjection({"text": 3}, dim=8), [], AttentionPool(dim=8, num_modalities=1))
        >>> core({"text": Tokens.from_sequences([torch.randn(2, 3)], "text")}).pooled.shape
        torch.Size([1, 8])
    """

    def __init__(
        self,
        input_projection: InputProjection,
        blocks: Sequence[FusionBlock | BottleneckBlock],
        pool: nn.Module,
        task_embeddings: TaskEmbeddings | None = None,
    ):
        super().__init__()
        self.input_projection = input_projection
        self.blocks = nn.ModuleList(blocks)
        self.pool = pool
        self.task_embeddings = task_embeddings
        self.edges = GraphEdges()

    @property
    def dim(self) -> int:
        """Width D of everything that comes out."""
        return self.input_projection.dim

    def forward(self, tokens_by_modality: Mapping[str, Tokens], context: Any = None) -> Fused:
        """Fuse the samples.

        Args:
            tokens_by_modality: modality -> tokens of its encoder; leave out what is absent from the whole
                batch.
            context: handed to every attention program (edges, ...), in which it goes before the edges that
                the core holds. Its "task" may be a name, one name a sample or int64 [B], which become
                vectors here; or a vector, [D] or [B, D].

        Raises:
            InputError: tokens that do not fit, or a task that the core does not know.
        """
        tokens, context = self._project_inputs(tokens_by_modality, context)
        for block in self.blocks:
            tokens = block(tokens, context)
        return self.pool(tokens)

    def decode(
        self, tokens_by_modality: Mapping[str, Tokens], caches: Sequence[Cache] = (), context: Any = None
    ) -> tuple[Tokens, tuple[Cache, ...]]:
        """The fused tokens of a stream: those that follow the calls before give what `forward` of all would.

        Args:
            tokens_by_modality: modality -> the next tokens of each sample, positions after those before.
            caches: what the call before returned; left out, these are the first tokens.
            context: as in `forward`.

        Returns:
            Fused tokens [N, D], not pooled, and the caches for the next call, one a block.

        Raises:
            InputError: as in `forward`, or a block's program may look ahead.
        """
        tokens, context = self._project_inputs(tokens_by_modality, context)
        kept: list[Cache] = []
        for number, block in enumerate(self.blocks):
            tokens, cache = block.decode(tokens, caches[number] if caches else None, context)  # type: ignore[operator]
            kept.append(cache)
        return tokens, tuple(kept)

    def _project_inputs(self, tokens_by_modality: Mapping[str, Tokens], context: Any) -> tuple[Tokens, Any]:
        """The joined tokens at the core's width, and the context with its edges and tasks' vectors."""
        tokens = self.input_projection(tokens_by_modality)
        context = self.edges.with_edges(context)
        if context and tokens.entity is None:  # what the edges would join is absent: they join nothing
            tokens = replace(tokens, entity=torch.full_like(tokens.position, -1))
        return tokens, self._with_task_embeddings(context)

    def _with_task_embeddings(self, context: Any) -> Any:
        task = (context or {}).get("task")
        if task is None or (isinstance(task, Tensor) and task.is_floating_point()):
            return context
        if self.task_embeddings is None:
            raise InputError(
                f"fusion: got the task {task!r}, but the core has no tasks; expected their names in "
                "FusionConfig.tasks, or a vector"
            )
        return {**context, "task": self.task_embeddings(task)}
