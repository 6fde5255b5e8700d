"""Tokens of other modalities change what a detector sees: on its feature maps, and on its regions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from mmattn import attention
from mmattn.attention.language.program import Heads, Program
from mmattn.types import Tokens

__all__ = ["MapConditioning", "Modulation", "RegionConditioning"]


class Modulation(nn.Module):
    """What cells or regions read from tokens scales and shifts what they make of themselves.

        cell + down(gelu(up(norm(cell)) * (1 + scale) + shift))
        scale, shift = modulate(attention(norm(cell), norm(tokens)))

    With one token every cell reads the same, and a sum alone would be lost in the heads' group norms, which
    take out what a whole map has in common. So the cell itself decides, through the gelu, whether it is what
    was asked for. The last layer starts at zero: at first nothing changes.

    Papers: Perez et al. 2018, "FiLM: Visual Reasoning with a General Conditioning Layer",
    arXiv:1709.07871; the gate at zero as in Alayrac et al. 2022, "Flamingo", arXiv:2204.14198.

    Args:
        dim: channels of the cells or regions.
        token_dim: width of the tokens.
        program: of the attention from cells to tokens.
        heads: attention heads; `dim` is a multiple of it.
        expansion: hidden width, as a multiple of `dim`.

    Example:
        >>> layer = Modulation(8, 4, attention.Program(), heads=2)
        >>> cells = Tokens.from_sequences([torch.randn(6, 8)], "cell")
        >>> said = Tokens.from_sequences([torch.randn(2, 4)], "text")
        >>> bool((layer(cells, said) == cells.values).all())
        True
    """

    def __init__(self, dim: int, token_dim: int, program: Program | Heads, heads: int, expansion: int = 2):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.token_norm = nn.LayerNorm(token_dim)  # whatever the length of the tokens, they are heard at once
        self.attention = attention.Attention(program, dim=dim, heads=heads, kv_dim=token_dim)
        self.modulate = nn.Linear(dim, 2 * expansion * dim)
        self.up = nn.Linear(dim, expansion * dim)
        self.down = nn.Linear(expansion * dim, dim)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, cells: Tokens, tokens: Tokens) -> Tensor:
        """FiLM: attention over the tokens predicts a scale and shift for each cell's features, [N, dim].

        Args:
            cells: N cells of B samples.
            tokens: of the same samples.
        """
        normed = cells.with_values(self.norm(cells.values))
        heard = tokens.with_values(self.token_norm(tokens.values))
        read_ND = self.attention(normed, heard).values
        scale_NE, shift_NE = self.modulate(read_ND).chunk(2, dim=1)
        hidden_NE = self.up(normed.values) * (1 + scale_NE) + shift_NE
        return cells.values + self.down(nn.functional.gelu(hidden_NE))


class MapConditioning(nn.Module):
    """The cells of all feature maps attend to the tokens of their sample, as modality "cell".

    A sample without tokens leaves as it came, to the bit.

    Args:
        layers: one for all maps, or one each.

    Example:
        >>> layer = MapConditioning([Modulation(8, 4, attention.Program(), heads=2)])
        >>> maps = {"0": torch.randn(1, 8, 3, 5)}
        >>> layer(maps, Tokens.from_sequences([torch.randn(2, 4)], "text"))["0"].shape
        torch.Size([1, 8, 3, 5])
    """

    def __init__(self, layers: Sequence[Modulation]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, maps: Mapping[str, Tensor], tokens: Tokens) -> OrderedDict[str, Tensor]:
        """Maps [B, C, h, w] by name, changed where there are tokens.

        Args:
            maps: name -> [B, C, h, w].
            tokens: of B samples.
        """
        conditioned = tokens.lengths.nonzero()[:, 0]
        if not len(conditioned):
            return OrderedDict(maps)
        heard = tokens if len(conditioned) == len(tokens) else tokens.select(conditioned)
        cells = {name: features[conditioned].flatten(2).transpose(1, 2) for name, features in maps.items()}
        if len(self.layers) == 1:  # one call for all levels
            joined_BTC = self._modulate_level(0, torch.cat(list(cells.values()), dim=1), heard)
            changed = joined_BTC.split([part.shape[1] for part in cells.values()], dim=1)
        else:
            changed = tuple(
                self._modulate_level(level, part, heard) for level, part in enumerate(cells.values())
            )
        return OrderedDict(
            (name, features.index_copy(0, conditioned, part.transpose(1, 2).unflatten(2, features.shape[2:])))
            for (name, features), part in zip(maps.items(), changed, strict=True)
        )

    def _modulate_level(self, level: int, cells_BTC: Tensor, tokens: Tokens) -> Tensor:
        samples, count = cells_BTC.shape[:2]
        lengths = torch.full((samples,), count, device=cells_BTC.device)
        queries = _to_queries(cells_BTC.flatten(0, 1), lengths, "cell", "region")
        return self.layers[level](queries, tokens).unflatten(0, (samples, count))


class RegionConditioning(nn.Module):
    """Regions, pooled and brought to a vector, attend to the tokens of their sample, as modality "region".

    Args:
        layer: of the vectors' width.

    Example:
        >>> layer = RegionConditioning(Modulation(8, 4, attention.Program(), heads=2))
        >>> said = Tokens.from_sequences([torch.randn(2, 4), torch.zeros(0, 4)], "text")
        >>> layer(torch.randn(5, 8), [3, 2], said).shape
        torch.Size([5, 8])
    """

    def __init__(self, layer: Modulation):
        super().__init__()
        self.layer = layer

    def forward(self, regions: Tensor, counts: Sequence[int], tokens: Tokens) -> Tensor:
        """Vectors [R, D] of the samples' regions, `counts` of each, changed where there are tokens.

        Args:
            regions: [R, D] vectors of regions.
            counts: number of regions of each sample.
            tokens: of B samples.
        """
        lengths = torch.tensor(counts, device=regions.device)
        all_regions = _to_queries(regions, lengths, "region", "cell")
        there_N = (tokens.lengths > 0)[all_regions.sample]
        if not bool(there_N.any()):
            return regions
        rows = there_N.nonzero()[:, 0]
        return regions.index_copy(0, rows, self.layer(all_regions.filter(there_N), tokens))


def _to_queries(values: Tensor, lengths: Tensor, modality: str, other: str) -> Tokens:
    """Queries that know both modalities, so that a route may name either, whichever is at hand."""
    return replace(Tokens.from_lengths(values, lengths, modality), modalities=(modality, other))
