"""Where an index searches: the rule with made-up devices, and the real thing where there is one."""

from __future__ import annotations

import time
from typing import Any

import faiss
import numpy as np
import pytest
import torch

from mmattn.errors import InputError
from mmattn.retrieval.index import Index
from mmattn.retrieval.search import ann, devices
from mmattn.retrieval.search.ann import AnnSearch
from mmattn.retrieval.search.devices import choose_placement
from mmattn.retrieval.search.exact import METRICS, ExactSearch, Metric
from mmattn.retrieval.search.float32_matmul import full_precision
from mmattn.retrieval.search.index_selection import select_index
from mmattn.retrieval.search.plan import AnnSettings

GB = 2**30
VECTORS = np.random.default_rng(0).standard_normal((4001, 16)).astype(np.float32)


@pytest.mark.parametrize(
    ("asked", "count", "free", "device", "reason"),
    [
        ("auto", 10**6, [], "cpu", "there is no CUDA device"),
        ("auto", 10**6, [8 * GB], "cuda:0", "needs 2,292 MB and cuda:0 has 8,192 MB free"),
        ("auto", 10**6, [3 * GB, 9 * GB, 4 * GB], "cuda:1", "cuda:1 has 9,216 MB free"),
        ("auto", 10**6, [1 * GB], "cpu", "needs 2,292 MB and cuda:0 has 1,024 MB free"),
        ("auto", 1000, [8 * GB], "cpu", "only 1,000 vectors"),
        ("cpu", 10**6, [8 * GB], "cpu", "as asked"),
        ("cuda", 1000, [3 * GB, 9 * GB], "cuda:1", "as asked"),
        ("cuda:0", 10**6, [3 * GB, 9 * GB], "cuda:0", "as asked"),
    ],
)
def test_the_device_is_chosen_and_said(
    asked: str, count: int, free: list[int], device: str, reason: str
) -> None:
    actual = choose_placement(asked, count, 64, free)
    assert actual.device == device
    assert reason in str(actual)


@pytest.mark.parametrize(
    ("asked", "free", "message"),
    [
        ("cuda", [], "torch sees no CUDA device; expected auto or cpu"),
        ("cuda:2", [8 * GB, 8 * GB], "no device 'cuda:2', expected one of auto, cpu, cuda:0, cuda:1"),
        ("gpu", [8 * GB], "no device 'gpu', expected one of auto, cpu, cuda:0"),
        ("cuda:0", [GB], "needs 2,292 MB and cuda:0 has 1,024 MB free; expected auto or cpu"),
    ],
)
def test_a_device_that_cannot_be_had(asked: str, free: list[int], message: str) -> None:
    with pytest.raises(InputError) as caught:
        choose_placement(asked, 10**6, 64, free)
    assert message in str(caught.value)


def test_an_index_says_where_it_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "free_gpu_memory", lambda: [])
    index = Index.build(VECTORS)
    assert (index.device.device, index.plan().device) == ("cpu", "cpu: there is no CUDA device")
    assert str(index.plan()).splitlines()[1] == "on cpu: there is no CUDA device"
    assert "on cpu" in repr(index)
    with pytest.raises(InputError, match="torch sees no CUDA device"):
        Index.build(VECTORS, device="cuda")


