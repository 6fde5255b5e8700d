"""Evaluate a run against relevance judgements, with explicit and reported policies.

Evaluation tools differ in three cases:

* equal scores (`ties`): "trec" orders descending by document name as a string ("9" before "10"), as
  trec_eval; "stable" keeps the order of the run; "expected" averages each metric over all orders.
* judged queries that the run lacks (`missing`): "zero", as `trec_eval -c`; "skip", as `trec_eval` without
  `-c`; "error".
* judged queries without a relevant document (`empty`): "zero", as trec_eval; "skip".

Scores are compared as float32, as in trec_eval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmattn.array_types import Bools, Floats, Floats32, Ints
from mmattn.errors import InputError, did_you_mean
from mmattn.evaluation.ranking.formulas import JudgedRanking, parse_metrics
from mmattn.evaluation.statistics.bootstrap import Interval, bootstrap
from mmattn.evaluation.trec.run import Qrels, Run, length_blocks, pad_rows

__all__ = ["EmptyPolicy", "Evaluation", "MissingPolicy", "RunTiePolicy", "evaluate_run"]

RunTiePolicy = Literal["trec", "stable", "expected"]
MissingPolicy = Literal["zero", "skip", "error"]
EmptyPolicy = Literal["zero", "skip"]

_MAX_KEY = np.uint64(2**64 - 1)
_LOW_MASK = np.uint64(2**32 - 1)
_SHIFT = np.uint64(32)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Metric values of each judged query.

    Args:
        queries: [Q] query names, in the order of the judgements.
        values: metric -> [Q] values; NaN for skipped queries.
        ties: policy for equal scores.
        tie_rate: fraction of ranked documents that share their score with another document of the query.
        missing_queries: judged queries that the run lacks.
        empty_queries: judged queries without a relevant document.
        n_unjudged: number of queries of the run without judgements; they are ignored.
    """

    queries: Sequence[str]
    values: Mapping[str, Floats]
    ties: RunTiePolicy
    tie_rate: float
    missing_queries: Sequence[str]
    empty_queries: Sequence[str]
    n_unjudged: int

    def mean(self, metric: str) -> float:
        """Average a metric over the queries with a value; NaN without one.

        Args:
            metric: metric name.
        """
        values = self.values[metric]
        valid = values[~np.isnan(values)]
        return float(valid.mean()) if len(valid) else float("nan")

    def interval(self, metric: str, **settings: Any) -> Interval:
        """Compute the mean of a metric with its bootstrap interval over queries.

        Args:
            metric: metric name.
            **settings: keyword arguments of `bootstrap`.
        """
        return bootstrap(self.values[metric], **settings)

    def to_json(self) -> dict[str, Any]:
        """Return what `mmattn evaluate --json` prints."""
        metrics = {}
        for name, values in self.values.items():
            interval = None if np.isnan(values).all() else self.interval(name)
            metrics[name] = {
                field: None if interval is None else getattr(interval, field)
                for field in ("mean", "low", "high")
            }
        return {
            "queries": len(self.queries),
            "metrics": metrics,
            "ties": {"policy": self.ties, "rate": self.tie_rate},
            "missing": len(self.missing_queries),
            "without_relevant": len(self.empty_queries),
            "unjudged": self.n_unjudged,
        }


