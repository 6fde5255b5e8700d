"""Read runs and judgements (TREC, BEIR, parquet, CSV, TSV, numpy) and write runs for trec_eval.

A malformed line raises an error with its number, its content and what was expected.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmattn.array_types import Floats
from mmattn.errors import InputError, did_you_mean
from mmattn.evaluation.trec.run import Qrels, Run
from mmattn.files import atomic_path

__all__ = ["read_qrels", "read_run", "write_run"]

_QUERY = ("query", "query_id", "query-id", "qid", "q_id")
_DOCUMENT = ("document", "document_id", "doc_id", "docid", "docno", "corpus-id", "corpus_id", "doc", "item")
_SCORE = ("score", "sim")
_GAIN = ("gain", "relevance", "rel", "score", "grade", "judgement", "label")
_TABLES = {".parquet": "parquet", ".csv": "csv", ".tsv": "csv"}


def read_run(path: str | os.PathLike[str]) -> Run:
    """Read a run.

    Args:
        path: file; its suffix selects the format: .parquet, .csv and .tsv with columns for query, document
            and score under their common names; .npz with arrays offsets, documents, scores and optionally
            queries and names; otherwise TREC lines `query Q0 document rank score tag`. As in trec_eval, the
            rank is ignored.

    Raises:
        InputError: a malformed line, a duplicate document of a query, or an empty file.
    """
    path = Path(path)
    if path.suffix == ".npz":
        return Run(**_read_npz(path, "scores"))
    if path.suffix in _TABLES:
        return _to_run(_read_table(path, _SCORE, "score"))
    return _to_run(
        _read_trec_lines(path, 6, "query Q0 document rank score tag", value_column=4, value_name="score")
    )


def read_qrels(path: str | os.PathLike[str], split: str = "test") -> Qrels:
    """Read judgements.

    Args:
        path: file as for `read_run`, with a judgement column or an array gains; TREC lines are `query 0
            document judgement`. A folder is read as a BEIR dataset: qrels/<split>.tsv, whose queries must
            occur in queries.jsonl if that exists.
        split: split of a BEIR dataset.

    Raises:
        InputError: a malformed line, a duplicate judgement, or an empty file.
    """
    path = Path(path)
    if path.is_dir():
        return _read_beir(path, split)
    if path.suffix == ".npz":
        return Qrels(**_read_npz(path, "gains"))
    if path.suffix in _TABLES:
        return _to_qrels(_read_table(path, _GAIN, "judgement"))
    return _to_qrels(
        _read_trec_lines(path, 4, "query 0 document judgement", value_column=3, value_name="judgement")
    )


def write_run(path: str | os.PathLike[str], run: Run, tag: str = "mmattn") -> None:
    """Write a run atomically in TREC format: `query Q0 document rank score tag`.

    Ranks count from 1 in the order of trec_eval; scores have nine digits, which restore a float32 exactly.

    Args:
        path: file to write.
        run: the run.
        tag: name of the system, without spaces.

    Raises:
        InputError: an empty name, or a name with white space, which the format cannot represent.
    """
    for what, names in (("query", run.queries or ()), ("document", run.names or ()), ("tag", (tag,))):
        bad = next((name for name in names if name.split() != [name]), None)
        if bad is not None:
            raise InputError(f"{path}: the {what} {bad!r} cannot be written, expected a name without spaces")
    order = np.lexsort((run.name_rank[run.documents], -run.scores, run.rows))
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for row in range(len(run)):
            start, end = int(run.offsets[row]), int(run.offsets[row + 1])
            query = run.query_name(row)
            for rank, index in enumerate(order[start:end], 1):
                document = run.document_name(int(run.documents[index]))
                file.write(f"{query} Q0 {document} {rank} {run.scores[index]:.9g} {tag}\n")


@dataclass(frozen=True)
class _Triples:
    """Triples of query, document and value with their line numbers."""

    path: Path
    queries: Sequence[str]
    documents: Sequence[str]
    values: Floats
    first_line: int  # line of the first row
    value_name: str
    line_numbers: Sequence[int] | None = None  # set where blank lines were skipped

    def line_number(self, row: int) -> int:
        return self.first_line + row if self.line_numbers is None else self.line_numbers[row]


def _read_trec_lines(path: Path, fields: int, layout: str, *, value_column: int, value_name: str) -> _Triples:
    """Read whitespace-separated lines: query in column 0, document in column 2, value in `value_column`."""
    queries, documents, values, lines = [], [], [], []
    for number, line in _decode_lines(path):
        cells = line.split()
        if not cells:
            continue
        if len(cells) != fields:
            raise InputError(f"{path}, line {number}: got {len(cells)} fields, expected {fields}: {layout}")
        queries.append(cells[0])
        documents.append(cells[2])
        values.append(cells[value_column])
        lines.append(number)
    return _Triples(
        path, queries, documents, _parse_numbers(path, value_name, values, lines), 1, value_name, lines
    )  # fmt: skip


def _decode_lines(path: Path) -> Iterator[tuple[int, str]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{path}, line {number}: byte {error.start} is not UTF-8, expected text"
                ) from error


def _parse_numbers(path: Path, value_name: str, texts: Sequence[Any], line_numbers: Sequence[int]) -> Floats:
    values = pd.to_numeric(pd.Series(texts, dtype=object), errors="coerce").to_numpy(np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        row = int(bad[0])
        raise InputError(
            f"{path}, line {line_numbers[row]}: got the {value_name} {texts[row]!r}, expected a number"
        )
    return values


def _read_table(path: Path, value_columns: Sequence[str], value_name: str) -> _Triples:
    """Read a table with common column names; ids are read as text."""
    try:
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path)
        else:
            separator = "\t" if path.suffix == ".tsv" else ","
            frame = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, skip_blank_lines=False)
    except (ValueError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise InputError(f"{path}: cannot be read as {path.suffix[1:]}: {error}") from error
    column = {
        name: _find_column(path, list(map(str, frame.columns)), known)
        for name, known in (("query", _QUERY), ("document", _DOCUMENT), (value_name, value_columns))
    }
    lines = range(2, len(frame) + 2) if path.suffix != ".parquet" else range(1, len(frame) + 1)
    for name in ("query", "document"):
        cells = frame[column[name]]
        bad = np.flatnonzero((cells.isna() | (cells.astype(str) == "")).to_numpy())
        if len(bad):
            raise InputError(f"{path}, line {lines[int(bad[0])]}: the {name} is empty, expected a name")
    values = _parse_numbers(path, value_name, frame[column[value_name]].tolist(), lines)
    return _Triples(
        path, frame[column["query"]].astype(str).tolist(), frame[column["document"]].astype(str).tolist(),
        values, lines.start, value_name,
    )  # fmt: skip


def _find_column(path: Path, columns: Sequence[str], candidates: Sequence[str]) -> str:
    for name in candidates:
        if name in columns:
            return name
    raise InputError(f"{path}: got the columns {', '.join(columns)}, expected one of {', '.join(candidates)}")


def _read_npz(path: Path, value_array: str) -> dict[str, Any]:
    """Read a file of `numpy.savez` without unpickling."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read as arrays without pickled objects: {error}") from error
    needed, known = (
        ("offsets", "documents", value_array),
        ("offsets", "documents", value_array, "queries", "names"),
    )
    for name in needed:
        if name not in arrays:
            raise InputError(f"{path}: has no array {name!r}, expected {', '.join(needed)}")
    for name in arrays:
        if name not in known:
            raise InputError(f"{path}: unknown array {name!r}.{did_you_mean(name, known)}")
    return {
        name: tuple(map(str, array.tolist())) if name in ("queries", "names") else array
        for name, array in arrays.items()
    }


