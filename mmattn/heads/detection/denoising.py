"""Noised copies of the truth as further queries in training: where they belong needs no matching."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mmattn.errors import InputError
from mmattn.heads.detection.decoder import GROUP_SIZE
from mmattn.heads.detection.matching import Matching
from mmattn.types import Tokens

if TYPE_CHECKING:
    from mmattn.heads.detection.targets import BoxTargets

__all__ = ["Denoising", "NoisedQueries"]

# Share of the labels that are exchanged, and how much centre and side change at most, as a share of the side.
_LABEL_NOISE, _BOX_NOISE = 0.25, 0.4


@dataclass(frozen=True, eq=False)
class NoisedQueries:
    """Copies of the truth.

    Args:
        queries: their tokens, group by group in each sample.
        boxes: [N, 4] centre x, centre y, width, height of the copies.
        pairs: who is a copy of what.
    """

    queries: Tokens
    boxes: Tensor
    pairs: Matching


class Denoising(nn.Module):
    """Learned vectors of the labels, with which noised objects become queries.

    The groups of copies see neither each other nor the queries that have to find the objects themselves,
    since their positions are in other blocks of the attention program.

    Paper: Li et al., "DN-DETR: Accelerate DETR Training by Introducing Query DeNoising", 2022.

    Args:
        dim: width D.
        num_labels: how many labels there are.
        num_groups: copies of each object.

    Example:
        >>> from mmattn.heads.detection.targets import BoxTargets
        >>> one = BoxTargets(torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.2, 0.2]]), counts=(1,))
        >>> Denoising(dim=4, num_labels=2, num_groups=3)(one).queries.position.tolist()
        [1024, 2048, 3072]
    """

    def __init__(self, dim: int, num_labels: int, num_groups: int):
        super().__init__()
        self.num_groups = num_groups
        self.label_embedding = nn.Embedding(num_labels, dim)

    def forward(self, targets: BoxTargets) -> NoisedQueries:
        """Copies of all objects, anew at each call.

        Args:
            targets: boxes and labels of B samples.

        Raises:
            InputError: more boxes in an image than a group of queries.
        """
        device = self.label_embedding.weight.device
        if max(targets.counts, default=0) > GROUP_SIZE:
            raise InputError(
                f"detection head: got {max(targets.counts)} boxes in a picture, expected at most {GROUP_SIZE}"
            )
        count_B = torch.tensor(targets.counts, device=device)
        copies_B = self.num_groups * count_B
        sample_N = torch.arange(len(count_B), device=device).repeat_interleave(copies_B)
        within_N = torch.arange(len(sample_N), device=device) - (copies_B.cumsum(0) - copies_B)[sample_N]
        group_N, number_N = within_N // count_B[sample_N], within_N % count_B[sample_N]
        object_N = (count_B.cumsum(0) - count_B)[sample_N] + number_N
        queries = Tokens.from_lengths(
            self.label_embedding(self._flip_labels(targets.labels[object_N])), copies_B, "query"
        )
        queries = replace(queries, position=(1 + group_N) * GROUP_SIZE + number_N)
        pairs = Matching(torch.arange(len(object_N), device=device), object_N)
        return NoisedQueries(queries, _jitter_boxes(targets.boxes[object_N]), pairs)

    def _flip_labels(self, labels_N: Tensor) -> Tensor:
        """Some labels exchanged for any."""
        drawn_N = torch.randint_like(labels_N, self.label_embedding.num_embeddings)
        return torch.where(
            torch.rand(labels_N.shape, device=labels_N.device) < _LABEL_NOISE, drawn_N, labels_N
        )


def _jitter_boxes(boxes_N4: Tensor) -> Tensor:
    """Boxes with other centres and sides."""
    noise_N4 = (2 * torch.rand_like(boxes_N4) - 1) * _BOX_NOISE
    sides_N2 = boxes_N4[:, 2:]
    centres_N2 = boxes_N4[:, :2] + noise_N4[:, :2] * sides_N2
    return torch.cat([centres_N2, sides_N2 * (1 + noise_N4[:, 2:])], dim=1).clamp(0.0, 1.0)
