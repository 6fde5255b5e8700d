"""Recommending from a million items: latency for one user, users a second in batch, memory.

    mmattn bench recommend [--count 1000000] [--dim 128] [--threads 2] [--users 20000] [--cases one batch]

The vectors of items, which are what they add to users too, are drawn around a thousand centres, as embeddings
lie; users have 5 to 200 items, most of them from three centres. No model is needed to recommend, so none is
there. An approximate index is suited to such users as `mmattn fit` does it. Scores go through the service
that `mmattn recommend` opens: from the ids of a history to the ids of what was found, seen items left out.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch

from mmattn.retrieval.index import Index
from mmattn.serving.batch import recommend_table
from mmattn.serving.service import RecommenderService
from mmattn.serving.unseen_search import tune_for_users
from mmattn.testing.measuring import Report, chosen, options, peak_megabytes

K, ASKED, CENTRES = 20, 500, 1000
FAISS = "faiss-gpu" if sys.platform == "linux" and platform.machine() == "x86_64" else "faiss-cpu"


def made(folder: Path, count: int, dim: int, kind: Any) -> RecommenderService:
    """A service over drawn vectors; items of one centre follow each other."""
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((CENTRES, dim), dtype=np.float32)[np.arange(count) * CENTRES // count]
    vectors += 0.8 * rng.standard_normal((count, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    years = {"year": 1950 + rng.integers(70, size=count)}
    index = Index.build(vectors, metadata=years, kind=kind, target_recall=0.95)
    index = tune_for_users(index, np.stack([vectors[history].sum(0) for history in histories(count, 200, 5)]))
    known, nothing = np.arange(1000), np.zeros((0, 0), np.float32)
    facts = {
        "kind": "recommender", "catalogue": "drawn", "columns": {"file": "items.parquet", "id": "id"},
        "model": "model", "head": "recommendation", "known": 1000, "dim": 1, "completes": False,
    }  # fmt: skip
    service = RecommenderService(
        folder / "index", index, vectors, np.zeros((dim, 1000), np.float32), known,
        np.zeros((1000, 1), np.float32), nothing, facts,
    )  # fmt: skip
    service.save()
    return RecommenderService.open(folder)


def histories(count: int, users: int, seed: int) -> list[np.ndarray]:
    """Four fifths of each from three centres, the rest from anywhere."""
    rng = np.random.default_rng(seed)
    results = []
    for length in np.exp(rng.uniform(np.log(5), np.log(200), users)).astype(int):
        centres = rng.choice(rng.integers(CENTRES, size=3), length)
        near = ((centres + rng.random(length)) * count / CENTRES).astype(int)
        results.append(np.unique(np.where(rng.random(length) < 0.8, near, rng.integers(count, size=length))))
    return results


def one(report: Report, service: RecommenderService, kind: str) -> None:
    requested = histories(len(service.index), ASKED, 2)
    for name, where in (("", None), (", where year > 1990", "year > 1990")):
        for history in requested[:20]:  # what is loaded once, and the filter's first reading
            service.recommend(history.tolist(), K, where)
        seconds = []
        for history in requested:
            ids = history.tolist()
            start = time.perf_counter()
            service.recommend(ids, K, where)
            seconds.append(time.perf_counter() - start)
        p50, p99 = np.percentile(seconds, [50, 99]) * 1e3
        report.row(f"{kind}{name}", float(p50), float(p99), 1 / float(np.mean(seconds)))


def agreement(service: RecommenderService) -> float:
    """Share of what exact search recommends that is recommended."""
    requested = histories(len(service.index), 100, 3)
    shares = []
    for history in requested:
        query = service.item_to_user[history].sum(0, keepdims=True)
        scores = (query @ service.index.matrix.T)[0]
        scores[history] = -np.inf
        best = set(np.argpartition(-scores, K)[:K].tolist())
        shares.append(len(best & set(service.recommend(history.tolist(), K).ids)) / K)
    return float(np.mean(shares))


def batch(report: Report, service: RecommenderService, kind: str, users: int, folder: Path) -> None:
    met = histories(len(service.index), users, 4)
    owner = np.repeat(np.arange(users), [len(each) for each in met])
    table = pa.table({"user": owner, "item": np.concatenate(met)})
    pa.parquet.write_table(table, folder / "users.parquet")

    def run() -> None:
        recommend_table(service, folder / "users.parquet", folder / "out.parquet", k=K, progress=False)

    def alone() -> None:  # a forked child has none of the threads that OpenMP would wait for
        torch.set_num_threads(1)
        faiss.omp_set_num_threads(1)
        run()

    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    report.row(kind, f"{users:,}", f"{len(table):,}", seconds, users / seconds, peak_megabytes(alone))


def main() -> None:
    parser = options(__doc__, repeat=1)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--kinds", nargs="+", default=["ann", "exact"])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    faiss.omp_set_num_threads(arguments.threads)
    report = Report(arguments, "numpy", "pyarrow", FAISS)
    report.note(f"{arguments.count:,} items of width {arguments.dim}, top {K}, {arguments.threads} threads")
    for kind in arguments.kinds:
        with tempfile.TemporaryDirectory() as name:
            start = time.perf_counter()
            service = made(Path(name), arguments.count, arguments.dim, kind)
            plan = service.index.plan().reason
            report.note(f"{kind}: {plan}; made, saved and opened in {time.perf_counter() - start:.0f} s")
            if kind != "exact":
                report.note(f"{kind}: finds {agreement(service):.1%} of what exact search recommends")
            if chosen("one", arguments.cases):
                report.table(f"one user, {kind}", ["search", "p50 ms", "p99 ms", "users/s"])
                one(report, service, kind)
            if chosen("batch", arguments.cases):
                columns = ["search", "users", "rows", "seconds", "users/s", "MB beside the service"]
                report.table(f"a table of users, {kind}", columns)
                users = arguments.users if service.index.approximate else arguments.users // 10
                batch(report, service, kind, users, Path(name))
    report.close()


if __name__ == "__main__":
    main()