class FakeFaiss:
    """faiss as it is where it sees a GPU; the "GPU" is the index itself, and notes what it was asked."""

    def __init__(self, gpus: int = 1, room: bool = True):
        self.gpus, self.room = gpus, room
        self.asked: list[tuple[str, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(faiss, name)

    def get_num_gpus(self) -> int:
        return self.gpus

    def StandardGpuResources(self) -> object:
        return object()

    def index_cpu_to_gpu(self, resources: object, device: int, index: Any) -> Any:
        if not self.room:
            raise RuntimeError("out of memory")
        return FakeGpuIndex(faiss.clone_index(index), self.asked)


class FakeGpuIndex:
    def __init__(self, index: Any, queries: list[tuple[str, int]]):
        self.index, self.asked = index, queries

    def search(self, queries: np.ndarray, k: int, params: Any) -> Any:
        assert params.sel is None, "faiss's GPU indexes know no filters"
        self.asked.append(("search", k))
        return self.index.search(queries, k, params=params)

    def add(self, vectors: np.ndarray) -> None:
        self.asked.append(("add", len(vectors)))
        self.index.add(vectors)


def test_plain_searches_go_to_the_gpu_and_the_rest_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeFaiss()
    search = AnnSearch.build(VECTORS, "ip", AnnSettings("IVF64,Flat", 8, 1))
    expected = search.search(VECTORS, VECTORS[:9], 5)
    monkeypatch.setattr(ann, "load_faiss", lambda: fake)
    search.to("cuda:0")
    assert search.gpu_copy is not None
    assert [part.tolist() for part in search.search(VECTORS, VECTORS[:9], 5)] == [
        part.tolist() for part in expected
    ]
    assert fake.asked == [("search", 5)]
    search.search(VECTORS, VECTORS[:9], 5, np.arange(0, 4001, 2))  # a filter
    search.search(VECTORS, VECTORS[:9], 2049)  # more than its kernels select among
    assert fake.asked == [("search", 5)]
    search.add(VECTORS[:7] * 9, 4001)
    more = np.concatenate([VECTORS, VECTORS[:7] * 9])
    assert search.search(more, VECTORS[:1], 1)[1].tolist() == [[4001]]
    assert fake.asked[1:] == [("add", 7), ("search", 1)]
    keep = np.arange(4008) < 4001
    search.remove(keep)  # faiss cannot forget on a GPU: from here on, it is a filter
    assert search.search(more[keep], VECTORS[:1], 1)[1].tolist() == [[expected[1][0, 0]]]
    assert len(fake.asked) == 3
    search.to("cpu")
    assert search.gpu_copy is None


@pytest.mark.parametrize(
    ("fake", "kind", "device"),
    [
        (FakeFaiss(gpus=0), "IVF64,Flat", "cuda:0"),  # torch sees one, faiss was built without
        (FakeFaiss(), "IVF64,Flat", "cuda:1"),
        (FakeFaiss(), "HNSW32", "cuda:0"),
        (FakeFaiss(), "IVF64,PQ8x4fs", "cuda:0"),
        (FakeFaiss(room=False), "IVF64,Flat", "cuda:0"),
        (FakeFaiss(), "IVF64,Flat", "cpu"),
    ],
)
def test_a_gpu_is_never_needed(
    fake: FakeFaiss, kind: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = AnnSearch.build(VECTORS, "ip", AnnSettings(kind, 16, 2))
    monkeypatch.setattr(ann, "load_faiss", lambda: fake)
    search.to(device)
    assert search.gpu_copy is None
    assert search.search(VECTORS, VECTORS[:3], 1)[1].shape == (3, 1)


def test_exact_search_is_taken_where_it_is_quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for, an approximate index comes. It waits here, so that the machine's load decides nothing."""
    search = AnnSearch.search

    def wait_and_search(self: AnnSearch, *arguments: Any, **options: Any) -> Any:
        time.sleep(0.1)
        return search(self, *arguments, **options)

    monkeypatch.setattr(AnnSearch, "search", wait_and_search)
    none, plan = select_index(VECTORS[:2003], "ip", target_recall=0.99)
    assert none is None
    assert plan.reason.startswith("exact search: ")
    assert [trial.recall for trial in plan.trials if trial.name == "exact search"] == [1.0]
    some, plan = select_index(VECTORS[:2003], "ip", target_recall=0.5, allow_exact=False)
    assert some is not None
    assert plan.trials[-1].verdict == "taken"


def test_scores_keep_their_digits_whatever_training_has_set() -> None:
    products = torch.backends.cuda.matmul
    for setting in ("highest", "high", "medium"):
        torch.set_float32_matmul_precision(setting)
        try:
            with full_precision(), full_precision():
                assert products.fp32_precision == "ieee"
            assert torch.get_float32_matmul_precision() == setting
        finally:
            torch.set_float32_matmul_precision("highest")


# --- where there is a GPU ------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("metric", METRICS)
def test_a_gpu_finds_what_the_cpu_finds(metric: Metric) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((300_007, 61)).astype(np.float32)
    queries = rng.standard_normal((301, 61)).astype(np.float32)
    if metric == "cosine":
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    torch.set_float32_matmul_precision("high")  # as a training script leaves it
    try:
        present = ExactSearch(vectors, metric, "cuda")
        for rows in (None, np.flatnonzero(rng.random(len(vectors)) < 0.4)):
            scores, actual = present(queries, 10, rows)
            expected, truth = ExactSearch(vectors, metric)(queries, 10, rows)
            assert (actual == truth).mean() > 0.999  # sums in another order may swap near ties
            assert scores == pytest.approx(expected, rel=1e-4, abs=1e-4)
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.gpu
def test_an_index_searches_on_the_gpu_by_itself_and_says_so() -> None:
    vectors = np.random.default_rng(2).standard_normal((200_003, 32)).astype(np.float32)
    index = Index.build(vectors, kind="exact", metadata={"part": np.arange(200_003) % 7})
    assert index.device.device.startswith("cuda:")
    assert index.plan().device.startswith("cuda:")
    here = Index.build(vectors, kind="exact", device="cpu", metadata={"part": np.arange(200_003) % 7})
    for where in (None, "part == 3"):
        ours, theirs = index.search(vectors[:99], 10, where=where), here.search(vectors[:99], 10, where=where)
        assert (ours.ids == theirs.ids).mean() > 0.999


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["IVF256,Flat", "IVF256,SQ8"])
def test_faiss_on_the_gpu_finds_what_it_finds_on_the_cpu(kind: str) -> None:
    if not faiss.get_num_gpus():
        pytest.skip("this faiss sees no GPU")
    vectors = np.random.default_rng(3).standard_normal((50_021, 32)).astype(np.float32)
    search = AnnSearch.build(vectors, "ip", AnnSettings(kind, 16, 2))
    expected = search.search(vectors, vectors[:211], 10)[1]
    search.to("cuda:0")
    assert search.gpu_copy is not None
    assert (search.search(vectors, vectors[:211], 10)[1] == expected).mean() > 0.99
