"""Box geometry: how two boxes lie to each other, distance and size, decides who looks at whom.

Hu et al., "Relation Networks for Object Detection", 2018, https://arxiv.org/abs/1711.11575.
Reach for it for detections, layouts, user interfaces, OCR words on a page: where things are says as much
as what they are. The four numbers do not change when a picture is moved or scaled.

Here things lie on a page at random, each should tell of its nearest neighbour, and nothing but the four
numbers of the bias is trained. `~window(0)` keeps them from looking at themselves.
"""

import show
import torch

from mmattn import Tokens
from mmattn import attention as A

PROGRAM = A.Program(score=A.dot(scale=1e-3) >> A.box_bias("layout"), mask=~A.window(0))


def main() -> tuple[float, float, list[float]]:
    """Returns how often the nearest gets most weight before and after, and what was learned of distance."""
    torch.manual_seed(0)
    pages, things = 40, 9
    centre = torch.rand(pages, things, 2)
    half = 0.05 * torch.ones(pages, things, 2)
    context = {"layout": torch.cat([centre - half, centre + half], dim=2).flatten(0, 1)}
    tokens = Tokens.from_sequences(list(torch.randn(pages, things, 8)), "box")
    apart = torch.cdist(centre, centre) + 9 * torch.eye(things)
    nearest_N = (apart.argmin(2) + things * torch.arange(pages)[:, None]).flatten()
    layer = show.bare(A.Attention(PROGRAM, dim=8, heads=1))

    def found() -> float:
        _, seen = layer(tokens, context=context, explain=A.rows(range(pages * things)))
        best = torch.stack([row.keys[row.weights[0].argmax()] for row in seen.rows])
        return (best == nearest_N).float().mean().item()

    before, target = found(), tokens.values[nearest_N]
    numbers = layer.program_parameters()["layout"]
    show.fit(
        [numbers],
        lambda: (layer(tokens, context=context).values - target).square().mean(),
        steps=100,
        rate=0.1,
    )
    show.tell(layer, tokens)
    after, learned = (
        found(),
        numbers[0, :2].tolist(),
    )  # all are of one size, so that the other two say nothing
    print(f"\nthe nearest gets most weight: {before:.0%} before, {after:.0%} after")
    for name, number in zip(("across", "down"), learned, strict=True):
        print(f"log {name}: {number:+.2f}")
    return before, after, learned


if __name__ == "__main__":
    show.run(main, PROGRAM)
