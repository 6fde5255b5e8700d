"""Hierarchical attention: within blocks, and across them through one summary token a block.

Yang et al., "Hierarchical Attention Networks for Document Classification", 2016 (words, then sentences),
https://aclanthology.org/N16-1174; Zhang et al., "HIBERT", 2019, https://arxiv.org/abs/1905.06566.
Reach for it where the data has a grain (sentences, scenes, sessions): n words in blocks of b cost
n b + (n / b)^2 pairs instead of n^2.

A summary stands at the first position of its block, so that `blocks(8)` joins it to its words; the route
joins the summaries to each other. Both happen in every layer, so that news travels up, across and down.
"""

import show
import torch

from mmattn import Tokens
from mmattn import attention as A

BLOCK, BLOCKS = 8, 6
PROGRAM = A.Program(mask=A.blocks(BLOCK) | A.route({"summary": ["summary"], "*": []}))


def document() -> Tokens:
    """Words, and a summary at the first position of every block."""
    words = Tokens.from_sequences([torch.randn(BLOCK * BLOCKS, 16)], "text")
    summaries = Tokens(
        values=torch.randn(1, 16).expand(BLOCKS, 16),  # in a model a parameter, like any learned token
        offsets=torch.tensor([0, BLOCKS]),
        modality=torch.zeros(BLOCKS, dtype=torch.int64),
        position=BLOCK * torch.arange(BLOCKS),
        modalities=("summary",),
    )
    return Tokens.cat([words, summaries])


def main() -> list[int]:
    """Returns how many words word 0 depends on after one, two and three layers."""
    torch.manual_seed(0)
    tokens = document()
    layers = [A.Attention(PROGRAM, dim=16, heads=2) for _ in range(3)]
    show.tell(layers[0], tokens)
    values_ND = tokens.values.requires_grad_()
    counts, current = [], tokens.with_values(values_ND)
    for layer in layers:
        current = layer(current)
        gradient_ND = torch.autograd.grad(current.values[0].sum(), values_ND, retain_graph=True)[0]
        reached_N = gradient_ND[: BLOCK * BLOCKS].any(dim=1)
        counts.append(int(reached_N.sum()))
        print(
            "after",
            len(counts),
            "layer(s) word 0 depends on",
            "".join(".x"[seen] for seen in reached_N.int()),
        )
    return counts


if __name__ == "__main__":
    show.run(main, PROGRAM, tokens=document())
