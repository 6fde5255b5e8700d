"""Self-attention over all modalities of a sample at once: words, patches and sounds in one sequence.

Cheng, Dong and Lapata, "Long Short-Term Memory-Networks for Machine Reading", 2016,
https://arxiv.org/abs/1601.06733 (the name); over several modalities: Tsai et al., "Multimodal Transformer",
2019, https://arxiv.org/abs/1906.00295.
Reach for it first: fusion is then nothing but attention. `modality_bias` lets every head prefer one
modality to another.

Here three samples lack different things. What is absent has no tokens, so that nobody can look at it, and
a sample's result does not depend on who shares its batch.
"""

import show
import torch

from mmattn import Tokens
from mmattn import attention as A

PROGRAM = A.Program(score=A.dot() >> A.modality_bias("pair"))


def main() -> tuple[list[list[bool]], float]:
    """Returns who has what, and how far a sample alone is from the same sample in the batch."""
    torch.manual_seed(0)
    lengths = {"text": [3, 2, 0], "image": [4, 0, 4], "audio": [0, 5, 2]}
    tokens = Tokens.cat(
        Tokens.from_lengths(torch.randn(sum(counts), 16), torch.tensor(counts), name)
        for name, counts in lengths.items()
    )
    layer = A.Attention(PROGRAM, dim=16, heads=4)
    layer.register_modalities(tokens.modalities)
    show.tell(layer, tokens)
    print("\nwho has", ", ".join(tokens.modalities), tokens.presence.tolist())
    together = layer(tokens)
    alone = torch.cat([layer(tokens.select([sample])).values for sample in range(3)])
    apart = (together.values - alone).abs().max().item()
    print(f"together or one by one: {apart:.0e} apart")
    show.shades(show.weights(layer, tokens).mean(0), ["text"] * 3 + ["image"] * 4)
    return tokens.presence.tolist(), apart


if __name__ == "__main__":
    show.run(main, PROGRAM)
