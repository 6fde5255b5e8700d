"""Content similarities of items [I, I] for `KernelRidge`: cosine, tags, numbers, and their combinations.

An item without content has zero similarity to every item: its row and column are zero, never imputed.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from mmattn.errors import InputError

__all__ = ["concat_normalized", "cosine", "exponential", "gaussian", "tag_matrix", "tfidf", "weighted_sum"]

Kernel = NDArray[np.float64]


def cosine(features: NDArray[np.floating] | sparse.csr_array) -> Kernel:
    """Cosine similarity of the rows.

    A zero row (no content) has zero similarity to every row, itself included.

    Args:
        features: [I, F] pooled content or a sparse tag matrix.

    Returns:
        [I, I] similarities.

    Example:
        >>> cosine(np.array([[3.0, 4.0], [4.0, 3.0], [0.0, 0.0]])).round(2).tolist()
        [[1.0, 0.96, 0.0], [0.96, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    if sparse.issparse(features):
        unit = _normalize_sparse_rows(features)
        return (unit @ unit.T).toarray()
    unit_IF = _normalize_rows(features)
    return unit_IF @ unit_IF.T


def concat_normalized(*parts: NDArray[np.floating]) -> NDArray[np.float64]:
    """Concatenate features after scaling the rows of each part to length 1, so that the parts weigh the same.

    Args:
        *parts: features [I, F1], [I, F2], ...; zero rows stay zero.

    Returns:
        [I, F1 + F2 + ...].

    Example:
        >>> concat_normalized(np.array([[2.0]]), np.array([[3.0, 4.0]])).tolist()
        [[1.0, 0.6, 0.8]]
    """
    return np.hstack([_normalize_rows(part) for part in parts])


def tag_matrix(tags: Sequence[Iterable[Hashable]]) -> sparse.csr_array:
    """Binary item-tag matrix; columns are numbered in order of first appearance.

    Args:
        tags: the tags of each of I items; duplicates within an item count once.

    Returns:
        [I, number of distinct tags] of ones.

    Example:
        >>> tag_matrix([["director:Lasseter", "year:1995"], [], ["year:1995"]]).toarray().tolist()
        [[1.0, 1.0], [0.0, 0.0], [0.0, 1.0]]
    """
    columns: dict[Hashable, int] = {}
    chosen = [
        [columns.setdefault(tag, len(columns)) for tag in dict.fromkeys(item_tags)] for item_tags in tags
    ]
    lengths = [len(item_tags) for item_tags in chosen]
    indices = np.fromiter((column for item_tags in chosen for column in item_tags), np.int64, sum(lengths))
    pointers = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return sparse.csr_array((np.ones(len(indices)), indices, pointers), shape=(len(tags), len(columns)))


def tfidf(tags: sparse.csr_array) -> sparse.csr_array:
    """Weight tags by rarity, log((1 + I) / (1 + items with the tag)) + 1, as scikit-learn does.

    Args:
        tags: [I, T] binary tag matrix, see `tag_matrix`.

    Returns:
        [I, T], not normalized.

    Example:
        >>> tfidf(tag_matrix([["a"], ["a", "b"], []])).toarray().round(3).tolist()
        [[1.288, 0.0], [1.288, 1.693], [0.0, 0.0]]
    """
    items = tags.shape[0]
    carriers = np.bincount(tags.indices, minlength=tags.shape[1])
    return sparse.csr_array(tags @ sparse.diags_array(np.log((1 + items) / (1 + carriers)) + 1))


def gaussian(values: ArrayLike, bandwidth: float) -> Kernel:
    """Gaussian similarity exp(-(difference / bandwidth)^2 / 2) of one number per item, for example the year.

    Args:
        values: [I] numbers; NaN means unknown and has zero similarity to every item.
        bandwidth: standard deviation, in the unit of `values`.

    Returns:
        [I, I] similarities.

    Raises:
        InputError: values that are not one-dimensional, or a bandwidth of 0 or less.

    Example:
        >>> gaussian([1995, 2000, float("nan")], bandwidth=5.0).round(3).tolist()
        [[1.0, 0.607, 0.0], [0.607, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    numbers_I = np.asarray(values, np.float64)
    if numbers_I.ndim != 1 or not bandwidth > 0:
        raise InputError(
            f"gaussian: got shape {numbers_I.shape} and width {bandwidth}, expected [I] and above 0"
        )
    kernel_II = np.exp(-0.5 * np.square((numbers_I[:, None] - numbers_I) / bandwidth))
    return np.nan_to_num(kernel_II, nan=0.0)


def weighted_sum(*parts: tuple[float, Kernel]) -> Kernel:
    """Weighted sum of kernels; with non-negative weights it is a kernel again.

    Args:
        *parts: (weight, kernel [I, I]) pairs.

    Returns:
        [I, I] similarities.

    Raises:
        InputError: no parts, a negative weight, or kernels of different shapes.

    Example:
        >>> weighted_sum((1.0, np.eye(2)), (0.25, np.ones((2, 2)))).tolist()
        [[1.25, 0.25], [0.25, 1.25]]
    """
    if not parts or any(weight < 0 or kernel.shape != parts[0][1].shape for weight, kernel in parts):
        described = [(weight, kernel.shape) for weight, kernel in parts]
        raise InputError(f"weighted_sum: got {described}, expected weights from 0 and kernels of one shape")
    total = np.zeros(parts[0][1].shape)
    for weight, kernel in parts:
        total += weight * kernel
    return total


def exponential(kernel: Kernel, scale: float = 0.5) -> Kernel:
    """Elementwise exp(scale * K), which adds products of similarities ("same genre and same director").

    Args:
        kernel: [I, I] similarities.
        scale: weight of the higher-order products.

    Returns:
        [I, I] similarities.

    Example:
        >>> exponential(np.array([[2.0]])).round(4).tolist()
        [[2.7183]]
    """
    return np.exp(scale * kernel)


def _normalize_rows(features: NDArray[np.floating]) -> NDArray[np.float64]:
    features_IF = np.asarray(features, np.float64)
    return features_IF / np.maximum(np.linalg.norm(features_IF, axis=1, keepdims=True), 1e-12)


def _normalize_sparse_rows(features: sparse.csr_array) -> sparse.csr_array:
    lengths_I = np.sqrt(np.asarray(features.multiply(features).sum(axis=1))).ravel()
    return sparse.csr_array(sparse.diags_array(1 / np.maximum(lengths_I, 1e-12)) @ features)