def evaluate_run(
    run: Run,
    qrels: Qrels,
    metrics: Sequence[str] = ("ndcg@10", "map", "mrr", "recall@100"),
    *,
    ties: RunTiePolicy = "trec",
    missing: MissingPolicy = "zero",
    empty: EmptyPolicy = "zero",
    relevant_from: float | None = None,
) -> Evaluation:
    """Evaluate a run against judgements.

    Args:
        run: retrieved documents.
        qrels: judgements. Queries and documents are matched by name, or by number if neither has names.
        metrics: recall, precision, hit, ndcg, ndcg_exp, map and mrr with a cutoff ("ndcg@10") or without, for
            all retrieved documents; rprec and auc without.
        ties: policy for equal scores.
        missing: policy for judged queries that the run lacks.
        empty: policy for judged queries without a relevant document.
        relevant_from: minimum gain of a relevant document for the binary metrics; by default any above 0.

    Raises:
        InputError: an unknown metric or policy, no common query, a missing query under "error".

    Example:
        >>> run = Run.from_dict({"q": {"a": 1.0, "b": 1.0, "c": 1.0}})
        >>> qrels = Qrels.from_dict({"q": {"a": 1}})
        >>> [round(evaluate_run(run, qrels, ["mrr"], ties=t).mean("mrr"), 4) for t in get_args(RunTiePolicy)]
        [0.3333, 1.0, 0.6111]
    """
    functions = parse_metrics(metrics)
    for what, policy, known in (
        ("ties", ties, RunTiePolicy),
        ("missing", missing, MissingPolicy),
        ("empty", empty, EmptyPolicy),
    ):
        if policy not in get_args(known):
            raise InputError(f"evaluate: got {what} {policy!r}.{did_you_mean(str(policy), get_args(known))}")
    if relevant_from is not None and not relevant_from > 0:
        raise InputError(f"evaluate: got relevant_from {relevant_from}, expected a gain above 0")
    row_of_Q = _align_queries(run, qrels)
    absent_Q = row_of_Q < 0
    _check_missing(run, qrels, absent_Q, missing)
    judged, tie_rate = _locate_judged(run, qrels, row_of_Q, ties, relevant_from)
    empty_Q = judged.n_relevant() == 0
    values = {}
    for name, (metric_fn, cutoff) in functions.items():
        values_Q = metric_fn(judged, cutoff)
        if empty == "zero":
            values_Q = np.where(empty_Q & np.isnan(values_Q), 0.0, values_Q)
        # Without ranked documents a metric may be undefined (auc); the policy still applies.
        missing_values = np.where(empty_Q, values_Q, 0.0) if missing == "zero" else np.nan
        values[name] = np.where(absent_Q, missing_values, values_Q)
    names = list(map(str, range(len(qrels)))) if qrels.queries is None else list(qrels.queries)
    return Evaluation(
        queries=names,
        values=values,
        ties=ties,
        tie_rate=tie_rate,
        missing_queries=[names[row] for row in np.flatnonzero(absent_Q)],
        empty_queries=[names[row] for row in np.flatnonzero(empty_Q)],
        n_unjudged=len(run) - int((~absent_Q).sum()),
    )


def _align_queries(run: Run, qrels: Qrels) -> Ints:
    """Return the row of the run for each judged query, [Q]; -1 where there is none."""
    if run.queries is None and qrels.queries is None:
        rows_Q = np.arange(len(qrels))
        return np.where(rows_Q < len(run), rows_Q, -1)
    row_of = {run.query_name(row): row for row in range(len(run))}
    return np.array([row_of.get(qrels.query_name(row), -1) for row in range(len(qrels))], np.int64)


def _check_missing(run: Run, qrels: Qrels, absent_Q: Bools, missing: MissingPolicy) -> None:
    if absent_Q.all():
        first = [f"{table.query_name(0)!r}" if len(table) else "none" for table in (run, qrels)]
        raise InputError(
            f"evaluate: no common query among {len(run)} of the run (first {first[0]}) and {len(qrels)} of "
            f"the judgements (first {first[1]}), expected the same names"
        )
    if missing == "error" and absent_Q.any():
        raise InputError(
            f"evaluate: {int(absent_Q.sum())} judged queries are missing from the run, the first "
            f"{qrels.query_name(int(absent_Q.argmax()))!r}, expected none"
        )


