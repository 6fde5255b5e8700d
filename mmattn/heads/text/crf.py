"""A linear-chain conditional random field over jagged sequences: its likelihood and its best path."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["FORBIDDEN_SCORE", "LinearChainCRF"]

FORBIDDEN_SCORE = -1e4  # of a transition that may not be: finite, so that gradients stay numbers


class LinearChainCRF(nn.Module):
    """Scores of tag sequences: what each word says of its tag, and what each tag says of the next one.

    Paper: Lafferty, McCallum and Pereira, "Conditional Random Fields", 2001; Viterbi, "Error Bounds for
    Convolutional Codes", 1967 (the best path).

    Args:
        num_tags: number of tags C.
        allowed_transitions: [C, C] boolean, from row to column; None allows all.
        allowed_starts: [C] boolean; None allows all.
        learn_transitions: learn the scores of transitions; otherwise they are 0.

    Example:
        >>> chain = LinearChainCRF(num_tags=2)
        >>> emissions, mask = torch.tensor([[[1.0, 0.0], [0.0, 3.0]]]), torch.tensor([[True, True]])
        >>> chain.viterbi_decode(emissions, mask), bool(chain(emissions, mask, torch.tensor([[0, 1]])) > 0)
        ([[0, 1]], True)
    """

    def __init__(
        self,
        num_tags: int,
        allowed_transitions: Tensor | None = None,
        allowed_starts: Tensor | None = None,
        learn_transitions: bool = True,
    ):
        super().__init__()
        ways = (
            torch.ones(num_tags, num_tags, dtype=torch.bool)
            if allowed_transitions is None
            else allowed_transitions
        )
        begins = torch.ones(num_tags, dtype=torch.bool) if allowed_starts is None else allowed_starts
        self.transition_mask: Tensor
        self.start_mask: Tensor
        self.register_buffer("transition_mask", torch.where(ways, 0.0, FORBIDDEN_SCORE), persistent=False)
        self.register_buffer("start_mask", torch.where(begins, 0.0, FORBIDDEN_SCORE), persistent=False)
        self.transitions = nn.Parameter(torch.zeros(num_tags, num_tags), requires_grad=learn_transitions)
        self.start_transitions = nn.Parameter(torch.zeros(num_tags), requires_grad=learn_transitions)
        self.end_transitions = nn.Parameter(torch.zeros(num_tags), requires_grad=learn_transitions)

    def forward(self, emissions: Tensor, mask: Tensor, tags: Tensor) -> Tensor:
        """What the true sequences cost: the negative logarithm of their probability.

        Args:
            emissions: [B, T, C] scores of each word's tags.
            mask: [B, T] boolean, True where there is a word; each row's words stand at its beginning.
            tags: [B, T] int64, the true ones; anything where there is no word.

        Returns:
            [B], 0 for a sequence without a word.
        """
        return self.log_partition(emissions, mask) - self.score(emissions, mask, tags)

    def score(self, emissions: Tensor, mask: Tensor, tags: Tensor) -> Tensor:
        """[B] scores of given sequences.

        Args:
            emissions: [B, T, C] scores.
            mask: [B, T] whether a word is present.
            tags: [B, T] int64.
        """
        step_CC, start_C = self.transitions + self.transition_mask, self.start_transitions + self.start_mask
        tags_BT = tags.masked_fill(~mask, 0)
        own_BT = emissions.gather(2, tags_BT[:, :, None])[:, :, 0]
        moves_BT = step_CC[tags_BT[:, :-1], tags_BT[:, 1:]]
        last_B = tags_BT.gather(1, (mask.sum(1, keepdim=True) - 1).clamp_min(0))[:, 0]
        edge_B = (start_C[tags_BT[:, 0]] + self.end_transitions[last_B]) * mask[:, 0]
        return (own_BT * mask).sum(1) + (moves_BT * mask[:, 1:]).sum(1) + edge_B

    def log_partition(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """Return the logarithms of the sums over all sequences (forward algorithm), [B]; 0 without words.

        Args:
            emissions: [B, T, C] scores.
            mask: [B, T] whether a word is present.
        """
        step_CC = self.transitions + self.transition_mask
        reach_BC = self.start_transitions + self.start_mask + emissions[:, 0]
        for step in range(1, emissions.shape[1]):
            onward_BC = (reach_BC[:, :, None] + step_CC).logsumexp(1) + emissions[:, step]
            reach_BC = torch.where(mask[:, step, None], onward_BC, reach_BC)
        return (reach_BC + self.end_transitions).logsumexp(1) * mask[:, 0]

    @torch.no_grad()
    def viterbi_decode(self, emissions: Tensor, mask: Tensor) -> list[list[int]]:
        """Return the sequence with the highest score of each row, as long as its words.

        Args:
            emissions: [B, T, C] scores.
            mask: [B, T] whether a word is present.
        """
        step_CC = self.transitions + self.transition_mask
        reach_BC = self.start_transitions + self.start_mask + emissions[:, 0]
        came_from = []
        for index in range(1, emissions.shape[1]):
            best_BC, before_BC = (reach_BC[:, :, None] + step_CC).max(1)
            reach_BC = torch.where(mask[:, index, None], best_BC + emissions[:, index], reach_BC)
            came_from.append(before_BC)
        ends = (reach_BC + self.end_transitions).argmax(1).tolist()
        before = [row.tolist() for row in came_from]
        return [
            _backtrack(end, [before[position][row] for position in range(length - 1)]) if length else []
            for row, (end, length) in enumerate(zip(ends, mask.sum(1).tolist(), strict=True))
        ]


def _backtrack(end: int, backpointers: list[list[int]]) -> list[int]:
    """Back along the tags that each tag was reached from."""
    path = [end]
    for row in reversed(backpointers):
        path.append(row[path[-1]])
    return path[::-1]
