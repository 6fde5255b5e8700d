"""Perceiver latents: a few learned tokens read everything, and the rest of the model works on them alone.

Jaegle et al., "Perceiver: General Perception with Iterative Attention", 2021,
https://arxiv.org/abs/2103.03206; as a resampler: Alayrac et al., "Flamingo", 2022,
https://arxiv.org/abs/2204.14198.
Reach for it where inputs are long or of very different lengths: n tokens cost n L pairs once, and every
sample comes out with L tokens, whatever it had.

Queries are the latents, keys all tokens of the sample; the second layer is self-attention among latents.
"""

import show
import torch

from mmattn import Tokens
from mmattn import attention as A

LATENTS = 4
PROGRAM = A.Program(score=A.dot() >> A.modality_bias("reads"))


def main() -> tuple[list[int], int, float]:
    """Returns the lengths that come out, the pairs scored, and the weight of sounds before and after."""
    torch.manual_seed(0)
    lengths = {"text": [300, 0, 12], "image": [49, 0, 0], "audio": [700, 0, 90]}
    tokens = Tokens.cat(
        Tokens.from_lengths(torch.randn(sum(counts), 32), torch.tensor(counts), name)
        for name, counts in lengths.items()
    )
    learned_LD = torch.nn.Parameter(torch.randn(LATENTS, 32))
    latents = Tokens.from_sequences([learned_LD] * len(tokens), "latent")
    read = A.Attention(PROGRAM, dim=32, heads=4)
    think = A.Attention(A.Program(), dim=32, heads=4)
    read.register_modalities(["text", "image", "audio", "latent"])
    show.tell(read, latents, tokens)
    heard = read(latents, tokens)
    result = think(latents.with_values(latents.values + heard.values))
    pairs = LATENTS * len(tokens.values)
    squared = sum(size**2 for size in tokens.length_list)
    print(f"\n{tokens.length_list} tokens in, {result.length_list} out; {pairs:,} pairs, not {squared:,}")
    with torch.no_grad():  # one number tells every latent to leave the long sound alone
        read.program_parameters()["reads"][:, 3, 2] = -4.0
    share = show.weights(read, latents, tokens)[:, :, -700:].sum(-1).mean().item()
    print(f"sounds are two thirds of sample 0; with a bias of -4 they get {share:.0%} of the weight")
    return result.length_list, pairs, share


if __name__ == "__main__":
    show.run(main, PROGRAM)
