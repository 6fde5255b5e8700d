"""Batch recommendation for millions of users, from a table of interactions to a table of recommendations.

The table is read in chunks and partitioned by user into buckets that fit into memory. Every finished bucket
is a file beside the result, so that an interrupted call can be resumed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray
from scipy import sparse
from tqdm import tqdm

from mmattn.errors import InputError, did_you_mean
from mmattn.files import atomic_path, sha256_file, write_json
from mmattn.retrieval.storage.arrow import join_parquet

if TYPE_CHECKING:
    from mmattn.serving.service import RecommenderService

__all__ = ["BUCKET_ROWS", "BatchCounts", "recommend_table"]

BUCKET_ROWS = 2_000_000  # rows of the table in memory at once
_CHUNK_ROWS = 65_536  # rows read at once; more if there are so many buckets that each would get few
_MIN_ROWS_PER_BUCKET = 1024
_USER_BATCH = 4096  # users per search


@dataclass(frozen=True)
class BatchCounts:
    """Counts of a batch recommendation.

    Args:
        users: number of users with a row in the table.
        rows: rows of the result.
        unknown: skipped rows of the table, whose item is not in the catalogue.
    """

    users: int
    rows: int
    unknown: int


def recommend_table(
    service: RecommenderService,
    users: str | Path,
    out: str | Path,
    *,
    k: int = 20,
    where: str | None = None,
    skip_unknown: bool = False,
    bucket_rows: int = BUCKET_ROWS,
    progress: bool = True,
) -> BatchCounts:
    """Write the k best items of every user of a table, as rows of user, rank (from 1), item and score.

    Memory: the item vectors and about 200 bytes per row of a bucket (400 MB for two million rows), whatever
    the number of users. The rows of a user may be anywhere in the table; a user with more rows than a bucket
    enlarges it. The result is written atomically at the end, user by user, best first.

    Args:
        service: recommender of a run.
        users: parquet file with columns `user` and `item`; a row without an item stands for a user without a
            history, who gets the recommendations for an average user.
        out: parquet file to write.
        k: items per user; fewer are written if fewer are left.
        where: filter expression over the item columns, as in `RecommenderService.recommend`; None for no
            filter.
        skip_unknown: whether to skip rows whose item is not in the catalogue, instead of raising an error.
        bucket_rows: rows of the table in memory at once.
        progress: whether to show a progress bar.

    Raises:
        InputError: no such file or columns, a row without a user, or items that are not in the catalogue.
    """
    users, out = Path(users), Path(out)
    rows = _count_rows(users)
    if bucket_rows < 1:
        raise InputError(f"recommend: got buckets of {bucket_rows} rows, expected at least 1")
    buckets = max(1, -(-rows // bucket_rows))
    told = [
        sha256_file(users),
        sha256_file(service.folder / "manifest.json"),
        k,
        where,
        skip_unknown,
        buckets,
    ]
    folder = out.parent / f".{out.name}.{hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]}.shards"
    if not (folder / "parted.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _split_into_buckets(
            users,
            folder,
            buckets,
            min(bucket_rows, max(_CHUNK_ROWS, _MIN_ROWS_PER_BUCKET * buckets)),
            progress,
        )
        write_json(folder / "parted.json", {"buckets": buckets})
    recommended, unknown = [], 0
    for bucket in tqdm(range(buckets), desc="recommend", unit="bucket", disable=not progress):
        done = folder / f"{bucket:05d}.parquet"
        source = folder / f"rows-{bucket:05d}.parquet"
        if not done.exists():
            _recommend_bucket(service, source, done, k, where, skip_unknown, users)
        written = pa.parquet.read_schema(done).metadata
        unknown += int(written[b"mmattn.unknown"])
        source.unlink(missing_ok=True)  # no longer needed
        recommended.append(done)
    people = sum(int(pa.parquet.read_schema(done).metadata[b"mmattn.users"]) for done in recommended)
    total = join_parquet(recommended, out)
    shutil.rmtree(folder)
    return BatchCounts(people, total, unknown)


def _count_rows(path: Path) -> int:
    """Number of rows.

    Raises:
        InputError: no such file, not parquet, no rows, or missing columns.
    """
    try:
        with pa.parquet.ParquetFile(path) as file:
            names, rows = file.schema_arrow.names, file.metadata.num_rows
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as parquet ({' '.join(str(error).split())})") from error
    for column in ("user", "item"):
        if column not in names:
            raise InputError(f"{path}: no column {column!r}.{did_you_mean(column, names)}")
    if not rows:
        raise InputError(f"{path}: has no rows, expected users and the items they met")
    return rows


def _split_into_buckets(users: Path, folder: Path, buckets: int, chunk_rows: int, progress: bool) -> None:
    """Write each row to the file of its user's bucket."""
    with ExitStack() as stack:
        file = stack.enter_context(pa.parquet.ParquetFile(users))
        rows = file.metadata.num_rows
        bar = stack.enter_context(tqdm(total=rows, desc="partition users", unit="row", disable=not progress))
        schema = pa.schema([file.schema_arrow.field("user"), file.schema_arrow.field("item")])
        writers = [
            stack.enter_context(pa.parquet.ParquetWriter(folder / f"rows-{bucket:05d}.parquet", schema))
            for bucket in range(buckets)
        ]
        for batch in _read_chunks(file, chunk_rows):
            if batch["user"].null_count:
                raise InputError(
                    f"{users}: {batch['user'].null_count} rows without a user, expected one in each"
                )
            table = batch.select(["user", "item"])
            if buckets == 1:
                writers[0].write_table(table)
            else:
                owner = pd.util.hash_array(batch["user"].to_pandas().to_numpy()) % np.uint64(buckets)
                for bucket in range(buckets):
                    writers[bucket].write_table(table.filter(pa.array(owner == bucket)))
            bar.update(len(batch))


