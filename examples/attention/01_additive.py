"""Additive attention: a small network scores each pair, v tanh(A q + B k).

Bahdanau, Cho and Bengio, "Neural Machine Translation by Jointly Learning to Align and Translate", 2014,
https://arxiv.org/abs/1409.0473.
Reach for it where queries and keys live in different spaces, or sequences are short: it can learn matches
that no dot product has, and costs `hidden` numbers a pair.

Here it learns to read a sentence backwards, and the alignment is printed as in the paper's figure 3.
"""

import show
import torch

from mmattn import Tokens
from mmattn import attention as A

PROGRAM = A.Program(score=A.additive(hidden=16))
LENGTH, SENTENCES = 7, 32


def main() -> list[int]:
    """Learn to attend backwards; returns the key that each query looks at most."""
    torch.manual_seed(0)
    word = torch.randn(SENTENCES, LENGTH, 9)
    index = torch.eye(LENGTH).expand(SENTENCES, -1, -1)
    source = Tokens.from_sequences(list(torch.cat([word, index], dim=2)), "source")
    target = source.with_values(source.values * torch.tensor([0.0] * 9 + [1.0] * LENGTH))  # the place only
    layer = A.Attention(PROGRAM, dim=16, heads=1)
    wanted = word.flip(1).flatten(0, 1)
    loss = show.fit(
        layer.parameters(),
        lambda: (layer(target, source).values[:, :9] - wanted).square().mean(),
        steps=150,
        rate=0.03,
    )
    show.tell(layer, target, source)
    alignment = show.weights(layer, target, source)[0]
    print(f"\nafter 150 steps, error {loss:.3f} of 1:")
    show.shades(alignment, [f"target word {i}" for i in range(LENGTH)])
    return alignment.argmax(dim=1).tolist()


if __name__ == "__main__":
    show.run(main, PROGRAM)
