"""Tables of users: the same answers as one by one, in bounded memory, going on after a kill."""

from __future__ import annotations

import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from mmattn import InputError
from mmattn.retrieval.index import Index
from mmattn.serving import batch
from mmattn.serving.batch import recommend_table
from mmattn.serving.service import RecommenderService


def large(folder: Path, items: int = 211, width: int = 5) -> RecommenderService:
    rng = np.random.default_rng(0)
    vectors, maps = rng.standard_normal((2, items, width)).astype(np.float32)
    index = Index.build(vectors, np.arange(items) * 3, metadata={"even": np.arange(items) % 2 == 0})
    nothing, facts = np.zeros((0, 0), np.float32), {"kind": "recommender", "catalogue": "large"}
    facts |= {"known": 7, "dim": 2, "completes": False, "model": "model", "head": "recommendation"}  # type: ignore[dict-item]
    known, lift = np.zeros((7, 2), np.float32), np.zeros((width, 7), np.float32)
    service = RecommenderService(folder / "index", index, maps, lift, np.arange(7), known, nothing, facts)
    service.save()
    return service


def met(users: int, items: int = 211, each: int = 11, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "user": np.repeat([f"u{number}" for number in range(users)], each),
            "item": 3 * rng.integers(items, size=users * each),
        }
    )
    return table.sample(frac=1, random_state=seed)  # rows of one user stand anywhere


def write(table: pd.DataFrame, path: Path) -> Path:
    pa.parquet.write_table(pa.Table.from_pandas(table, preserve_index=False), path)
    return path


