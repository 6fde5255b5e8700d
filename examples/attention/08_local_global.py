"""Local and global: everybody sees their neighbours, and a few tokens see and are seen by everybody.

Beltagy, Peters and Cohan, "Longformer", 2020, https://arxiv.org/abs/2004.05150; Zaheer et al., "Big Bird",
2020, https://arxiv.org/abs/2007.14062.
Reach for it for long sequences: cost grows with the length, not with its square, and any two tokens are
two layers apart.

Here word 0 hears of word 2999 through "cls" in two layers, and most pairs are never scored: the plan says
how many are.
"""

import show
import torch

from mmattn import Tokens
from mmattn import attention as A

PROGRAM = A.Program(mask=A.window(32) | A.global_tokens("cls"))


def main() -> tuple[float, list[bool]]:
    """Returns the share of pairs that is scored, and whether the last word reaches the first, by layers."""
    torch.manual_seed(0)
    cls = Tokens.from_sequences([torch.randn(1, 16)], "cls")
    tokens = Tokens.cat([cls, Tokens.from_sequences([torch.randn(3000, 16)], "text")])
    first, last = 1, 3000
    layers = [A.Attention(PROGRAM, dim=16, heads=2) for _ in range(2)]
    show.tell(layers[0], tokens)
    values_ND = tokens.values.requires_grad_()
    reached, current = [], tokens.with_values(values_ND)
    for layer in layers:
        current = layer(current)
        gradient_ND = torch.autograd.grad(current.values[first].sum(), values_ND, retain_graph=True)[0]
        reached.append(bool(gradient_ND[last].any()))
        count = int(gradient_ND.any(dim=1).sum())
        print(
            f"after {len(reached)} layer(s) word 0 depends on {count} tokens, on the last one: {reached[-1]}"
        )
    return next(iter(layers[0].plan(tokens))).density, reached


if __name__ == "__main__":
    show.run(main, A.Program(mask=A.window(2) | A.global_tokens("cls")))
