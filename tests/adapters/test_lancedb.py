"""LanceDB answers as our own index does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmattn.errors import InputError
from mmattn.retrieval.index import Index
from mmattn.retrieval.search.exact import METRICS, Metric

pytest.importorskip("lancedb", reason="LanceDB is an extra: pip install 'mmattn[lancedb]'")

from mmattn_adapters.lancedb import LanceTable

RNG = np.random.default_rng(0)
VECTORS = RNG.standard_normal((211, 7)).astype(np.float32)
QUERIES = RNG.standard_normal((5, 7)).astype(np.float32)
ORIGIN = {"weights": "aaaa"}


def made(metric: Metric, ids: list[str] | None = None) -> Index:
    return Index.build(VECTORS, ids, metric, metadata={"year": np.arange(211)}, provenance=ORIGIN)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("texts", [True, False])
def test_the_same_searches_have_the_same_answers(metric: Metric, texts: bool, tmp_path: Path) -> None:
    index = made(metric, [f"i{number}" for number in range(211)] if texts else None)
    LanceTable.write(index, tmp_path, "films")
    table = LanceTable(tmp_path, "films")
    assert (len(table), table.metric, table.provenance) == (211, metric, ORIGIN)
    for where in (None, "year < 50"):
        ours, theirs = index.search(QUERIES, 10, where=where), table.search(QUERIES, 10, where=where)
        assert theirs.ids.tolist() == ours.ids.tolist()
        assert theirs.scores == pytest.approx(ours.scores, rel=1e-4, abs=1e-5)
    assert table.search(QUERIES, 10, where="year < 3").ids.shape == (5, 3)


def test_what_it_refuses(tmp_path: Path) -> None:
    table = LanceTable.write(made("ip"), tmp_path, "films")
    with pytest.raises(InputError, match="come from bbbb, expected aaaa"):
        table.search(QUERIES, provenance={"weights": "bbbb"})
    with pytest.raises(InputError, match="LanceDB: the search was refused"):
        table.search(QUERIES, where="yaer < 3")
    with pytest.raises(InputError, match="got width 3, expected 7"):
        table.search(QUERIES[:, :3])
    with pytest.raises(InputError, match="no table 'flims'"):
        LanceTable(tmp_path, "flims")
