"""Files of runs and judgements: every format gives the same arrays, and a bad line is named by its number."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from mmattn.errors import InputError
from mmattn.evaluation.trec.evaluate import evaluate_run
from mmattn.evaluation.trec.io import read_qrels, read_run, write_run
from mmattn.evaluation.trec.run import Qrels, Run

RUN = "q1 Q0 d9 1 0.5 x\nq1 Q0 d10 2 0.5 x\n\nq2\tQ0  é 7 -1e-3 x\r\n"
TRIPLES = [("q1", "d9", 0.5), ("q1", "d10", 0.5), ("q2", "é", -1e-3)]


def triples(run: Run) -> list[tuple[str, str, float]]:
    rows = zip(run.rows.tolist(), run.documents.tolist(), run.scores.tolist(), strict=True)
    return [(run.query_name(q), run.document_name(d), pytest.approx(s, rel=1e-6)) for q, d, s in rows]


@pytest.mark.parametrize("form", ["trec", "csv", "tsv", "parquet", "npz"])
def test_one_run_in_every_format(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"run.{form}"
    frame = pd.DataFrame(TRIPLES, columns=["query_id", "doc_id", "score"])
    if form == "trec":
        path.write_text(RUN, encoding="utf-8")
    elif form == "parquet":
        frame.to_parquet(path)
    elif form == "npz":
        np.savez(path, offsets=[0, 2, 3], documents=[0, 1, 2], scores=frame.score, queries=["q1", "q2"],
                 names=["d9", "d10", "é"])  # fmt: skip
    else:
        frame.to_csv(path, index=False, sep="\t" if form == "tsv" else ",")
    assert triples(read_run(path)) == TRIPLES


def test_ids_that_look_like_numbers_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    path.write_text("query,document,score\n007,1e3,1\n7,NA,2\n")
    run = read_run(path)
    assert run.queries == ("007", "7")
    assert run.names == ("1e3", "NA")


def test_lines_of_a_query_may_lie_apart(tmp_path: Path) -> None:
    path = tmp_path / "run.txt"
    path.write_text("b Q0 x 1 3 t\na Q0 x 1 2 t\nb Q0 y 2 1 t\n")
    run = read_run(path)
    assert (run.queries, run.lengths.tolist()) == (("b", "a"), [2, 1])


def beir(folder: Path) -> Path:
    (folder / "qrels").mkdir(parents=True)
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td9\t2\nq2\té\t1\n")
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "a"}\n{"_id": "q2", "text": "b"}\n')
    return folder


def test_judgements_in_every_format(tmp_path: Path) -> None:
    files = {name: tmp_path / f"qrels.{name}" for name in ("trec", "csv", "parquet", "npz")}
    files["trec"].write_text("q1 0 d9 2\nq2 0 é 1\n", encoding="utf-8")
    files["csv"].write_text("query,docid,relevance\nq1,d9,2\nq2,é,1\n", encoding="utf-8")
    frame = pd.DataFrame({"qid": ["q1", "q2"], "docno": ["d9", "é"], "gain": [2.0, 1.0]})
    frame.to_parquet(files["parquet"])
    np.savez(
        files["npz"],
        offsets=[0, 1, 2],
        documents=[0, 1],
        gains=[2, 1],
        queries=["q1", "q2"],
        names=["d9", "é"],
    )
    for path in [*files.values(), beir(tmp_path / "beir")]:
        qrels = read_qrels(path)
        assert (qrels.queries, qrels.names, qrels.gains.tolist()) == (("q1", "q2"), ("d9", "é"), [2.0, 1.0])


@settings(max_examples=50)
@given(
    table=st.dictionaries(
        st.text("qé文0123", min_size=1, max_size=4),
        st.dictionaries(
            st.text("dD~é0129", min_size=1, max_size=4),
            st.floats(width=32, allow_nan=False, allow_infinity=False),
            min_size=1, max_size=7,
        ),
        min_size=1, max_size=5,
    )
)  # fmt: skip
def test_what_is_written_is_read_again_and_by_trec_eval_too(
    tmp_path_factory: pytest.TempPathFactory, table: dict[str, dict[str, float]]
) -> None:
    path = tmp_path_factory.mktemp("run") / "run.txt"
    run = Run.from_dict(table)
    write_run(path, run)
    with path.open(encoding="utf-8") as file:
        parsed = pytrec_eval.parse_run(file)
    # As float32, which is how trec_eval keeps scores.
    assert {q: {d: float(np.float32(s)) for d, s in row.items()} for q, row in parsed.items()} == table
    again = read_run(path)
    assert {(q, d): s for q, d, s in triples(again)} == {
        (q, d): s for q, row in table.items() for d, s in row.items()
    }
    best = {query: max(row, key=lambda name: (row[name] + 0.0, name)) for query, row in table.items()}
    right = Qrels.from_dict({query: {name: 1} for query, name in best.items()})
    assert (
        evaluate_run(again, right, ["mrr"], ties="stable").mean("mrr") == 1.0
    )  # written in trec_eval's order


def test_a_name_with_a_space_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="the document 'a b' cannot be written, expected a name without spaces"
    ):
        write_run(tmp_path / "run.txt", Run.from_dict({"q": {"a b": 1.0}}))
    assert not (tmp_path / "run.txt").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"q Q0 d 1 0.5 t\nq Q0 d2 2 0.4\n",
            "line 2: got 5 fields, expected 6: query Q0 document rank score tag",
        ),
        (b"q Q0 d 1 high t\n", "line 1: got the score 'high', expected a number"),
        (b"\n\nq Q0 d 1 nan t\n", "line 3: got the score 'nan', expected a number"),
        (b"q Q0 d 1 inf t\n", "line 1: got the score 'inf'"),
        (
            b"q Q0 d 1 1 t\np Q0 d 1 1 t\n\nq Q0 d 1 1 t\n",
            "line 4: the document 'd' comes twice for the query 'q'",
        ),
        (b"q Q0 d 1 1 t\nq Q0 \xff 1 1 t\n", "line 2: byte 5 is not UTF-8"),
        (b"\n", "no line in it, expected at least one"),
    ],
)
def test_bad_lines_of_a_run(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "run.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(message)):
        read_run(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "q 0 d\n", "line 1: got 3 fields, expected 4: query 0 document judgement"),
        ("a.txt", "q 0 d 1\nq 0 d 2\n", "line 2: the document 'd' comes twice for the query 'q'"),
        ("a.csv", "query,document,gain\nq,d,1\n,e,1\n", "line 3: the query is empty"),
        ("a.csv", "query,document,gain\nq,d,good\n", "line 2: got the judgement 'good'"),
        (
            "a.csv",
            "query,thing,gain\nq,d,1\n",
            "got the columns query, thing, gain, expected one of document,",
        ),
        ("a.csv", "", "cannot be read as csv"),
        ("a.parquet", "no parquet", "cannot be read as parquet"),
        ("a.npz", "no zip", "cannot be read as arrays"),
    ],
)
def test_bad_judgements(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(InputError, match=re.escape(message)):
        read_qrels(path)


def test_bad_arrays(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, offsets=[0, 1], documents=[0])
    with pytest.raises(InputError, match="has no array 'gains'"):
        read_qrels(path)
    np.savez(path, offsets=[0, 1], documents=[0], gains=[1], quries=["q"])
    with pytest.raises(InputError, match="unknown array 'quries'. Did you mean 'queries'"):
        read_qrels(path)
    np.savez(path, offsets=[0, 1], documents=np.array([0], object), gains=[1])
    with pytest.raises(InputError, match="without pickled objects"):
        read_qrels(path)


def test_bad_beir_folders(tmp_path: Path) -> None:
    folder = beir(tmp_path / "beir")
    with pytest.raises(InputError, match=r"no qrels/tset.tsv of a BEIR dataset. Did you mean 'test'"):
        read_qrels(folder, "tset")
    for line, message in (
        ({"_id": "q1"}, "line 3: a second query of the name 'q1'"),
        (["q3"], "line 3: expected a JSON object with an _id"),
    ):
        requested = '{"_id": "q1", "text": "a"}\n{"_id": "q2", "text": "b"}\n'
        (folder / "queries.jsonl").write_text(requested + json.dumps(line) + "\n")
        with pytest.raises(InputError, match=message):
            read_qrels(folder)
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "a"}\n')
    with pytest.raises(InputError, match=r"line 3: the query 'q2' is not in queries.jsonl"):
        read_qrels(folder)