@pytest.mark.parametrize("bucket_rows", [10_000, 83])
def test_as_one_by_one(tmp_path: Path, bucket_rows: int) -> None:
    service, table = large(tmp_path), met(29)
    users, out = write(table, tmp_path / "users.parquet"), tmp_path / "out.parquet"
    counts = recommend_table(service, users, out, k=7, where="even", bucket_rows=bucket_rows, progress=False)
    assert (counts.users, counts.rows, counts.unknown) == (29, 29 * 7, 0)
    actual = pa.parquet.read_table(out).to_pandas()
    assert actual.columns.tolist() == ["user", "rank", "item", "score"]
    for user, rows in actual.groupby("user"):
        expected = service.recommend(table["item"][table["user"] == user].tolist(), 7, "even")
        assert rows["item"].tolist() == expected.ids
        assert rows["rank"].tolist() == [1, 2, 3, 4, 5, 6, 7]
        np.testing.assert_allclose(rows["score"], expected.scores, rtol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index", "out.parquet", "users.parquet"]


def test_a_user_without_items_and_one_who_has_seen_everything(tmp_path: Path) -> None:
    service = large(tmp_path, items=13)
    table = pd.DataFrame({"user": [5] + [6] * 12, "item": [None, *range(0, 36, 3)]})
    recommend_table(
        service, write(table, tmp_path / "users.parquet"), tmp_path / "out.parquet", k=3, progress=False
    )
    actual = pa.parquet.read_table(tmp_path / "out.parquet").to_pandas()
    assert actual["item"][actual["user"] == 5].tolist() == service.recommend([], 3).ids
    assert actual["item"][actual["user"] == 6].tolist() == [36]


def test_a_killed_call_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = large(tmp_path)
    users, out = write(met(31), tmp_path / "users.parquet"), tmp_path / "out.parquet"
    whole = tmp_path / "whole.parquet"
    recommend_table(service, users, whole, k=3, bucket_rows=100, progress=False)
    answered: list[str] = []
    answer = batch._recommend_bucket

    def killed(service: RecommenderService, source: Path, done: Path, *rest: Any) -> None:
        if len(answered) == 2:
            raise KeyboardInterrupt
        answered.append(done.name)
        answer(service, source, done, *rest)

    monkeypatch.setattr(batch, "_recommend_bucket", killed)
    with pytest.raises(KeyboardInterrupt):
        recommend_table(service, users, out, k=3, bucket_rows=100, progress=False)
    assert not out.exists()
    assert answered == ["00000.parquet", "00001.parquet"]

    def counted(service: RecommenderService, source: Path, done: Path, *rest: Any) -> None:
        answered.append(done.name)
        answer(service, source, done, *rest)

    monkeypatch.setattr(batch, "_recommend_bucket", counted)
    recommend_table(service, users, out, k=3, bucket_rows=100, progress=False)
    assert answered == [f"{bucket:05d}.parquet" for bucket in range(4)]  # each once
    assert pa.parquet.read_table(out).equals(pa.parquet.read_table(whole))


def test_what_was_begun_for_other_users_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service, out = large(tmp_path), tmp_path / "out.parquet"
    users = write(met(5), tmp_path / "users.parquet")
    with monkeypatch.context() as patch:
        patch.setattr(batch, "join_parquet", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            recommend_table(service, users, out, k=3, progress=False)
    write(met(6, seed=2), users)
    assert recommend_table(service, users, out, k=3, progress=False).users == 6


def test_memory_does_not_grow_with_the_users(tmp_path: Path) -> None:
    """Four times the users in buckets of one size: numpy and Arrow at their highest need hardly more."""
    service = large(tmp_path)

    def highest(users: int) -> tuple[int, int]:
        table = write(met(users), tmp_path / f"{users}.parquet")
        usual, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.system_memory_pool())
        pa.set_memory_pool(pool)
        tracemalloc.start()
        try:
            recommend_table(service, table, tmp_path / "out.parquet", bucket_rows=5000, progress=False)
            return tracemalloc.get_traced_memory()[1], pool.max_memory()
        finally:
            tracemalloc.stop()
            pa.set_memory_pool(usual)

    highest(100)  # what is loaded once
    few, many = highest(4000), highest(16_000)
    assert many[0] < 1.5 * few[0]
    assert many[1] < 1.5 * few[1] + 2**20


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"user": [1], "items": [3]}, "no column 'item'. Did you mean 'items'"),
        ({"usr": [1], "item": [3]}, "no column 'user'. Did you mean 'usr'"),
        ({"user": pa.array([], pa.int64()), "item": pa.array([], pa.int64())}, "has no rows"),
        ({"user": [1, None], "item": [3, 3]}, "1 rows without a user"),
        ({"user": [1, 1, 2], "item": [3, 4, 5]}, "2 items not among the 211 of catalogue 'large': '4', '5'"),
    ],
)
def test_tables_that_cannot_be(tmp_path: Path, table: dict[str, Any], message: str) -> None:
    pa.parquet.write_table(pa.table(table), tmp_path / "users.parquet")
    with pytest.raises(InputError, match=message):
        recommend_table(large(tmp_path), tmp_path / "users.parquet", tmp_path / "out.parquet", progress=False)
    assert not (tmp_path / "out.parquet").exists()


def test_unknown_items_are_passed_over_where_asked(tmp_path: Path) -> None:
    service = large(tmp_path)
    users = write(pd.DataFrame({"user": [1, 1, 2], "item": ["3", "4", "x"]}), tmp_path / "users.parquet")
    out = tmp_path / "out.parquet"
    counts = recommend_table(service, users, out, k=2, skip_unknown=True, progress=False)
    assert (counts.users, counts.rows, counts.unknown) == (2, 4, 2)
    actual = pa.parquet.read_table(out).to_pandas()
    assert actual["item"][actual["user"] == 1].tolist() == service.recommend([3], 2).ids


def test_a_file_that_is_no_parquet_and_a_bad_bucket(tmp_path: Path) -> None:
    service = large(tmp_path)
    (tmp_path / "users.parquet").write_text("user,item\n")
    with pytest.raises(InputError, match="cannot be read as parquet"):
        recommend_table(service, tmp_path / "users.parquet", tmp_path / "out.parquet")
    write(met(3), tmp_path / "users.parquet")
    with pytest.raises(InputError, match="buckets of 0 rows"):
        recommend_table(service, tmp_path / "users.parquet", tmp_path / "out.parquet", bucket_rows=0)
    shutil.rmtree(tmp_path / "index")
