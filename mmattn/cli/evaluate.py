"""`mmattn evaluate --run-file FILE --qrels FILE --metrics ndcg@10 ...`: a run against judgements.

It needs no model. TREC files, parquet, CSV, TSV and numpy arrays are read; the judgements may be a BEIR
folder. With the default policies the digits are those of `trec_eval -c`; `--missing skip` gives those of
`trec_eval`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, get_args

from jsonargparse import ArgumentParser, Namespace

if TYPE_CHECKING:
    from mmattn.evaluation.trec.evaluate import Evaluation

_DEFAULT_METRICS = ["ndcg@10", "map", "mrr", "recall@100"]


def add_arguments(parser: ArgumentParser) -> None:
    from mmattn.evaluation.trec.evaluate import EmptyPolicy, MissingPolicy, RunTiePolicy

    parser.add_argument("--run-file", required=True, metavar="FILE", help="run file")
    parser.add_argument("--qrels", required=True, metavar="FILE", help="judgements, or a BEIR folder")
    parser.add_argument("--split", default="test", help="of a BEIR folder")
    parser.add_argument(
        "--metrics", nargs="+", default=_DEFAULT_METRICS, metavar="NAME",
        help="recall, precision, hit, ndcg, ndcg_exp, map, mrr, with a cutoff (@10) or without; rprec, auc",
    )  # fmt: skip
    parser.add_argument(
        "--ties", choices=get_args(RunTiePolicy), default="trec", help="order of equal scores"
    )
    parser.add_argument(
        "--missing", choices=get_args(MissingPolicy), default="zero", help="a judged query that the run lacks"
    )
    parser.add_argument(
        "--empty", choices=get_args(EmptyPolicy), default="zero", help="a judged query with nothing relevant"
    )
    parser.add_argument(
        "--relevant-from", type=float, default=None, metavar="GAIN",
        help="lowest judgement that binary metrics call relevant (trec_eval -l); by default any above 0",
    )  # fmt: skip
    parser.add_argument("--per-query", action="store_true", help="print each query's values too")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(arguments: Namespace) -> int:
    from mmattn.evaluation.trec.evaluate import evaluate_run
    from mmattn.evaluation.trec.io import read_qrels, read_run

    evaluation = evaluate_run(
        read_run(arguments.run_file),
        read_qrels(arguments.qrels, arguments.split),
        arguments.metrics,
        ties=arguments.ties,
        missing=arguments.missing,
        empty=arguments.empty,
        relevant_from=arguments.relevant_from,
    )
    if arguments.json:
        content = evaluation.to_json()
        if arguments.per_query:
            content["per_query"] = _per_query(evaluation)
        print(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        print(_table(evaluation, arguments.missing, arguments.empty, arguments.per_query))
    return 0


def _per_query(evaluation: Evaluation) -> dict[str, dict[str, float | None]]:
    return {
        query: {name: None if values[row] != values[row] else float(values[row])
                for name, values in evaluation.values.items()}
        for row, query in enumerate(evaluation.queries)
    }  # fmt: skip


def _table(evaluation: Evaluation, missing: str, empty: str, per_query: bool) -> str:
    width = max(len(name) for name in evaluation.values)
    lines = []
    if per_query:
        for query, values in _per_query(evaluation).items():
            lines += [
                f"{name:<{width}}  {query}  {'-' if value is None else format(value, '.4f')}"
                for name, value in values.items()
            ]
    summary = evaluation.to_json()
    for name, ends in summary["metrics"].items():
        if ends["mean"] is None:
            lines.append(f"{name:<{width}}  -       no query has a value")
        else:
            lines.append(f"{name:<{width}}  {ends['mean']:.4f}  ({ends['low']:.4f} to {ends['high']:.4f})")
    verb = {"zero": "counted as 0", "skip": "left out"}
    lines += [
        "",
        f"{summary['queries']:,} judged queries; 95% bootstrap intervals over queries",
        f"ties: policy {evaluation.ties}; "
        f"{evaluation.tie_rate:.1%} of the documents share their score with another",
    ]
    if evaluation.missing_queries:
        lines.append(
            f"{len(evaluation.missing_queries):,} judged queries are missing from the run: {verb[missing]}"
        )
    if evaluation.empty_queries:
        lines.append(f"{len(evaluation.empty_queries):,} judged queries have nothing relevant: {verb[empty]}")
    if evaluation.n_unjudged:
        lines.append(f"{evaluation.n_unjudged:,} queries of the run are not judged: left out")
    return "\n".join(lines)
