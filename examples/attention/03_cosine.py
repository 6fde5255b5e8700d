"""Cosine attention: only directions count, and a learned temperature says how sharply.

Henry et al., "Query-Key Normalization for Transformers", 2020, https://arxiv.org/abs/2010.04245; Liu et
al., "Swin Transformer V2", 2021, https://arxiv.org/abs/2111.09883.
Reach for it where encoders give tokens of very different lengths (a loud modality drowns the others), or
where scores blow up in half precision: they cannot leave -1 / t to 1 / t.

Here one token is made a hundred times longer: the dot product then looks at nothing else.
"""

import show
import torch

from mmattn import Tokens
from mmattn import attention as A

DOT = A.Program(score=A.dot())
PROGRAM = A.Program(score=A.cosine >> A.temperature(A.learned("t", 0.2)))


def main() -> dict[str, float]:
    """Returns how much the weights of the others change when one token grows, for each score."""
    torch.manual_seed(0)
    words_TD = torch.randn(6, 8)
    loud_TD = words_TD * torch.tensor([1.0, 1.0, 100.0, 1.0, 1.0, 1.0])[:, None]
    changes = {}
    for name, program in (("dot", DOT), ("cosine", PROGRAM)):
        layer = show.bare(A.Attention(program, dim=8, heads=2))
        before, after = (
            show.weights(layer, Tokens.from_sequences([values], "text")).mean(0)
            for values in (words_TD, loud_TD)
        )
        changes[name] = (after - before).abs().max().item()
        if name == "cosine":
            show.tell(layer, Tokens.from_sequences([words_TD], "text"))
        print(f"\n{name}: weights before and after word 2 grows a hundredfold")
        for old, new in zip(before.tolist(), after.tolist(), strict=True):
            print("   ", *(f"{x:.2f}" for x in old), "  ", *(f"{x:.2f}" for x in new))
    return changes


if __name__ == "__main__":
    show.run(main, PROGRAM)