def _locate_judged(
    run: Run, qrels: Qrels, row_of_Q: Ints, ties: RunTiePolicy, relevant_from: float | None
) -> tuple[JudgedRanking, float]:
    judged = _JudgmentIndex(run, qrels)
    lengths_Q = np.where(row_of_Q < 0, 0, run.lengths[row_of_Q])
    empty = np.zeros(0, np.int64)
    parts = [(empty, empty, empty, empty)]
    tied = 0
    for rows_B, within_BK in length_blocks(lengths_Q):
        scores_BK = pad_rows(run.scores, run.offsets[row_of_Q[rows_B]], within_BK, fill=0)
        documents_BK = pad_rows(run.documents, run.offsets[row_of_Q[rows_B]], within_BK, fill=-1)
        documents_BK, level_BK = _sort_by_score(
            documents_BK, scores_BK, within_BK, run if ties == "trec" else None
        )
        tied += _count_tied(level_BK)
        hit_H, entry_H = judged.lookup(rows_B, documents_BK)
        block, place_H = np.divmod(hit_H, within_BK.shape[1])
        start_H, size_H = place_H, np.ones_like(place_H)
        if ties == "expected":
            start_H, size_H = _tie_groups(level_BK, within_BK, hit_H)
        parts.append((rows_B[block], start_H, size_H, entry_H))
    row_H, start_H, size_H, entry_H = map(np.concatenate, zip(*parts, strict=True))
    if (np.diff(row_H) < 0).any():
        order_H = np.argsort(row_H, kind="stable")
        row_H, start_H, size_H, entry_H = (array[order_H] for array in (row_H, start_H, size_H, entry_H))
    opens_H = (np.diff(row_H, prepend=-1) != 0) | (np.diff(start_H, prepend=-1) != 0)
    relevant_J = judged.gains > 0 if relevant_from is None else judged.gains >= relevant_from
    ideal_J = np.lexsort((-judged.gains, judged.rows))
    placed = JudgedRanking(
        group_query=row_H[opens_H],
        group_start=start_H[opens_H],
        group_size=size_H[opens_H],
        group_of=np.cumsum(opens_H) - 1,
        gains=judged.gains[entry_H],
        is_relevant=relevant_J[entry_H],
        n_retrieved=lengths_Q,
        ideal_query=judged.rows[ideal_J],
        ideal_gains=judged.gains[ideal_J],
        ideal_is_relevant=relevant_J[ideal_J],
    )
    return placed, tied / max(int(lengths_Q.sum()), 1)


class _JudgmentIndex:
    """Index of the judged documents with a gain, by the document numbers of the run."""

    def __init__(self, run: Run, qrels: Qrels) -> None:
        documents = _align_documents(run, qrels)
        counts = qrels.gains > 0
        self.rows = qrels.rows[counts]
        self.gains = qrels.gains[counts]
        self.width = max(int(run.documents.max(initial=0)), int(documents.max(initial=0))) + 1
        retrievable = np.flatnonzero(documents[counts] >= 0)
        keys = self.rows[retrievable] * self.width + documents[counts][retrievable]
        order = np.argsort(keys)
        self.keys, self.entries = keys[order], retrievable[order]
        # A hash filter rejects most documents of a run, which are not judged, with one lookup.
        self.bits = max(10, int(len(keys) * 8).bit_length())
        self.filter = np.zeros(1 << self.bits, bool)
        self.filter[self._hash(self.keys)] = True

    def lookup(self, rows_B: Ints, documents_BK: Ints) -> tuple[Ints, Ints]:
        """Return the flat positions of judged documents in a block, and their entries in `gains`."""
        keys_BK = rows_B[:, None] * self.width + documents_BK
        maybe = np.flatnonzero(self.filter[self._hash(keys_BK.ravel())])
        maybe = maybe[documents_BK.ravel()[maybe] >= 0]  # -1 pads the end of a row
        candidates = keys_BK.ravel()[maybe]
        positions = np.searchsorted(self.keys, candidates).clip(max=max(len(self.keys) - 1, 0))
        present = self.keys[positions] == candidates if len(self.keys) else np.zeros(0, bool)
        return maybe[present], self.entries[positions[present]]

    def _hash(self, keys: Ints) -> Ints:
        mixed = keys.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        return (mixed >> np.uint64(64 - self.bits)).view(np.int64)


