"""Bottleneck tokens: modalities meet in a few extra tokens, and nowhere else.

Nagrani et al., "Attention Bottlenecks for Multimodal Fusion" (MBT), 2021, https://arxiv.org/abs/2107.00135.
Reach for it where one modality is long or noisy (frames, patches): what it has to say must fit through
the bottleneck, and two modalities of n tokens cost 2 n (n + b) pairs instead of (2 n)^2.

As in the paper, each modality updates the bottleneck in a softmax of its own: half of the heads let it
read words, half sound, and the last projection joins the two.
"""

import show
import torch

from mmattn import Tokens
from mmattn import attention as A

OWN = {"text": ["text", "bottleneck"], "audio": ["audio", "bottleneck"]}
PROGRAM = A.heads(
    {
        (0, 2): A.Program(mask=A.route({**OWN, "bottleneck": ["bottleneck", "text"]})),
        (2, 4): A.Program(mask=A.route({**OWN, "bottleneck": ["bottleneck", "audio"]})),
    }
)


def main() -> tuple[list[bool], bool]:
    """Returns whether the sound reaches the words after one and two layers, and without a bottleneck."""
    torch.manual_seed(0)
    text, audio = (Tokens.from_sequences([torch.randn(n, 32)], m) for n, m in ((4, "text"), (9, "audio")))
    learned_LD = torch.nn.Parameter(torch.randn(2, 32))  # the same two tokens join every sample
    bottleneck = Tokens.from_sequences([learned_LD], "bottleneck")
    layers = [A.Attention(PROGRAM, dim=32, heads=4) for _ in range(2)]
    joint = Tokens.cat([text, bottleneck, audio])
    show.tell(layers[0], joint)
    names = ["text"] * 4 + ["bottleneck"] * 2 + ["audio"] * 9
    for heads, weight in zip(("0 and 1", "2 and 3"), show.weights(layers[0], joint)[[0, 2]], strict=True):
        print(f"\nheads {heads}; keys in the order of the queries")
        show.shades(weight, names)

    def heard(tokens: Tokens, depth: int) -> bool:
        values_ND = tokens.values.detach().requires_grad_()
        current = tokens.with_values(values_ND)
        for layer in layers[:depth]:
            current = layer(current)
        gradient_ND = torch.autograd.grad(current.values[:4].sum(), values_ND)[0]
        return bool(gradient_ND[tokens.modality == tokens.modality_index("audio")].any())

    reached = [heard(joint, 1), heard(joint, 2)]
    without = heard(joint.drop_modalities("bottleneck"), 2)
    print(f"\ndo the words hear the sound? after 1, 2 layers {reached}; without a bottleneck {without}")
    return reached, without


if __name__ == "__main__":
    show.run(main, PROGRAM)
