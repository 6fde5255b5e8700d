"""The fusion block against padded transformer layers, forward and with backward: time and peak memory.

    mmattn bench fusion [--repeat 5] [--device cpu] [--cases mmattn "padded layer"]

Samples of three modalities: text of 8 to 64 tokens, an image of 49, audio of 0 to 200; each is absent with
probability 0.3. The block is built as a user builds it. The layers, padded and written out, hold its very
weights, and their results are compared with its own before anything is timed. Everybody starts from tokens
in its own form (sorting and padding cost nothing) and gets a gradient for every token and weight.
One thread, one process, the baselines in turn, medians of processor time.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from workloads import multimodal

from mmattn import attention as A
from mmattn.attention.layer.linear import is_onednn_available, use_onednn
from mmattn.fusion.block import FusionBlock
from mmattn.testing.measuring import (
    Report,
    chosen,
    devices,
    dtype_on,
    in_turn,
    matmul_peak,
    peak_megabytes,
    seconds_on,
    torch_options,
)
from mmattn.types import Tokens

OURS, PADDED, SORTED = "mmattn", "padded layer", "sub-batches of 32"


@dataclass(frozen=True)
class Variant:
    """One way to run the layer.

    Args:
        name: in the table.
        module: whose weights get gradients.
        pieces: (inputs, gradient of the results) of each call, already in the baseline's form.
        call: a piece's inputs, the first of which is differentiable -> results.
        real: the results at the tokens, in the tokens' order [N, D], from those of all calls; None where
            the baseline computes something else.
        onednn: let `Linear` multiply by oneDNN (an option that is off by default).
    """

    name: str
    module: nn.Module
    pieces: list[tuple[tuple[Tensor, ...], Tensor]]
    call: Callable[..., Tensor]
    real: Callable[[list[Tensor]], Tensor] | None = None
    onednn: bool = False

    def forward(self) -> None:
        with torch.no_grad(), _onednn(self.onednn):
            for inputs, _ in self.pieces:
                self.call(*inputs)

    def backward(self) -> None:
        """Forward and backward."""
        self.module.zero_grad()
        with _onednn(self.onednn):
            for (values, *others), gradient in self.pieces:
                self.call(values.detach().requires_grad_(), *others).backward(gradient)

    def gap(self, expected: Tensor) -> float:
        """The largest difference at a token."""
        if self.real is None:
            return float("nan")
        with torch.no_grad(), _onednn(self.onednn):
            actual = self.real([self.call(*inputs) for inputs, _ in self.pieces])
        return float((actual - expected).abs().max())


@contextmanager
def _onednn(enabled: bool) -> Iterator[None]:
    use_onednn(enabled)
    try:
        yield
    finally:
        use_onednn(False)


class EagerLayer(nn.Module):
    """The layer with its attention written out, the weights of a `TransformerEncoderLayer`."""

    def __init__(self, layer: nn.TransformerEncoderLayer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        layer, attention = self.layer, self.layer.self_attn
        packed = F.linear(layer.norm1(x_BTD), attention.in_proj_weight, attention.in_proj_bias)
        q, k, v = (
            x.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for x in packed.chunk(3, dim=-1)
        )
        scores = q @ k.mT / q.shape[-1] ** 0.5
        weights = scores.masked_fill(~mask_BT[:, None, None], float("-inf")).softmax(-1)
        x_BTD = x_BTD + attention.out_proj((weights @ v).transpose(1, 2).flatten(2))
        return x_BTD + layer.linear2(F.gelu(layer.linear1(layer.norm2(x_BTD))))


def block_of(dim: int, heads: int) -> FusionBlock:
    """A block as a user builds it, its weights as after some training: a new one is the identity."""
    block = FusionBlock(A.Attention(A.Program(), dim, heads), dim)
    with torch.no_grad():
        for last in (block.attention.o_proj, block.feed_forward[-1]):
            last.weight.normal_(std=0.02)
    return block


def layer_of(block: FusionBlock, dim: int, heads: int) -> nn.TransformerEncoderLayer:
    """PyTorch's layer with the block's weights."""
    layer = nn.TransformerEncoderLayer(
        dim, heads, 4 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    attention = block.attention
    state = {
        f"{ours}.{kind}": getattr(module, kind)
        for ours, module in {
            "norm1": block.attention_norm,
            "norm2": block.feed_forward_norm,
            "linear1": block.feed_forward[0],
            "linear2": block.feed_forward[2],
            "self_attn.out_proj": attention.o_proj,
        }.items()
        for kind in ("weight", "bias")
    }
    for kind in ("weight", "bias"):
        three = [getattr(entry, kind) for entry in (attention.q_proj, attention.k_proj, attention.v_proj)]
        state[f"self_attn.in_proj_{kind}"] = torch.cat(three)
    layer.load_state_dict(state)
    return layer


def variants(tokens: Tokens, block: FusionBlock, gradient_ND: Tensor, heads: int) -> Iterator[Variant]:
    """Everybody who runs, one after the other; the padded forms are made when they are needed."""
    dim, device, dtype = tokens.dim, tokens.device, tokens.dtype
    layer = layer_of(block.float().cpu(), dim, heads).to(device, dtype)
    block.to(device, dtype)

    def padded(part: Tokens) -> tuple[tuple[Tensor, ...], Tensor]:
        gradient_BTD, _ = part.with_values(gradient_ND[: len(part.values)]).to_padded()
        return part.to_padded(), gradient_BTD

    def encode(x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        return layer(x_BTD, src_key_padding_mask=~mask_BT)

    def ours(values: Tensor) -> Tensor:
        return block(tokens.with_values(values)).values

    packed = [((tokens.values,), gradient_ND)]
    yield Variant(OURS, block, packed, ours, lambda results: results[0])
    if device.type == "cpu" and is_onednn_available():
        yield Variant(
            "mmattn, oneDNN's products", block, packed, ours, lambda results: results[0], onednn=True
        )

    order = torch.argsort(tokens.lengths)
    parts = [tokens.select(some) for some in order.split(32)]
    pieces = [padded(part) for part in parts]

    def gathered(results: list[Tensor]) -> Tensor:
        rows = [row[:size] for result, part in zip(results, parts, strict=True)
                for row, size in zip(result, part.length_list, strict=True)]  # fmt: skip
        return torch.cat([rows[index] for index in torch.argsort(order).tolist()])

    yield Variant(SORTED, layer, pieces, encode, gathered)
    whole = [padded(tokens)]

    def there(results: list[Tensor]) -> Tensor:
        return results[0][whole[0][0][1]]

    yield Variant(PADDED, layer, whole, encode, there)
    yield Variant("eager layer", eager := EagerLayer(layer), whole, eager, there)
    theirs = x_transformer(dim, heads).to(device, dtype)
    yield Variant("x-transformers", theirs, whole, lambda x, mask: theirs(x, mask=mask))


def x_transformer(dim: int, heads: int) -> nn.Module:
    """Its encoder of one layer, with SDPA inside; its projections have no bias, which spares it a little."""
    from x_transformers import Encoder

    return Encoder(
        dim=dim,
        depth=1,
        heads=heads,
        attn_dim_head=dim // heads,
        attn_flash=True,
        ff_mult=4,
        pre_norm_has_final_norm=False,
    )


def operations(tokens: Tokens, gradient: bool) -> float:
    """Floating point operations that the real tokens need: products only, nothing recomputed."""
    products = 4 * tokens.dim**2 + 2 * 4 * tokens.dim**2
    pairs = sum(size**2 for size in tokens.length_list)
    forward = 2 * len(tokens.values) * products + 4 * pairs * tokens.dim
    return forward * (3 if gradient else 1)


def measure(report: Report, arguments: argparse.Namespace, device: str) -> None:
    """Both tables of one device."""
    dtype = dtype_on(device, arguments)
    usual = (1024, 1024, 16) if device == "cuda" else (256, 256, 8)
    requested = (arguments.samples, arguments.dim, arguments.heads)
    samples, dim, heads = (packed or default for packed, default in zip(requested, usual, strict=True))
    tokens = multimodal(samples, dim).to(device, dtype)
    gradient_ND = torch.randn_like(tokens.values)
    block = block_of(dim, heads)
    running = [
        variant
        for variant in variants(tokens, block, gradient_ND, heads)
        if chosen(variant.name, arguments.cases)
    ]
    peak = matmul_peak(device, dtype)
    sizes = tokens.length_list
    in_parts = sum(max(some) * len(some) for some in _every(sorted(sizes), 32))
    report.note(
        f"{len(tokens)} samples, {sum(sizes):,} tokens, longest {max(sizes)}; real tokens: "
        f"{sum(sizes) / len(sizes) / max(sizes):.1%} of the padded places, {sum(sizes) / in_parts:.1%} in "
        f"sub-batches; width {dim}, {heads} heads, {dtype}; the fastest matrix product "
        f"here: {peak / 1e9:,.0f} GFLOP/s"
    )
    with torch.no_grad():
        expected = block(tokens).values
    for gradient in (False, True):
        report.table(
            f"{'forward + backward' if gradient else 'forward'} on {device}",
            ["layer", "s", "times mmattn's", "tokens/s", "of the matmul peak", "peak MB", "of padded", "gap"],
        )
        runs = {entry.name: entry.backward if gradient else entry.forward for entry in running}
        for element in running:
            element.module.train(gradient)
        memory = dict.fromkeys(runs, float("nan"))
        if not arguments.no_memory:
            memory = {
                entry.name: peak_megabytes(runs[entry.name], device, entry.module.zero_grad)
                for entry in running
            }
        seconds = in_turn(runs, arguments.repeat, seconds_on(device))
        for element in running:
            took = seconds[element.name]
            report.row(
                element.name,
                took,
                took / seconds.get(OURS, float("nan")),
                f"{len(tokens.values) / took:,.0f}",
                f"{operations(tokens, gradient) / took / peak:.1%}",
                memory[element.name],
                memory[element.name] / memory.get(PADDED, float("nan")),
                f"{gap:.0e}" if (gap := element.gap(expected)) == gap else "-",
            )


def _every(numbers: list[int], size: int) -> list[list[int]]:
    return [numbers[i : i + size] for i in range(0, len(numbers), size)]


def main() -> None:
    parser = torch_options(__doc__, repeat=5)
    parser.add_argument("--samples", type=int, help="by default 256, on a GPU 1024")
    parser.add_argument("--dim", type=int, help="width, by default 256, on a GPU 1024")
    parser.add_argument("--heads", type=int, help="by default 8, on a GPU 16")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    report = Report(arguments, "x-transformers")
    for device in devices(arguments, report):
        measure(report, arguments, device)
    report.close()


if __name__ == "__main__":
    main()
