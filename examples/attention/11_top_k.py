"""Sparse weights: only the best keys count, the others get exactly nothing.

`topk(k)`: Gupta et al., "Memory-efficient Transformers via Top-k Attention", 2021,
https://arxiv.org/abs/2106.06899. `sparsemax`: Martins and Astudillo, 2016, https://arxiv.org/abs/1602.02068.
`entmax15`: Peters, Niculae and Martins, 2019, https://arxiv.org/abs/1905.05702.
Reach for `topk` where a known number of things matters (a basket, k neighbours), for the other two where
the number should follow from the scores; all of them make explanations short.

Here a user's query reads twelve items of a history, of which two fit.
"""

import show
import torch

from mmattn import Tokens
from mmattn import attention as A

PROGRAM = A.Program(norm=A.topk(3))


def main() -> dict[str, int]:
    """Returns how many of twelve keys get any weight, by norm."""
    torch.manual_seed(1)
    history_TD = torch.randn(12, 16)
    query_TD = (history_TD[4] + 0.8 * history_TD[9])[None]
    query, history = (Tokens.from_sequences([x], "items") for x in (query_TD, history_TD))
    counts = {}
    show.tell(A.Attention(PROGRAM, dim=16, heads=1), query, history)
    print()
    for norm in (A.softmax(), A.topk(3), A.entmax15, A.sparsemax):
        layer = show.bare(A.Attention(A.Program(norm=norm), dim=16, heads=1))
        weight_K = show.weights(layer, query, history)[0, 0]
        counts[str(norm)] = int((weight_K > 0).sum())
        print(f"{norm!s:>10}:", *(f"{x:.2f}" if x else "   ." for x in weight_K.tolist()))
    return counts


if __name__ == "__main__":
    show.run(main, PROGRAM)
