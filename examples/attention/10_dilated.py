"""Dilated attention: every few tokens, far away, at the price of a small window.

Child et al., "Generating Long Sequences with Sparse Transformers", 2019, https://arxiv.org/abs/1904.10509
(strided heads beside local ones); Ding et al., "LongNet", 2023, https://arxiv.org/abs/2307.02486.
Reach for it for audio frames, sensor readings, video: signals whose neighbours say nearly the same.

Here two heads see every frame nearby and two see every fourth frame far away. Two layers reach everything
within the far heads' reach.
"""

import show
import torch

from mmattn import Tokens
from mmattn import attention as A

PROGRAM = A.heads(
    {(0, 2): A.Program(mask=A.causal & A.window(3)), (2, 4): A.Program(mask=A.causal & A.dilated(24, 4))}
)


def main() -> tuple[list[int], list[int], int]:
    """Returns the frames that frame 30 sees near and far, and how many it depends on after two layers."""
    torch.manual_seed(0)
    frames = Tokens.from_sequences([torch.randn(31, 16)], "audio")
    first, second = (A.Attention(PROGRAM, dim=16, heads=4) for _ in range(2))
    show.tell(first, frames)
    weight_HQK = show.weights(first, frames)
    near, far = (weight_HQK[head, 30].nonzero()[:, 0].tolist() for head in (0, 2))
    print(f"\nframe 30 sees near {near}\n         and far  {far}")
    values_ND = frames.values.requires_grad_()
    result = second(first(frames.with_values(values_ND))).values[30].sum()
    depends = torch.autograd.grad(result, values_ND)[0].any(dim=1)
    print("after two layers it depends on", "".join(".x"[seen] for seen in depends.int()))
    return near, far, int(depends.sum())


if __name__ == "__main__":
    show.run(main, PROGRAM)
