"""User towers: from the vectors of the items that a user met to what the user may want next.

A history is led by a start of its own, which stands for the user before anything was met: so there is a
state after every step, also after none, and all of them come from one pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from mmattn.attention.language.program import parse
from mmattn.attention.layer.attention import Attention
from mmattn.fusion.block import FusionBlock

if TYPE_CHECKING:
    from mmattn.heads.recommendation.sequence_steps import SequenceSteps

__all__ = ["BAG_PROGRAM", "SEQUENCE_PROGRAM", "BagTower", "SequenceTower", "TowerKind", "build_user_tower"]

TowerKind = Literal["sequence", "bag"]

SEQUENCE_PROGRAM = 'Program(score=dot() >> time_bias("decay", buckets=16), mask=causal, norm=softmax())'
BAG_PROGRAM = (
    'Program(score=additive(hidden=16) >> time_bias("decay", buckets=16), mask=causal, norm=softmax())'
)


class SequenceTower(nn.Module):
    """Layers of causal attention over the history: order and time matter.

    Papers: Kang and McAuley, "Self-Attentive Sequential Recommendation", 2018; Li, Wang and McAuley, "Time
    Interval Aware Self-Attention for Sequential Recommendation", 2020 (the bias by time).

    Args:
        width: W of the item vectors and of the states.
        layers: of attention.
        heads: of each layer.
        program: of each layer, as text; it must not look ahead.
        max_length: how many events a history may have.
        positional_encoding: learned vectors of the places in a history, counted from its end.
        dropout: on items and in the layers.
        expansion: hidden width of the token-wise networks, as a multiple of W.

    Example:
        >>> from mmattn.heads.recommendation.sequence_steps import SequenceSteps
        >>> tower = SequenceTower(width=8, layers=1, heads=2)
        >>> one = torch.tensor([-1, 0, 2])
        >>> steps = SequenceSteps(one, torch.tensor([3]), torch.tensor([torch.nan, 0.0, 60.0]).double(), one,
        ...     one)
        >>> tower(steps, torch.randn(3, 8)).shape
        torch.Size([3, 8])
    """

    def __init__(
        self,
        width: int,
        layers: int = 2,
        heads: int = 2,
        program: str = SEQUENCE_PROGRAM,
        max_length: int = 200,
        positional_encoding: bool = False,
        dropout: float = 0.1,
        expansion: float = 2.0,
    ):
        super().__init__()
        parsed = parse(program)
        self.start_vector = nn.Parameter(torch.randn(width) / width**0.5)
        self.position_embedding = nn.Embedding(max_length + 1, width) if positional_encoding else None
        if self.position_embedding is not None:
            nn.init.normal_(self.position_embedding.weight, std=width**-0.5)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            FusionBlock(
                Attention(parsed, dim=width, heads=heads, dropout=dropout),
                dim=width,
                expansion=expansion,
                dropout=dropout,
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, steps: SequenceSteps, items: Tensor, context: Any = None) -> Tensor:
        """[N, W] what the user may want after each step.

        Args:
            steps: the histories.
            items: [C, W] the vectors that the steps point at.
            context: for the attention program.
        """
        tokens = steps.tokens(self.start_vector, items)
        if self.position_embedding is not None:
            to_end_N = tokens.lengths[tokens.sample] - 1 - tokens.position
            tokens = tokens.with_values(tokens.values + self.position_embedding(to_end_N))
        tokens = tokens.with_values(self.dropout(tokens.values))
        for block in self.blocks:
            tokens = block(tokens, context)
        return self.norm(tokens.values)


class BagTower(nn.Module):
    """One learned query asks the items met so far: additive attention, in which their order says nothing.

    The query is the user's and not the candidate's, so that users stay vectors that an index can search with;
    `RecommendationHead` is the one in which candidates ask.

    Paper: Bahdanau, Cho and Bengio, "Neural Machine Translation by Jointly Learning to Align and Translate",
    2014 (additive attention).

    Args:
        width: W.
        heads: of the attention.
        program: as text; causal, so that one pass gives the bag after every step.
        dropout: on items and on what is gathered.

    Example:
        >>> from mmattn.heads.recommendation.sequence_steps import SequenceSteps
        >>> one = torch.tensor([-1, 0, 2])
        >>> steps = SequenceSteps(one, torch.tensor([3]), torch.tensor([torch.nan, 0.0, 60.0]).double(), one,
        ...     one)
        >>> BagTower(width=8, heads=2)(steps, torch.randn(3, 8)).shape
        torch.Size([3, 8])
    """

    def __init__(self, width: int, heads: int = 1, program: str = BAG_PROGRAM, dropout: float = 0.1):
        super().__init__()
        self.start_vector = nn.Parameter(torch.randn(width) / width**0.5)
        self.query = nn.Parameter(torch.randn(width) / width**0.5)
        self.attention = Attention(parse(program), dim=width, heads=heads)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, steps: SequenceSteps, items: Tensor, context: Any = None) -> Tensor:
        """[N, W], as `SequenceTower.forward`.

        Args:
            steps: steps of B histories.
            items: [C, W] vectors that the steps' items index.
            context: for the attention program.
        """
        met = steps.tokens(self.start_vector, items)
        met = met.with_values(self.dropout(met.values))
        queries = met.with_values(self.query.expand_as(met.values))
        return self.norm(self.dropout(self.attention(queries, met, context).values))


def build_user_tower(
    kind: TowerKind,
    width: int,
    *,
    layers: int,
    heads: int,
    program: str,
    max_length: int,
    positional_encoding: bool,
    dropout: float,
) -> SequenceTower | BagTower:
    """Build the user tower of a kind.

    Args:
        kind: "sequence" or "bag".
        width: W.
        layers: attention layers.
        heads: attention heads.
        program: attention program as text; "" takes the kind's own.
        max_length: longest history.
        positional_encoding: add the code of each position.
        dropout: probability.
    """
    if kind == "bag":
        return BagTower(width, heads, program or BAG_PROGRAM, dropout)
    return SequenceTower(
        width, layers, heads, program or SEQUENCE_PROGRAM, max_length, positional_encoding, dropout
    )
