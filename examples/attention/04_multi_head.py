"""Multi-head attention: several small attentions side by side, each with a view of its own.

Vaswani et al., "Attention Is All You Need", 2017, https://arxiv.org/abs/1706.03762.
Reach for it by default: `A.Program()` says nothing, so it is scaled dot product, every key, softmax.

Here it is held against `torch.nn.MultiheadAttention` with the same weights: that one needs padding and a
mask for a ragged batch, the program needs neither.
"""

import show
import torch
from torch import nn

from mmattn import Tokens
from mmattn import attention as A

PROGRAM = A.Program()


def main() -> float:
    """Returns the largest difference to PyTorch's own module over all real tokens."""
    torch.manual_seed(0)
    sentences = [torch.randn(length, 16) for length in (5, 2, 7)]
    tokens = Tokens.from_sequences(sentences, "text")
    layer = A.Attention(PROGRAM, dim=16, heads=4)
    theirs = nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        projections = (layer.q_proj, layer.k_proj, layer.v_proj)
        theirs.in_proj_weight.copy_(torch.cat([projection.weight for projection in projections]))
        theirs.in_proj_bias.copy_(torch.cat([projection.bias for projection in projections]))
        theirs.out_proj.load_state_dict(layer.o_proj.state_dict())
        padded_BTD, real_BT = tokens.to_padded()
        expected_ND = theirs(padded_BTD, padded_BTD, padded_BTD, key_padding_mask=~real_BT)[0][real_BT]
        apart = (layer(tokens).values - expected_ND).abs().max().item()
    show.tell(layer, tokens)
    print(f"\n{len(tokens.values)} tokens, {real_BT.numel()} with padding; largest difference {apart:.1e}")
    for head, weight in enumerate(show.weights(layer, tokens)):
        print(f"head {head}")
        show.shades(weight, [f"word {i}" for i in range(5)])
    return apart


if __name__ == "__main__":
    show.run(main, PROGRAM)
