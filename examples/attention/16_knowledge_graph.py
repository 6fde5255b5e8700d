"""A knowledge graph says which tokens belong together: a learned bias a relation, from sparse edges.

Ying et al., "Do Transformers Really Perform Bad for Graph Representation?" (Graphormer), 2021,
https://arxiv.org/abs/2106.05234; for recommendation: Wang et al., "KGAT", 2019,
https://arxiv.org/abs/1905.07854.
Reach for it where items have known ties (director, brand, sequel) that content alone does not show.

Here the graph has a million entities and two million edges, and goes in as int64 [3, E]: query's entity,
key's entity, relation. Only edges between two tokens of one sample are ever looked at; nothing of size
N x N is made, over entities or over tokens.
"""

import show
import torch

from mmattn import Tokens
from mmattn import attention as A

PROGRAM = A.Program(score=A.dot() >> A.graph_bias("films", relations=2))
FILMS = ["Alien", "Aliens", "Blade Runner", "Toy Story"]
SEQUEL, DIRECTOR = 0, 1


def main() -> list[list[float]]:
    """Returns the weights between the four films, when no content tells them apart."""
    torch.manual_seed(0)
    graph = torch.stack(
        [torch.randint(4, 1_000_000, (2_000_000,)) for _ in "ht"] + [torch.zeros(2_000_000).long()]
    )
    known = torch.tensor([[1, 0, SEQUEL], [0, 2, DIRECTOR], [2, 0, DIRECTOR]]).T
    context = {"films": torch.cat([graph, known], dim=1)}
    # Sample 0 holds the four films, 63 others thirty random entities each.
    lengths = torch.tensor([4] + [30] * 63)
    entity = torch.cat([torch.arange(4), torch.randint(4, 1_000_000, (30 * 63,))])
    tokens = Tokens.from_lengths(torch.zeros(len(entity), 16), lengths, "items", entity=entity)
    layer = show.bare(A.Attention(PROGRAM, dim=16, heads=2))
    layer.program_parameters()["films"][:] = torch.tensor([2.0, 1.0])  # as if learned, for both heads
    show.tell(layer, tokens)
    weight_QK = show.weights(layer, tokens, context=context)[0]
    print(f"\n{context['films'].shape[1]:,} edges; weights among the four films:")
    for name, row in zip(FILMS, weight_QK.tolist(), strict=True):
        print(f"{name:>14}: " + ", ".join(f"{other} {x:.2f}" for other, x in zip(FILMS, row, strict=True)))
    return weight_QK.tolist()


if __name__ == "__main__":
    show.run(main, PROGRAM)