def _read_beir(folder: Path, split: str) -> Qrels:
    path = folder / "qrels" / f"{split}.tsv"
    if not path.is_file():
        splits = sorted(file.stem for file in (folder / "qrels").glob("*.tsv"))
        raise InputError(f"{folder}: no qrels/{split}.tsv of a BEIR dataset.{did_you_mean(split, splits)}")
    rows = _read_table(path, ("score",), "score")
    queries_file = folder / "queries.jsonl"
    if queries_file.is_file():
        known = _read_beir_queries(queries_file)
        for row, query in enumerate(rows.queries):
            if query not in known:
                raise InputError(
                    f"{path}, line {rows.line_number(row)}: the query {query!r} is not in {queries_file.name}"
                )
    return _to_qrels(rows)


def _read_beir_queries(path: Path) -> set[str]:
    queries: set[str] = set()
    for number, line in _decode_lines(path):
        if not line.strip():
            continue
        try:
            name = json.loads(line)["_id"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}, line {number}: expected a JSON object with an _id and a text"
            ) from error
        if str(name) in queries:
            raise InputError(f"{path}, line {number}: a second query of the name {name!r}")
        queries.add(str(name))
    return queries


def _to_run(rows: _Triples) -> Run:
    offsets, documents, names, queries, order = _group_by_query(rows)
    with np.errstate(over="ignore"):
        scores = rows.values[order].astype(np.float32)
    return Run(offsets, documents, scores, queries, names)


def _to_qrels(rows: _Triples) -> Qrels:
    offsets, documents, names, queries, order = _group_by_query(rows)
    return Qrels(offsets, documents, rows.values[order], queries, names)


def _group_by_query(rows: _Triples) -> tuple[Any, Any, tuple[str, ...], tuple[str, ...], NDArray[np.intp]]:
    """Group lines by query in file order, which the tie policy "stable" keeps."""
    if not len(rows.queries):
        raise InputError(f"{rows.path}: no line in it, expected at least one")
    query, queries = pd.factorize(np.asarray(rows.queries, dtype=object))
    document, names = pd.factorize(np.asarray(rows.documents, dtype=object))
    order = np.argsort(query, kind="stable")
    pairs = query.astype(np.int64) * len(names) + document
    by_pair = np.argsort(pairs, kind="stable")
    duplicates = by_pair[1:][np.diff(pairs[by_pair]) == 0]
    if len(duplicates):
        row = int(duplicates.min())
        raise InputError(
            f"{rows.path}, line {rows.line_number(row)}: the document {rows.documents[row]!r} "
            f"comes twice for the query {rows.queries[row]!r}, expected each once"
        )
    offsets = np.concatenate([[0], np.cumsum(np.bincount(query, minlength=len(queries)))])
    return offsets, document[order].astype(np.int64), tuple(names), tuple(queries), order
