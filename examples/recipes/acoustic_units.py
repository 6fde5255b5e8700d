"""Sounds as texts without a transcript: frames become units by clustering, clips the units' n-grams.

A single voice says a word with much the same units each time, so counts of their pairs and threes do for
clips what counts of letters do for texts. Nothing but sound is learned from: no words, no labels.

Papers: Hsu et al., "HuBERT", 2021 (units by k-means); Deerwester et al., "Indexing by Latent Semantic
Analysis", 1990 (few axes of many weighted counts).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA

from mmattn.encoders.audio.log_mel import LogMel
from mmattn.encoders.base import Encoder, EncoderCard, hash_weights
from mmattn.types import Tokens

__all__ = ["AcousticUnits"]

Floats = NDArray[np.float32]
Grams = Counter[tuple[int, ...]]


class AcousticUnits(Encoder):
    """One vector a clip, from weighted counts of the units' n-grams.

    Args:
        clips: paths of the clips to learn units, weights and axes from.
        units: clusters of frames.
        orders: lengths of the n-grams.
        width: axes of the weighted counts that are kept, and width of the vectors.
        around: frames on either side that a frame is seen with.
        seed: of the clustering.
    """

    name = "acoustic-units"
    modality = "audio"
    frozen = True

    def __init__(
        self, clips: Sequence[Any], *, units: int = 256, orders: tuple[int, ...] = (2, 3), width: int = 256,
        around: int = 2, seed: int = 0,
    ):  # fmt: skip
        super().__init__()
        self.dim, self.orders, self.around = width, orders, around
        self.mel = LogMel(dim=8, sample_rate=16_000, n_mels=40).requires_grad_(False)  # for its frames alone
        frames = [self._seen(self.read(clip)) for clip in clips]
        self.axes = PCA(24, random_state=seed).fit(np.vstack(frames)[::7])
        self.clusters = MiniBatchKMeans(units, random_state=seed, n_init=1, batch_size=4096, max_iter=30)
        self.clusters.fit(self.axes.transform(np.vstack(frames)[::2]))
        counted = [self._grams(seen) for seen in frames]
        result = Counter(gram for grams in counted for gram in grams)
        kept = sorted(gram for gram, clips_with in result.items() if clips_with >= 2)
        self.place = {gram: number for number, gram in enumerate(kept)}
        self.weight = np.log(len(clips) / np.array([result[gram] for gram in kept], np.float32))
        weighted = np.stack([self._weighted(grams) for grams in counted])
        # Axes through the origin: what a clip has in common with all others is worth little already.
        self.base: Floats = np.linalg.svd(weighted, full_matrices=False)[2][:width].T

    def read(self, content: Any) -> Any:
        return self.mel.read(content)

    def encode(self, contents: Sequence[Any]) -> Tokens:
        vectors = [None if clip is None else self._vector(self.read(clip)) for clip in contents]
        return self.pack([None if vector is None else torch.from_numpy(vector)[None] for vector in vectors])

    def describe(self) -> EncoderCard:
        return EncoderCard(
            name=self.name, modality=self.modality, dim=self.dim,
            revision=hash_weights({"base": torch.from_numpy(self.base)})[:12],
            preprocessing={"orders": list(self.orders), "around": self.around},
        )  # fmt: skip

    def _vector(self, frames: Any) -> Floats:
        projected = self._weighted(self._grams(self._seen(frames))) @ self.base
        missing = self.dim - len(projected)  # fewer clips than axes were learned from
        return np.pad(projected, (0, missing)).astype(np.float32)

    def _seen(self, frames: Any) -> Floats:
        """[T, bands * (2 around + 1)]"""
        padded = np.pad(np.asarray(frames), ((self.around, self.around), (0, 0)), "edge")
        return np.hstack([padded[shift : shift + len(frames)] for shift in range(2 * self.around + 1)])

    def _grams(self, seen: Floats) -> Grams:
        """N-grams of the units; a unit that lasts counts once."""
        units = self.clusters.predict(self.axes.transform(seen))
        units = units[np.append(True, units[1:] != units[:-1])].tolist()
        return Counter(
            tuple(units[start : start + order])
            for order in self.orders
            for start in range(len(units) - order + 1)
        )

    def _weighted(self, grams: Grams) -> Floats:
        row = np.zeros(len(self.place), np.float32)
        for gram, count in grams.items():
            if gram in self.place:
                row[self.place[gram]] = np.log1p(count)
        row *= self.weight
        return row / max(float(np.linalg.norm(row)), 1e-9)
