"""Retrieval against faiss: exact search beside IndexFlatIP, and what Index.build chooses.

    OMP_WAIT_POLICY=PASSIVE OPENBLAS_NUM_THREADS=1 \\
    python tests/benchmarks/bench_retrieval.py [--count 1000000] [--dim 64] [--threads 2] [--skip-build]

Vectors are clustered, of unit length, as embeddings are; queries are held out. The rivals run in turn in
one process, each as often as the other, and the medians count. Without these two settings the threads of
torch, faiss and OpenBLAS wait for each other by spinning, and everybody is several times slower.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import faiss
import numpy as np
import torch

from mmattn.retrieval.exact import ExactSearch
from mmattn.retrieval.index import Index

K, BATCH = 10, 200


def clustered(count: int, dim: int, seed: int) -> np.ndarray:
    """[count, dim] of unit length, around a thousand centres of uneven sizes."""
    centres = np.random.default_rng(0).standard_normal((1000, dim), dtype=np.float32)
    rng = np.random.default_rng(seed)
    sizes = 1 / np.arange(1, 1001) ** 0.5
    points = centres[rng.choice(1000, size=count, p=sizes / sizes.sum())]
    points += 0.8 * rng.standard_normal(points.shape, dtype=np.float32)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def in_turn(rivals: dict[str, Callable[[], object]], repeat: int) -> dict[str, float]:
    """Median seconds of each."""
    times: dict[str, list[float]] = {name: [] for name in rivals}
    for turn in range(repeat + 1):
        for name, run in rivals.items():
            start = time.perf_counter()
            run()
            if turn:  # the first one warms up
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def exact(vectors: np.ndarray, queries: np.ndarray, repeat: int) -> None:
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    search = ExactSearch(vectors)
    batch = queries[:BATCH]
    usual = faiss.cvar.distance_compute_blas_threshold

    def with_blas() -> None:
        faiss.cvar.distance_compute_blas_threshold = 20
        flat.search(batch, K)
        faiss.cvar.distance_compute_blas_threshold = usual

    (scores, rows), (expected, _) = search(batch, K), flat.search(batch, K)
    print(f"largest difference of a score: {np.abs(scores - expected).max():.1e}")
    print(f"same neighbours: {np.mean(rows == flat.search(batch, K)[1]):.4f}")
    rivals: dict[str, Callable[[], object]] = {
        "IndexFlatIP, defaults": lambda: flat.search(batch, K),
        "IndexFlatIP, BLAS threshold 20": with_blas,
        "mmattn exact": lambda: search(batch, K),
    }
    times = in_turn(rivals, repeat)
    for name, seconds in times.items():
        speed = times["IndexFlatIP, defaults"] / seconds
        print(f"{name:<32} {BATCH / seconds:>8,.0f} queries/s  {speed:>5.2f} times")


def built(vectors: np.ndarray, queries: np.ndarray) -> None:
    start = time.perf_counter()
    index = Index.build(vectors, target_recall=0.95, kind="ann")
    print(f"Index.build: {time.perf_counter() - start:.0f} s\n{index.plan()}")
    truth = index.search(queries[:2000], K, exact=True).ids
    found = index.search(queries[:2000], K).ids
    print(f"held-out recall@{K}: {(truth[:, :, None] == found[:, None, :]).any(2).mean():.4f}")
    seconds = in_turn({"search": lambda: index.search(queries, K)}, 3)["search"]
    print(f"{len(queries) / seconds:,.0f} queries/s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of this process: {peak:,.0f} MB; the vectors are {vectors.nbytes / 2**20:,.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--skip-build", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    faiss.omp_set_num_threads(arguments.threads)
    vectors = clustered(arguments.count, arguments.dim, 1)
    queries = clustered(10_000, arguments.dim, 2)
    print(f"{arguments.count:,} x {arguments.dim}, top {K}, {arguments.threads} threads")
    exact(vectors, queries, arguments.repeat)
    if not arguments.skip_build:
        built(vectors, queries)


if __name__ == "__main__":
    main()
