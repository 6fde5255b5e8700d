"""Data types shared by all packages: `Sample`, `Tokens`, `Fused`.

Shape legend, used as name suffixes throughout the project: B samples, N tokens in all (jagged),
T padded length, D width, H heads, K width of a head, M modalities, U users, I items.

**An absent modality has no tokens**: it is never represented by a zero vector, a mean vector or another
item's vector.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from mmattn.errors import InputError, did_you_mean

__all__ = ["Fused", "Sample", "Tokens"]


@dataclass(frozen=True)
class Sample:
    """One raw sample: an item, a scene, an utterance. Any modality may be absent.

    Args:
        id: name under which results are reported.
        content: modality name -> raw value (a string, a path, an image, a clip, a list of categories, ...) in
            a form that the modality's encoder accepts. None means absent: the key is dropped.

    Raises:
        InputError: the id is not a string, or a modality name is not a non-empty string.

    Example:
        >>> film = Sample("1", {"text": "Toy Story (1995)", "image": None})
        >>> film.modalities
        ('text',)
    """

    id: str
    content: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.id, str):
            raise InputError(f"Sample.id: got {self.id!r} ({type(self.id).__name__}), expected a string")
        for name in self.content:
            if not isinstance(name, str) or not name:
                raise InputError(
                    f"Sample {self.id!r}: got modality name {name!r}, expected a non-empty string"
                )
        present = {name: value for name, value in self.content.items() if value is not None}
        object.__setattr__(self, "content", MappingProxyType(present))

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the present modalities."""
        return tuple(self.content)

    def __reduce__(self) -> tuple[Any, ...]:  # a mapping proxy does not pickle; workers need samples
        return Sample, (self.id, dict(self.content))