def _read_chunks(file: Any, size: int) -> Iterator[pa.Table]:
    for batch in file.iter_batches(batch_size=size, columns=["user", "item"]):
        yield pa.Table.from_batches([batch])


def _recommend_bucket(
    service: RecommenderService,
    source: Path,
    target: Path,
    k: int,
    where: str | None,
    skip_unknown: bool,
    users: Path,
) -> None:
    """Write the recommendations for the users of one bucket."""
    table = pa.parquet.read_table(source)
    people = table["user"].combine_chunks().dictionary_encode()
    seen, unknown = _seen_items(
        service, table["item"], people.indices.to_numpy(), len(people.dictionary), users
    )
    if unknown and not skip_unknown:
        raise InputError(f"{users}: {service.unknown_ids_message(unknown)}")
    missing = pa.array(unknown)
    facts = {"mmattn.users": str(len(people.dictionary)), "mmattn.unknown": str(len(missing))}
    item = pa.int64() if service.index.ids.dtype == np.int64 else pa.string()
    schema = pa.schema(
        [("user", people.dictionary.type), ("rank", pa.int32()), ("item", item), ("score", pa.float32())],
        facts,
    )
    with atomic_path(target) as temporary, pa.parquet.ParquetWriter(temporary, schema) as writer:
        for start in range(0, len(people.dictionary), _USER_BATCH):
            scores, rows = service.recommend_batch(seen[start : start + _USER_BATCH], k, where)
            has_item = rows >= 0
            who = np.repeat(np.arange(start, start + len(rows)), has_item.sum(1))
            columns = [
                people.dictionary.take(pa.array(who)),
                pa.array(
                    np.broadcast_to(np.arange(1, rows.shape[1] + 1, dtype=np.int32), rows.shape)[has_item]
                ),
                pa.array(service.index.ids[rows[has_item]].tolist(), item),
                pa.array(scores[has_item]),
            ]
            writer.write_table(pa.table(columns, schema=schema))


def _seen_items(
    service: RecommenderService, items: pa.ChunkedArray, owner: NDArray[Any], count: int, where: Path
) -> tuple[sparse.csr_array, list[str]]:
    """[U, I] ones where the user has chosen the item, and the unknown item of each row that has one."""
    names = items.combine_chunks().dictionary_encode()
    item_rows = service.find_rows(names.dictionary.to_pylist())
    codes = names.indices.fill_null(-1).to_numpy()
    rows = np.where(codes < 0, -1, item_rows[codes]) if len(item_rows) else np.full(len(codes), -1)
    unknown = [str(names.dictionary[int(code)]) for code in codes[(codes >= 0) & (rows < 0)]]
    good = rows >= 0
    seen = sparse.csr_array(
        (np.ones(int(good.sum()), np.float32), (owner[good], rows[good])), shape=(count, len(service.index))
    )
    seen.sum_duplicates()
    seen.data[:] = 1
    return seen, unknown
