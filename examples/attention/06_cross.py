"""Cross-attention: the queries come from one place, the keys from another, of other lengths and width.

Vaswani et al., "Attention Is All You Need", 2017, https://arxiv.org/abs/1706.03762 (decoder over encoder).
Reach for it where one side asks and the other answers: words over patches, a query over candidates.

Here words of width 16 ask patches of width 24. The second sample has no picture: its words get zeros, with
zero gradients, never NaN.
"""

import show
import torch

from mmattn import Tokens
from mmattn import attention as A

PROGRAM = A.Program(norm=A.softmax(sink="nothing"))


def main() -> tuple[list[int], float, bool]:
    """Returns the words' lengths that come back, what the blind sample gets, and are gradients finite?"""
    torch.manual_seed(0)
    words = Tokens.from_sequences([torch.randn(3, 16), torch.randn(5, 16)], "text")
    patches = Tokens.from_sequences([torch.randn(9, 24), torch.randn(0, 24)], "image")
    layer = A.Attention(PROGRAM, dim=16, heads=4, kv_dim=24, bias=False)
    show.tell(layer, words, patches)
    result = layer(words, patches)
    result.values.sum().backward()
    seen, blind = result.sequences()
    print(f"\nwith a picture {seen.norm(dim=1).tolist()}\nwithout {blind.norm(dim=1).tolist()}")
    weight_QK = show.weights(layer, words, patches).mean(0)
    show.shades(weight_QK, ["word 0", "word 1", "word 2"])
    print(f"the sink keeps the rest: the weights of word 0 sum to {weight_QK[0].sum():.2f}")
    finite = all(bool(p.grad.isfinite().all()) for p in layer.parameters() if p.grad is not None)
    return result.length_list, blind.abs().max().item(), finite


if __name__ == "__main__":
    show.run(main, PROGRAM)