@dataclass(frozen=True, eq=False)
class Tokens:
    """A batch of token sequences of different lengths, without padding.

    Sample b owns the tokens `offsets[b]` to `offsets[b + 1] - 1` of every [N]-shaped field. A sample may have
    no tokens, and so may the whole batch.

    Args:
        values: [N, D] floating point.
        offsets: [B + 1] int64, starting at 0, non-decreasing, ending at N.
        modality: [N] int64, index into `modalities`.
        position: [N] int64, position within the sample's modality: word, patch or frame number.
        modalities: names of the modalities; a modality may have no tokens.
        time: [N] floating point, seconds, NaN where unknown; None if no token has a time.
        entity: [N] int64 knowledge-graph entity, -1 for none; None if no token has an entity.

    Raises:
        InputError: a field does not match the others; the message gives its value and the expected one.

    Example:
        >>> import torch
        >>> two = Tokens.from_sequences([torch.ones(2, 4), torch.zeros(0, 4)], "text")
        >>> len(two), two.lengths.tolist(), two.presence.tolist()
        (2, [2, 0], [[True], [False]])
    """

    values: Tensor
    offsets: Tensor
    modality: Tensor
    position: Tensor
    modalities: tuple[str, ...]
    time: Tensor | None = None
    entity: Tensor | None = None
    # Cache of values derived from the layout alone (lengths, sample of each token, ...). It is shared by all
    # `Tokens` that differ only in `values`, so a stack of layers derives them once.
    _layout: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "modalities", tuple(self.modalities))
        _check_values("values", self.values)
        _check_layout(self)

    # --- construction ---------------------------------------------------------------------------

    @classmethod
    def from_sequences(
        cls, sequences: Sequence[Tensor], modality: str, *, entity: Sequence[Tensor] | None = None
    ) -> Tokens:
        """Tokens of one modality, with positions counted from 0.

        Args:
            sequences: B tensors [T_b, D]; T_b may be 0.
            modality: name of the modality.
            entity: B tensors [T_b] of knowledge-graph entities; None for none.

        Raises:
            InputError: no sequences (the width would be unknown), or different widths.
        """
        if not sequences:
            raise InputError("Tokens.from_sequences: got no sequences, expected at least one (may be [0, D])")
        shapes = [tuple(sequence.shape) for sequence in sequences]
        if any(len(shape) != 2 or shape[1] != shapes[0][1] for shape in shapes):
            raise InputError(
                f"Tokens.from_sequences: got shapes {shapes[:5]}, expected [T, D] of one width D"
            )
        values = torch.cat(list(sequences))
        lengths = torch.tensor([shape[0] for shape in shapes], device=values.device)
        return cls.from_lengths(
            values, lengths, modality, entity=None if entity is None else torch.cat(list(entity))
        )

    @classmethod
    def from_lengths(
        cls,
        values: Tensor,
        lengths: Tensor,
        modality: str,
        *,
        time: Tensor | None = None,
        entity: Tensor | None = None,
    ) -> Tokens:
        """Tokens of one modality from packed values, with positions counted from 0.

        Args:
            values: [N, D] floating point.
            lengths: [B] number of tokens of each sample, N in total.
            modality: name of the modality.
            time: [N] seconds; None for none.
            entity: [N] knowledge-graph entities; None for none.

        Raises:
            InputError: the lengths do not add up to N.

        Example:
            >>> tokens = Tokens.from_lengths(torch.ones(3, 4), torch.tensor([2, 0, 1]), "text")
            >>> tokens.offsets.tolist(), tokens.position.tolist()
            ([0, 2, 2, 3], [0, 1, 0])
        """
        offsets = _offsets_from_lengths(lengths)
        total = int(offsets[-1])
        if total != len(values):
            raise InputError(
                f"Tokens.from_lengths: lengths add up to {total}, expected {len(values)}, the rows of values"
            )
        position = torch.arange(total, device=values.device) - offsets[:-1].repeat_interleave(
            offsets.diff(), output_size=total
        )
        return cls(
            values=values,
            offsets=offsets,
            modality=torch.zeros_like(position),
            position=position,
            modalities=(modality,),
            time=time,
            entity=entity,
        )

    @classmethod
    def empty(cls, num_samples: int, dim: int, modalities: Sequence[str] = (), **kwargs: Any) -> Tokens:
        """Samples without tokens.

        Args:
            num_samples: B.
            dim: width D.
            modalities: names of the modalities.
            **kwargs: dtype and device of the values.
        """
        values = torch.zeros(0, dim, **kwargs)
        none = torch.zeros(0, dtype=torch.int64, device=values.device)
        offsets = torch.zeros(num_samples + 1, dtype=torch.int64, device=values.device)
        return cls(values, offsets, none, none, tuple(modalities))

    @classmethod
    def from_padded(
        cls,
        values: Tensor,
        mask: Tensor,
        modality: str | Tensor,
        *,
        modalities: Sequence[str] | None = None,
        position: Tensor | None = None,
        time: Tensor | None = None,
        entity: Tensor | None = None,
    ) -> Tokens:
        """Remove the padding of a [B, T, D] batch.

        Args:
            values: [B, T, D] floating point.
            mask: [B, T] boolean, True for tokens; padding may be anywhere.
            modality: one name for all tokens, or [B, T] int64 index into `modalities`.
            modalities: names of the modalities; required if `modality` is a tensor, else ignored.
            position: [B, T] int64; None counts the tokens of a sample from 0.
            time: [B, T] seconds; None for none.
            entity: [B, T] knowledge-graph entities; None for none.

        Raises:
            InputError: shapes that do not match, or modality indices without names.

        Example:
            >>> mask = torch.tensor([[True, True], [True, False]])
            >>> Tokens.from_padded(torch.ones(2, 2, 4), mask, "text").lengths.tolist()
            [2, 1]
        """
        if values.dim() != 3 or mask.shape != values.shape[:2] or mask.dtype != torch.bool:
            raise InputError(
                f"Tokens.from_padded: got values {tuple(values.shape)} and mask {tuple(mask.shape)} "
                f"{mask.dtype}, expected [B, T, D] and a boolean [B, T]"
            )
        if position is None:
            position = mask.long().cumsum(1) - 1
        if isinstance(modality, str):
            names: tuple[str, ...] = (modality,)
            modality = torch.zeros_like(position)
        elif modalities is None:
            raise InputError("Tokens.from_padded: got modality indices, expected their names in `modalities`")
        else:
            names = tuple(modalities)
        return cls(
            values=values[mask],
            offsets=_offsets_from_lengths(mask.sum(1)),
            modality=modality[mask],
            position=position[mask],
            modalities=names,
            time=None if time is None else time[mask],
            entity=None if entity is None else entity[mask],
        )

    @classmethod
    def cat(cls, parts: Iterable[Tokens]) -> Tokens:
        """Concatenate the parts sample by sample: sample b of the result is sample b of each part, in order.

        Modalities of the same name are merged. Positions are kept, so a part that continues the modality of
        an earlier one should continue its numbering. Missing times become NaN, missing entities -1.

        Args:
            parts: tokens with the same number of samples, width, dtype and device.

        Raises:
            InputError: no parts, or parts that differ in samples, width, dtype or device.

        Example:
            >>> text = Tokens.from_lengths(torch.ones(3, 4), torch.tensor([2, 1]), "text")
            >>> image = Tokens.from_lengths(torch.ones(1, 4), torch.tensor([0, 1]), "image")
            >>> Tokens.cat([text, image]).presence.tolist()
            [[True, False], [True, True]]
        """
        parts = list(parts)
        if not parts:
            raise InputError("Tokens.cat: got no parts, expected at least one")
        first = parts[0]
        for index, part in enumerate(parts[1:], start=1):
            for what in ("num_samples", "dim", "dtype", "device"):
                got, expected = getattr(part, what), getattr(first, what)
                if got != expected:
                    raise InputError(
                        f"Tokens.cat: part {index} has {what} {got}, expected {expected} as in part 0"
                    )
        if len(parts) == 1:
            return first
        names = tuple(dict.fromkeys(name for part in parts for name in part.modalities))
        lengths_PB = torch.stack([part.lengths for part in parts])
        offsets = _offsets_from_lengths(lengths_PB.sum(0))
        # First row of each part's tokens of sample b in the result: after those of the parts before it.
        starts_PB = offsets[:-1] + lengths_PB.cumsum(0) - lengths_PB
        place_N = torch.cat(
            [
                torch.arange(len(part.values), device=first.device)
                + (starts - part.offsets[:-1])[part.sample]
                for part, starts in zip(parts, starts_PB, strict=True)
            ]
        )
        order_N = torch.empty_like(place_N)
        order_N[place_N] = torch.arange(len(place_N), device=first.device)
        renamed = [
            torch.tensor([names.index(name) for name in part.modalities] or [0], device=first.device)[
                part.modality
            ]
            for part in parts
        ]
        return cls(
            values=torch.cat([part.values for part in parts])[order_N],
            offsets=offsets,
            modality=torch.cat(renamed)[order_N],
            position=torch.cat([part.position for part in parts])[order_N],
            modalities=names,
            time=_cat_optional(parts, "time", float("nan"), order_N),
            entity=_cat_optional(parts, "entity", -1, order_N),
        )

    # --- reading --------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Number of samples B."""
        return len(self.offsets) - 1

    @property
    def num_samples(self) -> int:
        """Number of samples B."""
        return len(self)

    @property
    def dim(self) -> int:
        """Width D of a token."""
        return self.values.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the values."""
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        """Device of all tensors."""
        return self.values.device

    @property
    def lengths(self) -> Tensor:
        """[B] int64, number of tokens of each sample."""
        result: Tensor = self._cached("lengths", lambda: self.offsets.diff())
        return result

    @property
    def length_list(self) -> list[int]:
        """The lengths as a list (the first access synchronizes with the device)."""
        result: list[int] = self._cached(
            "sizes", lambda: [last - first for first, last in pairwise(self.offsets.tolist())]
        )
        return result

    @property
    def sample(self) -> Tensor:
        """[N] int64, sample number of each token."""
        result: Tensor = self._cached(
            "sample",
            lambda: torch.arange(len(self), device=self.device).repeat_interleave(
                self.lengths, output_size=len(self.values)
            ),
        )
        return result

    @property
    def presence(self) -> Tensor:
        """[B, M] boolean, whether sample b has at least one token of modality m."""
        result: Tensor = self._cached("presence", self._compute_presence)
        return result

    def _compute_presence(self) -> Tensor:
        seen_BM = torch.zeros(len(self), len(self.modalities), dtype=torch.bool, device=self.device)
        seen_BM[self.sample, self.modality] = True
        return seen_BM

    def _cached(self, name: str, compute: Any) -> Any:
        if name not in self._layout:
            self._layout[name] = compute()
        return self._layout[name]

    def modality_index(self, name: str) -> int:
        """Index of a modality in `modalities`.

        Args:
            name: name of the modality.

        Raises:
            InputError: unknown modality; the message suggests a similar name.
        """
        if name not in self.modalities:
            raise InputError(f"Tokens: no modality {name!r}.{did_you_mean(name, self.modalities)}")
        return self.modalities.index(name)

    def sequences(self) -> tuple[Tensor, ...]:
        """Values of each sample, [T_b, D] each, as views of `values` (one autograd operation for all)."""
        result: tuple[Tensor, ...] = self.values.split(self.length_list)
        return result

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.sequences())

    def __repr__(self) -> str:
        counts = {name: int((self.modality == index).sum()) for index, name in enumerate(self.modalities)}
        extra = "".join(f", {name}" for name in ("time", "entity") if getattr(self, name) is not None)
        return (
            f"Tokens({len(self)} samples, {len(self.values)} tokens of width {self.dim}, {counts}, "
            f"{str(self.dtype).removeprefix('torch.')} on {self.device}{extra})"
        )

    # --- transformations ------------------------------------------------------------------------

    def with_values(self, values: Tensor) -> Tokens:
        """Replace the values; the layout is shared and not validated again.

        Args:
            values: [N, D'] floating point.

        Raises:
            InputError: not a floating point tensor [N, D'].
        """
        _check_values("values", values)
        if len(values) != len(self.values):
            raise InputError(
                f"Tokens.with_values: got {len(values)} rows, expected {len(self.values)}, one per token"
            )
        other = object.__new__(Tokens)
        for name in ("offsets", "modality", "position", "modalities", "time", "entity", "_layout"):
            object.__setattr__(other, name, getattr(self, name))
        object.__setattr__(other, "values", values)
        return other

    def select(self, samples: Tensor | Sequence[int]) -> Tokens:
        """Select samples, in the given order; a sample may occur more than once.

        Args:
            samples: sample numbers from 0 to B - 1, or a boolean mask [B].

        Raises:
            InputError: a number outside 0 to B - 1, or a mask of another length.

        Example:
            >>> tokens = Tokens.from_lengths(torch.ones(3, 4), torch.tensor([2, 1]), "text")
            >>> tokens.select([1, 1, 0]).lengths.tolist()
            [1, 1, 2]
        """
        index = torch.as_tensor(samples, device=self.device)
        if index.dtype == torch.bool:
            if index.shape != (len(self),):
                raise InputError(f"Tokens.select: got a boolean {tuple(index.shape)}, expected [{len(self)}]")
            index = index.nonzero()[:, 0]
        index = index.long().reshape(-1)
        if len(index) and not (0 <= int(index.min()) and int(index.max()) < len(self)):
            raise InputError(
                f"Tokens.select: got samples {int(index.min())} to {int(index.max())}, "
                f"expected 0 to {len(self) - 1}"
            )
        lengths = self.lengths[index]
        offsets = _offsets_from_lengths(lengths)
        total = int(offsets[-1])
        shift = (self.offsets[:-1][index] - offsets[:-1]).repeat_interleave(lengths, output_size=total)
        return self._gather(torch.arange(total, device=self.device) + shift, offsets)

    def filter(self, keep: Tensor) -> Tokens:
        """Keep some tokens. All samples are kept, possibly without tokens.

        Args:
            keep: [N] boolean, True for tokens to keep.

        Raises:
            InputError: another shape or dtype.
        """
        if keep.shape != self.modality.shape or keep.dtype != torch.bool:
            raise InputError(
                f"Tokens.filter: got {tuple(keep.shape)} {keep.dtype}, "
                f"expected a boolean [{len(self.values)}]"
            )
        counts = torch.zeros(len(self), dtype=torch.int64, device=self.device)
        counts.index_add_(0, self.sample, keep.long())
        return self._gather(keep.nonzero()[:, 0], _offsets_from_lengths(counts))

    def select_modalities(self, *names: str) -> Tokens:
        """Keep the tokens of some modalities. All samples are kept, possibly without tokens.

        Args:
            *names: names of the modalities to keep.
        """
        wanted = torch.tensor([self.modality_index(name) for name in names], device=self.device)
        return self.filter(torch.isin(self.modality, wanted))

    def drop_modalities(self, *names: str) -> Tokens:
        """Drop the tokens of some modalities. All samples are kept, possibly without tokens.

        Args:
            *names: names of the modalities to drop.
        """
        unwanted = torch.tensor([self.modality_index(name) for name in names], device=self.device)
        return self.filter(~torch.isin(self.modality, unwanted))

    def _gather(self, index_N: Tensor, offsets: Tensor) -> Tokens:
        return replace(
            self,
            values=self.values[index_N],
            offsets=offsets,
            modality=self.modality[index_N],
            position=self.position[index_N],
            time=None if self.time is None else self.time[index_N],
            entity=None if self.entity is None else self.entity[index_N],
        )

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Tokens:
        """Move to another device, or convert the values to another dtype.

        Args:
            device: target device; None keeps the device.
            dtype: dtype of the values; None keeps the dtype.
        """
        target = self.device if device is None else torch.device(device)
        if target == self.device:
            return self if dtype in (None, self.dtype) else self.with_values(self.values.to(dtype))
        moved = self._map_tensors(lambda tensor: tensor.to(target, non_blocking=True))
        return moved if dtype is None else moved.with_values(moved.values.to(dtype))

    def pin_memory(self) -> Tokens:
        """Copy to page-locked memory, for fast transfer to a GPU."""
        return self._map_tensors(lambda tensor: tensor.pin_memory())

    def _map_tensors(self, function: Any) -> Tokens:
        fields: dict[str, Any] = {
            name: None if (tensor := getattr(self, name)) is None else function(tensor)
            for name in ("values", "offsets", "modality", "position", "time", "entity")
        }
        return replace(self, **fields)

    def to_padded(self, length: int | None = None, padding_value: float = 0.0) -> tuple[Tensor, Tensor]:
        """Convert to a padded batch.

        Args:
            length: T; None means the length of the longest sample.
            padding_value: value of the padding.

        Returns:
            Values [B, T, D] and a boolean mask [B, T], True for tokens.

        Raises:
            InputError: `length` is shorter than the longest sample.

        Example:
            >>> tokens = Tokens.from_lengths(torch.ones(3, 4), torch.tensor([2, 1]), "text")
            >>> values, mask = tokens.to_padded()
            >>> values.shape, mask.tolist()
            (torch.Size([2, 2, 4]), [[True, True], [True, False]])
        """
        longest = int(self.lengths.max()) if len(self) else 0
        length = longest if length is None else length
        if length < longest:
            raise InputError(f"Tokens.to_padded: got length {length}, expected at least {longest}")
        within_N = torch.arange(len(self.values), device=self.device) - self.offsets[:-1][self.sample]
        padded_BTD = self.values.new_full((len(self), length, self.dim), padding_value)
        padded_BTD = padded_BTD.index_put((self.sample, within_N), self.values)
        mask_BT = torch.arange(length, device=self.device) < self.lengths[:, None]
        return padded_BTD, mask_BT


@dataclass(frozen=True, eq=False)
class Fused:
    """Output of the fusion core, input of the heads.

    Args:
        tokens: fused tokens, width D.
        pooled: [B, D], one joint vector per sample (zeros for a sample without tokens).
        by_modality: [B, M, D], one vector per modality, in the order of `tokens.modalities` (zeros for absent
            modalities; use `presence` to detect them).
        presence: [B, M] boolean, whether the sample has the modality.

    Raises:
        InputError: a shape does not match the tokens.
    """

    tokens: Tokens
    pooled: Tensor
    by_modality: Tensor
    presence: Tensor

    def __post_init__(self) -> None:
        samples, kinds = len(self.tokens), len(self.tokens.modalities)
        if self.pooled.dim() != 2 or len(self.pooled) != samples:
            raise InputError(f"Fused.pooled: got {tuple(self.pooled.shape)}, expected [{samples}, D]")
        if self.by_modality.dim() != 3 or self.by_modality.shape[:2] != (samples, kinds):
            raise InputError(
                f"Fused.by_modality: got {tuple(self.by_modality.shape)}, expected [{samples}, {kinds}, D]"
            )
        if self.presence.shape != (samples, kinds) or self.presence.dtype != torch.bool:
            raise InputError(
                f"Fused.presence: got {tuple(self.presence.shape)} {self.presence.dtype}, "
                f"expected a boolean [{samples}, {kinds}]"
            )

    def __len__(self) -> int:
        """Number of samples B."""
        return len(self.tokens)


def _offsets_from_lengths(lengths: Tensor) -> Tensor:
    """[B + 1] offsets from [B] lengths."""
    return torch.nn.functional.pad(lengths.long().cumsum(0), (1, 0))


def _cat_optional(parts: Sequence[Tokens], name: str, fill_value: float, order_N: Tensor) -> Tensor | None:
    """Optional field of the concatenated parts; parts without it contribute `fill_value`."""
    given = [getattr(part, name) for part in parts]
    known = [tensor for tensor in given if tensor is not None]
    if not known:
        return None
    filled = [
        known[0].new_full((len(part.values),), fill_value) if tensor is None else tensor
        for part, tensor in zip(parts, given, strict=True)
    ]
    return torch.cat(filled)[order_N]


def _check_values(name: str, values: Tensor) -> None:
    if not isinstance(values, Tensor) or values.dim() != 2 or not values.is_floating_point():
        got = f"{tuple(values.shape)} {values.dtype}" if isinstance(values, Tensor) else type(values).__name__
        raise InputError(f"Tokens.{name}: got {got}, expected a floating point tensor [N, D]")


def _check_layout(tokens: Tokens) -> None:
    count = len(tokens.values)
    if len(set(tokens.modalities)) != len(tokens.modalities):
        raise InputError(f"Tokens.modalities: got {tokens.modalities}, expected distinct names")
    offsets = tokens.offsets
    if offsets.dim() != 1 or len(offsets) < 1 or offsets.dtype != torch.int64:
        raise InputError(
            f"Tokens.offsets: got {tuple(offsets.shape)} {offsets.dtype}, expected int64 [B + 1]"
        )
    for name, floating in (("modality", False), ("position", False), ("time", True), ("entity", False)):
        tensor: Tensor | None = getattr(tokens, name)
        if tensor is None and name in ("time", "entity"):
            continue
        kind = "floating point" if floating else "int64"
        if (
            not isinstance(tensor, Tensor)
            or tensor.shape != (count,)
            or not (tensor.is_floating_point() if floating else tensor.dtype == torch.int64)
        ):
            got = f"{tuple(tensor.shape)} {tensor.dtype}" if isinstance(tensor, Tensor) else str(tensor)
            raise InputError(f"Tokens.{name}: got {got}, expected {kind} [{count}]")
        if tensor.device != tokens.values.device:
            raise InputError(
                f"Tokens.{name}: it is on {tensor.device}, expected {tokens.values.device} as the values are"
            )
    if offsets.device != tokens.values.device:
        raise InputError(
            f"Tokens.offsets: they are on {offsets.device}, expected {tokens.values.device} as the values are"
        )
    # One look at the contents: on a GPU these are two numbers to wait for, whatever the size.
    if bool((offsets.diff() < 0).any()) or offsets[0] != 0 or offsets[-1] != count:
        raise InputError(
            f"Tokens.offsets: got {_abbreviated(offsets)}, "
            f"expected to start at 0, never decrease and end at {count}"
        )
    if count and not (
        0 <= int(tokens.modality.min()) and int(tokens.modality.max()) < len(tokens.modalities)
    ):
        raise InputError(
            f"Tokens.modality: got {int(tokens.modality.min())} to {int(tokens.modality.max())}, "
            f"expected indices into {tokens.modalities}"
        )


def _abbreviated(tensor: Tensor) -> str:
    numbers = tensor.tolist()
    return str(numbers) if len(numbers) <= 6 else f"[{', '.join(map(str, numbers[:5]))}, ..., {numbers[-1]}]"
