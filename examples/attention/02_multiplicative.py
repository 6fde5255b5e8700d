"""Multiplicative attention: q k ("dot"), or q W k with a learned matrix W a head ("general", bilinear).

Luong, Pham and Manning, "Effective Approaches to Attention-based Neural Machine Translation", 2015,
https://arxiv.org/abs/1508.04025.
Reach for `dot()` by default: one matrix product, every fused kernel. Reach for `bilinear` where queries
and keys come out of frozen encoders and should not be projected, or where W itself is of interest.

Here W is a dictionary: with it English words find their French translation, with the plain dot product
they find the word of the same number.
"""

import show
import torch

from mmattn import Tokens
from mmattn import attention as A

DOT = A.Program(score=A.dot(scale=8.0))
PROGRAM = A.Program(score=A.bilinear("dictionary", scale=8.0))
ENGLISH, FRENCH = ["house", "cat", "tree", "sea"], ["mer", "maison", "chat", "arbre"]


def main() -> tuple[list[int], float, list[int]]:
    """Returns what dot finds, how far bilinear is from it at first, and what it finds with the dictionary."""
    english, french = (Tokens.from_sequences([torch.eye(4)], name) for name in ("english", "french"))
    plain = show.bare(A.Attention(DOT, dim=4, heads=1))
    layer = show.bare(A.Attention(PROGRAM, dim=4, heads=1))
    apart = (layer(english, french).values - plain(english, french).values).abs().max().item()
    show.tell(layer, english, french)
    print(f"\nW starts as the identity, so that nothing changes: {apart:.0e} from the dot product")
    w_HKK = layer.program_parameters()["dictionary"]
    w_HKK.copy_(torch.eye(4)[[1, 2, 3, 0]])  # row: English, column: French
    results = [show.weights(each, english, french)[0].argmax(dim=1).tolist() for each in (plain, layer)]
    for row, word in enumerate(ENGLISH):
        print(f"{word:>8}: dot finds {FRENCH[results[0][row]]:>6}, bilinear finds {FRENCH[results[1][row]]}")
    return results[0], apart, results[1]


if __name__ == "__main__":
    show.run(main, PROGRAM)
