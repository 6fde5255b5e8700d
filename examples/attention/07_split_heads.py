"""Split heads: each group of heads runs a program of its own.

Heads specialise anyway (Voita et al., "Analyzing Multi-Head Self-Attention", 2019,
https://arxiv.org/abs/1905.09418); this says on what.
Reach for it to reserve capacity: without it the loudest modality may take all heads.

Here two heads read only words, one only patches, and one may read everything but picks few.
"""

import show
import torch

from mmattn import Tokens
from mmattn import attention as A

PROGRAM = A.heads(
    {
        (0, 2): A.Program(score=A.dot() >> A.alibi, mask=A.route({"*": ["text"]})),
        (2, 3): A.Program(score=A.cosine >> A.temperature(0.1), mask=A.route({"*": ["image"]})),
        (3, 4): A.Program(norm=A.sparsemax),
    }
)


def main() -> list[list[float]]:
    """Returns for every head the share of its weight that goes to words and to patches."""
    torch.manual_seed(0)
    text = Tokens.from_sequences([torch.randn(5, 32)], "text")
    image = Tokens.from_sequences([torch.randn(9, 32)], "image")
    tokens = Tokens.cat([text, image])
    layer = A.Attention(PROGRAM, dim=32, heads=4)
    show.tell(layer, tokens)
    weight_HQK = show.weights(layer, tokens)
    for head, weight in enumerate(weight_HQK):
        print(f"\nhead {head}, keys: 5 words, 9 patches")
        show.shades(weight[:5], [f"word {i}" for i in range(5)])
    return [[weight[:, :5].sum(1).mean().item(), weight[:, 5:].sum(1).mean().item()] for weight in weight_HQK]


if __name__ == "__main__":
    show.run(main, PROGRAM)