def _align_documents(run: Run, qrels: Qrels) -> Ints:
    """Return the judged documents by the numbers of the run, [N]; -1 where the run lacks one."""
    if run.names is qrels.names:
        return qrels.documents
    if run.names is None:  # the names of the run are its numbers in decimal
        numbers = pd.to_numeric(pd.Series(qrels.names), errors="coerce").to_numpy(np.float64)
        exact = np.array(
            [-1 if np.isnan(number) or str(int(number)) != name else int(name)
             for number, name in zip(numbers, qrels.names or (), strict=True)], np.int64,
        )  # fmt: skip
        return exact[qrels.documents]
    if qrels.names is None:
        judged, judged_index = np.unique(qrels.documents, return_inverse=True)
        return pd.Index(run.names).get_indexer(pd.Index(judged.astype(str))).astype(np.int64)[judged_index]
    return pd.Index(run.names).get_indexer(pd.Index(qrels.names)).astype(np.int64)[qrels.documents]


def _sort_by_score(
    documents_BK: Ints, scores_BK: Floats32, within_BK: Bools, name_source: Run | None
) -> tuple[Ints, NDArray[np.uint64]]:
    """Sort documents by decreasing score with one sort of 64-bit keys.

    The upper half of a key is the inverted score, the lower half breaks ties: the rank of the document's name
    in `name_source`, or its position in the run without one.

    Returns:
        [B, K] sorted documents, and [B, K] numbers that are equal where scores are equal.
    """
    columns_K = np.arange(documents_BK.shape[1], dtype=np.uint64)
    bits_BK = (scores_BK + np.float32(0)).view(np.int32)  # adding 0 turns -0 into 0
    turned_BK = (bits_BK ^ (0x7FFFFFFF & ~(bits_BK >> 31))).view(np.uint32)
    keys_BK = turned_BK.astype(np.uint64) << _SHIFT
    keys_BK |= columns_K if name_source is None else name_source.name_rank[documents_BK].view(np.uint64)
    ragged = not within_BK.all()
    if ragged:
        keys_BK[~within_BK] = _MAX_KEY
    keys_BK.sort(axis=1)
    level_BK = keys_BK >> _SHIFT
    keys_BK &= _LOW_MASK
    if ragged:
        keys_BK[~within_BK] = 0
    second_BK = keys_BK.view(np.int64)
    if name_source is None:
        sorted_BK = np.take_along_axis(documents_BK, second_BK, axis=1)
    else:
        sorted_BK = name_source.name_order[second_BK]
    if ragged:  # padding holds no document and ties with nothing
        sorted_BK[~within_BK] = -1
        level_BK[~within_BK] = (_MAX_KEY - np.broadcast_to(columns_K, within_BK.shape))[~within_BK]
    return sorted_BK, level_BK


def _count_tied(level_BK: NDArray[np.uint64]) -> int:
    same_BK = level_BK[:, 1:] == level_BK[:, :-1]
    if not same_BK.any():
        return 0
    tied_BK = np.zeros(level_BK.shape, bool)
    tied_BK[:, 1:] |= same_BK
    tied_BK[:, :-1] |= same_BK
    return int(tied_BK.sum())


def _tie_groups(level_BK: NDArray[np.uint64], within_BK: Bools, hit_H: Ints) -> tuple[Ints, Ints]:
    """Return the first rank and the size of the tie group of each hit, [H]."""
    longest = level_BK.shape[1]
    opens_BK = np.ones(level_BK.shape, bool)
    opens_BK[:, 1:] = level_BK[:, 1:] != level_BK[:, :-1]
    openings = np.flatnonzero(opens_BK)
    group_H = np.searchsorted(openings, hit_H, side="right") - 1
    ends = np.append(openings[1:], opens_BK.size)
    return openings[group_H] % longest, (ends - openings)[group_H]
