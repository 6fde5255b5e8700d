"""Retrieval against faiss: exact search beside IndexFlatIP, and what Index.build chooses.

    mmattn bench retrieval [--count 1000000] [--dim 64] [--threads 2] [--cases exact build]

Vectors are clustered, of unit length, as embeddings are; queries are held out. The baselines run in turn in
one process, each as often as the other, and the medians of wall time count. Threads of torch, faiss and
OpenBLAS that wait for each other by spinning make everybody several times slower: unless the environment
says otherwise, they sleep (OMP_WAIT_POLICY=PASSIVE) and OpenBLAS has one (OPENBLAS_NUM_THREADS=1).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import platform
import resource
import sys
import time
from collections.abc import Callable

import faiss
import numpy as np
import torch

from mmattn.retrieval.index import Index
from mmattn.retrieval.search.exact import ExactSearch
from mmattn.testing.measuring import Report, chosen, in_turn, options

K, BATCH = 10, 200
FAISS = "faiss-gpu" if sys.platform == "linux" and platform.machine() == "x86_64" else "faiss-cpu"


def clustered(count: int, dim: int, seed: int) -> np.ndarray:
    """[count, dim] of unit length, around a thousand centres of uneven sizes."""
    centres = np.random.default_rng(0).standard_normal((1000, dim), dtype=np.float32)
    rng = np.random.default_rng(seed)
    sizes = 1 / np.arange(1, 1001) ** 0.5
    points = centres[rng.choice(1000, size=count, p=sizes / sizes.sum())]
    points += 0.8 * rng.standard_normal(points.shape, dtype=np.float32)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def exact(report: Report, vectors: np.ndarray, queries: np.ndarray, repeat: int) -> None:
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    search = ExactSearch(vectors)
    batch = queries[:BATCH]
    usual = faiss.cvar.distance_compute_blas_threshold

    def with_blas() -> None:
        faiss.cvar.distance_compute_blas_threshold = 20
        flat.search(batch, K)
        faiss.cvar.distance_compute_blas_threshold = usual

    (scores, rows), (expected, neighbours) = search(batch, K), flat.search(batch, K)
    report.note(
        f"exact search: largest difference of a score {np.abs(scores - expected).max():.1e}, "
        f"same neighbours {np.mean(rows == neighbours):.4f}"
    )
    baselines: dict[str, Callable[[], object]] = {
        "IndexFlatIP, defaults": lambda: flat.search(batch, K),
        "IndexFlatIP, BLAS threshold 20": with_blas,
        "mmattn exact": lambda: search(batch, K),
    }
    times = in_turn(baselines, repeat)
    report.table(f"exact search, batches of {BATCH}", ["who", "queries/s", "times IndexFlatIP's defaults"])
    for name, seconds in times.items():
        report.row(name, f"{BATCH / seconds:,.0f}", times["IndexFlatIP, defaults"] / seconds)


def built(report: Report, vectors: np.ndarray, queries: np.ndarray) -> None:
    start = time.perf_counter()
    index = Index.build(vectors, target_recall=0.95)
    report.note(f"Index.build: {time.perf_counter() - start:.0f} s\n{index.plan()}")
    truth = index.search(queries[:2000], K, exact=True).ids
    actual = index.search(queries[:2000], K).ids
    report.note(f"held-out recall@{K}: {(truth[:, :, None] == actual[:, None, :]).any(2).mean():.4f}")
    seconds = in_turn({"search": lambda: index.search(queries, K)}, 3)["search"]
    report.note(f"{len(queries) / seconds:,.0f} queries/s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report.note(
        f"peak memory of this process: {peak:,.0f} MB; the vectors are {vectors.nbytes / 2**20:,.0f} MB"
    )


def main() -> None:
    parser = options(__doc__, repeat=3)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    faiss.omp_set_num_threads(arguments.threads)
    report = Report(arguments, "numpy", FAISS)
    vectors = clustered(arguments.count, arguments.dim, 1)
    queries = clustered(10_000, arguments.dim, 2)
    report.note(f"{arguments.count:,} x {arguments.dim}, top {K}, {arguments.threads} threads")
    if chosen("exact", arguments.cases):
        exact(report, vectors, queries, arguments.repeat)
    if chosen("build", arguments.cases):
        built(report, vectors, queries)
    report.close()


if __name__ == "__main__":
    main()
