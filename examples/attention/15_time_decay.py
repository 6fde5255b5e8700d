"""Causal attention with time decay, for histories: only the past counts, and the older, the less.

Kang and McAuley, "Self-Attentive Sequential Recommendation" (SASRec), 2018, https://arxiv.org/abs/1808.09781;
Li, Wang and McAuley, "Time Interval Aware Self-Attention" (TiSASRec), 2020,
https://dl.acm.org/doi/10.1145/3336191.3371786.
Reach for it for what users did: seconds between events say more than their number. The bias is learned a
bucket of log time, so that it can fall, rise again after a week, or stay flat.

Here the truth is an interest that fades by half in a day. Only the program is trained, 10 numbers.
"""

import show
import torch

from mmattn import Tokens
from mmattn import attention as A

DAY = 86_400.0
PROGRAM = A.Program(
    score=A.dot(scale=1e-3) >> A.time_bias("fade", buckets=10, longest=6 * DAY), mask=A.causal
)


def main() -> tuple[list[float], float]:
    """Returns the learned bias of the last buckets, and what the future changes about the past."""
    torch.manual_seed(0)
    lengths = torch.randint(5, 40, (64,))
    gap_N = DAY * torch.rand(int(lengths.sum()), dtype=torch.float64) ** 3
    time_N = torch.cat([gaps.cumsum(0) for gaps in gap_N.split(lengths.tolist())])
    events = Tokens.from_lengths(torch.randn(len(gap_N), 8), lengths, "events", time=time_N)
    layer = show.bare(A.Attention(PROGRAM, dim=8, heads=1))
    interest = []
    for values, time in zip(events.sequences(), time_N.split(lengths.tolist()), strict=True):
        weight = (0.5 ** ((time[:, None] - time) / DAY)).float().tril()
        interest.append(weight / weight.sum(1, keepdim=True) @ values)
    target = torch.cat(interest)
    before = (layer(events).values - target).square().mean().item()
    fade = layer.program_parameters()["fade"]
    after = show.fit([fade], lambda: (layer(events).values - target).square().mean(), steps=120, rate=0.1)
    show.tell(layer, events)
    print(f"\nerror {before:.4f} before, {after:.4f} after {fade.numel()} numbers are trained")
    hours = [0.0, *(seconds / 3600 for seconds in PROGRAM.chain.modifiers[0].boundaries)]
    learned = (fade[0] - fade[0, 0]).tolist()
    for hour, bias in zip(hours[5:], learned[5:], strict=True):
        print(f"from {hour:6.1f} hours ago: {bias:+.2f} {'#' * round(-10 * bias)}")
    changed = events.values.clone()
    changed[events.position >= 3] += 1.0
    early_N = events.position < 3
    leak = (layer(events.with_values(changed)).values - layer(events).values)[early_N].abs().max().item()
    print(f"a changed future moves the first three events by {leak}")
    return learned[5:], leak


if __name__ == "__main__":
    show.run(main, PROGRAM)
