"""From files to a data set: golden values by hand, and every bad input with its reason."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mmattn.data.dataset import Dataset, Interactions
from mmattn.data.interactions import natural_sort
from mmattn.data.reader import read_dataset
from mmattn.errors import InputError

HEADER = "id,title,genres,year,poster,film\n"
COLUMNS = {
    "title": ["text", "label"],
    "genres": ["categories", "text"],
    "year": "number",
    "poster": "image",
    "film": "entity",
}
ITEMS = """\
id,title,genres,year,poster,film,part
7,Heat,Action|Crime,1995,a.jpg,3,train
8,,,MCM,b.jpg,,
11,NA,Drama,,,12,test
13,Up,|,2009,a.jpg,x,tset
"""
PAIRS = """\
user,item,time,stars
1,7,100,5
1,7,100,4
1,7,101,4
2,99,5,3
,7,5,3
3,8,soon,3
3,11,2001-01-01T00:00:00Z,3
9,8,inf,3
10,8,1.5,1
10,13,,2
10,11,3,good
10,,3,2
10,11
10,13,2,2
"""
GRAPH = "h,r,t\n3,by,12\n3,by,12\n3,of,77\n77,of,5\n77,of,\n"


def write(
    path: Path, items: str = ITEMS, pairs: str | None = PAIRS, graph: str | None = GRAPH, **card: Any
) -> Path:
    (path / "items.csv").write_text(items)
    (path / "a.jpg").touch()
    raw: dict[str, Any] = {"name": "films", "items": {"file": "items.csv", "id": "id", "columns": COLUMNS}}
    if pairs is not None:
        (path / "pairs.csv").write_text(pairs)
        columns = {"user": "user", "item": "item", "time": "time", "value": "stars", "split": "split"}
        header = pairs.splitlines()[0].split(",")
        raw["interactions"] = {
            "file": "pairs.csv",
            **{index: name for index, name in columns.items() if name in header},
        }
    if graph is not None:
        (path / "graph.csv").write_text(graph)
        raw["graph"] = {"file": "graph.csv", "head": "h", "relation": "r", "tail": "t"}
    (path / "card.yaml").write_text(yaml.safe_dump({**raw, **card}, sort_keys=False))
    return path


def read_mostly(path: Path) -> Dataset:
    return read_dataset(path, reject_limit=0.9)


def listed(dataset: Dataset, table: str) -> dict[int, str]:
    """Row -> reason of the dropped rows of a table."""
    return {
        each.row: each.reason
        for each in dataset.rejected
        if each.table == table and each.effect == "row dropped"
    }


def test_contents_by_modality_and_what_is_not_there(tmp_path: Path) -> None:
    dataset = read_mostly(write(tmp_path))
    picture = tmp_path / "a.jpg"
    # Entities in natural order: 3, 5, 12, 77 of the triples, and x that only an item names.
    assert dataset.graph.entities == ("3", "5", "12", "77", "x")
    assert [(item.id, dict(item.content)) for item in dataset.items] == [
        (
            "7",
            {
                "text": ["Heat", "Action, Crime"],
                "table": {"genres": ["Action", "Crime"], "year": 1995.0, "film": 0},
                "image": picture,
            },
        ),
        ("8", {}),
        ("11", {"text": ["NA", "Drama"], "table": {"genres": ["Drama"], "film": 2}}),
        ("13", {"text": ["Up", None], "table": {"year": 2009.0, "film": 4}, "image": picture}),
    ]
    assert dataset.labels["title"].tolist() == ["Heat", "", "NA", "Up"]
    assert dataset.presence.tolist() == [[1, 1, 1], [0, 0, 0], [1, 1, 0], [1, 1, 1]]
    complaints = [each for each in dataset.rejected if each.table == "items.csv"]
    assert [(each.row, each.id, each.column, each.effect, each.reason) for each in complaints] == [
        (2, "8", "year", "cell dropped", "got 'MCM', expected a finite number"),
        (2, "8", "poster", "cell dropped", f"no file {tmp_path}/b.jpg"),
        (2, "8", "", "kept", "it has no modality at all, so no tokens"),
    ]


def test_a_missing_text_field_leaves_its_place_empty(tmp_path: Path) -> None:
    dataset = read_dataset(write(tmp_path, items=HEADER + "7,,Action,,,\n8,Up,,,,\n", pairs=None))
    assert [item.content["text"] for item in dataset.items] == [[None, "Action"], ["Up", None]]


def test_every_bad_interaction_is_listed_and_the_good_ones_go_on(tmp_path: Path) -> None:
    dataset = read_mostly(write(tmp_path))
    assert listed(dataset, "pairs.csv") == {
        2: "the same user, item and time as in row 1",
        4: "unknown item '99'",
        5: "no user",
        6: "got 'soon', expected seconds since 1970 or ISO 8601",
        8: "got 'inf', expected seconds since 1970 or ISO 8601",
        10: "got '', expected seconds since 1970 or ISO 8601",
        11: "got 'good', expected a finite number",
        12: "no item",
        13: "got 2 columns, expected 4: '10,11'",
    }
    pairs = dataset.interactions
    assert dataset.user_ids == ("1", "3", "10")
    assert dataset.item_ids == ("7", "8", "11", "13")
    assert pairs.users.tolist() == [0, 0, 1, 2, 2]
    assert pairs.items.tolist() == [0, 0, 2, 1, 3]
    # 31 years from 1970 to 2001, of which 72, 76, 80, 84, 88, 92, 96 and 2000 have a day more.
    assert pairs.time is not None
    assert pairs.time.tolist() == [100, 101, (31 * 365 + 8) * 86400, 1.5, 2]
    assert pairs.value is not None
    assert pairs.value.tolist() == [5, 4, 3, 1, 2]
    assert pairs.split is None


def test_without_times_a_pair_counts_once_whatever_its_split(tmp_path: Path) -> None:
    pairs = "user,item,split\n1,7,train\n1,7,test\n1,8,tset\n2,8,test\n2,7,validation\n"
    dataset = read_dataset(write(tmp_path, pairs=pairs))
    assert listed(dataset, "pairs.csv") == {
        2: "the same user and item as in row 1",
        3: "got 'tset', expected train, validation, test",
    }
    assert dataset.interactions.split is not None
    assert dataset.interactions.split.tolist() == ["train", "test", "validation"]


def test_the_graph_and_its_bad_rows(tmp_path: Path) -> None:
    dataset = read_mostly(write(tmp_path))
    graph = dataset.graph
    assert graph.relation_names == ("by", "of")
    assert (graph.heads.tolist(), graph.relations.tolist(), graph.tails.tolist()) == (
        [0, 0, 3],
        [0, 1, 1],
        [2, 3, 1],
    )
    assert listed(dataset, "graph.csv") == {2: "the same triple as in row 1", 5: "no tail"}


def test_a_table_of_users_says_who_there_is(tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("who,age,self\n10,25,a.jpg\n4,,\n1,18,\n3,25,none.jpg\n")
    users = {"file": "users.csv", "id": "who", "columns": {"age": "category", "self": "image"}}
    dataset = read_dataset(write(tmp_path, pairs="user,item\n1,7\n10,8\n2,8\n3,8\n", users=users))
    assert dataset.user_ids == ("10", "4", "1", "3")
    assert dataset.interactions.users.tolist() == [2, 0, 3]
    assert dict(dataset.users[0].content) == {"table": {"age": "25"}, "image": tmp_path / "a.jpg"}
    assert dataset.users[1].modalities == ()
    assert listed(dataset, "pairs.csv") == {3: "unknown user '2'"}


def test_splits_of_items(tmp_path: Path) -> None:
    write(tmp_path, pairs=None)
    raw = yaml.safe_load((tmp_path / "card.yaml").read_text())
    raw["items"]["split"] = "part"
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(raw))
    dataset = read_dataset(tmp_path)
    assert dataset.item_split is not None
    assert dataset.item_split.tolist() == ["train", "", "test", ""]
    reasons = [each.reason for each in dataset.rejected if each.column == "part"]
    assert reasons == ["got 'tset', expected train, validation, test"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"items": HEADER + "7,A,,,,\n7,B,,,,\n8,C,,,,\n"},
         r"items\.csv: the same id for several items, 1 times: 7; expected each"),
        ({"items": HEADER}, r"items\.csv: the table of items has no rows"),
        ({"items": ""}, r"items\.csv: the file is empty, expected a header"),
        ({"items": "id,id\n1,2\n"}, r"items\.csv: column 'id' comes twice"),
        ({"pairs": "user,item\n1,99\n2,98\n3,7\n"},
         r"pairs\.csv: rows: 2 of 3 are bad, expected at most 50%; the first: row 1: unknown item '99'"),
        ({"pairs": "user,item\n,7\n"}, r"pairs\.csv: rows: 1 of 1 are bad"),
        ({"items": HEADER + "7,A,,,b.jpg,\n8,B,,,c.jpg,\n9,B,,,a.jpg,\n"},
         r"cells of column 'poster': 2 of 3 are bad, .*; the first: row 1: no file .*/b\.jpg"),
    ],
)  # fmt: skip
def test_files_that_are_mostly_or_wholly_bad(tmp_path: Path, files: dict[str, str], message: str) -> None:
    write(tmp_path, **files)
    with pytest.raises(InputError, match=message):
        read_dataset(tmp_path)


def test_exactly_half_bad_is_still_read(tmp_path: Path) -> None:
    dataset = read_dataset(write(tmp_path, pairs="user,item\n1,99\n3,7\n"))
    assert len(dataset.interactions) == 1


def test_broken_files(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "items.csv").write_bytes(b"id,title,genres,year,poster,film\n7,\xff\xfe,,,,\n")
    with pytest.raises(InputError, match=r"items\.csv: cannot be read as csv \(.*UTF.?8"):
        read_dataset(tmp_path)
    (tmp_path / "items.parquet").write_bytes(b"PAR1 and then nothing")
    items = {"file": "items.parquet", "id": "id", "columns": {"title": "text"}}
    (tmp_path / "card.yaml").write_text(yaml.safe_dump({"name": "films", "items": items}))
    with pytest.raises(InputError, match=r"items\.parquet: cannot be read as parquet"):
        read_dataset(tmp_path)
    (tmp_path / "items.xlsx").touch()
    items["file"] = "items.xlsx"
    (tmp_path / "card.yaml").write_text(yaml.safe_dump({"name": "films", "items": items}))
    with pytest.raises(
        InputError, match=r"items\.xlsx: got a file ending in '\.xlsx', expected \.parquet, \.csv or"
    ):
        read_dataset(tmp_path)


def test_parquet_says_the_same_as_csv(tmp_path: Path) -> None:
    """Nulls turn whole numbers into floats, and text has several types, in files of other writers."""
    (tmp_path / "a.jpg").touch()
    frame = pd.DataFrame(
        {
            "id": [7.0, 8.0, np.nan, 13.0],
            "title": pd.Categorical(["Heat", None, "None", "Up"]),
            "genres": [["Action", "Crime"], [], ["Drama"], None],
            "year": pd.array([1995, None, 2000, 2009], dtype="Int64"),
            "poster": ["a.jpg", None, None, ""],
            "film": [3, 4, 5, 3],
        }
    )
    frame.to_parquet(tmp_path / "items.parquet")
    times = pd.Series(pd.to_datetime([60, 86400, 0, 2.5], unit="s")).where(lambda time: time.index != 2)
    pairs = pd.DataFrame({"user": [2, 2, 3, 11], "item": [7, 13, 7, 8], "time": times})
    pairs.to_parquet(tmp_path / "pairs.parquet")
    raw = {
        "name": "films",
        "items": {"file": "items.parquet", "id": "id", "columns": COLUMNS},
        "interactions": {"file": "pairs.parquet", "user": "user", "item": "item", "time": "time"},
    }
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    dataset = read_dataset(tmp_path)
    assert [(item.id, dict(item.content)) for item in dataset.items] == [
        (
            "7",
            {
                "text": ["Heat", "Action, Crime"],
                "table": {"genres": ["Action", "Crime"], "year": 1995.0, "film": 0},
                "image": tmp_path / "a.jpg",
            },
        ),
        ("8", {"table": {"film": 1}}),
        ("13", {"text": ["Up", None], "table": {"year": 2009.0, "film": 0}}),
    ]
    assert dataset.graph.entities == ("3", "4")  # 5 stands in the row without an id
    assert listed(dataset, "items.parquet") == {3: "no id"}
    assert dataset.interactions.time is not None
    assert dataset.interactions.time.tolist() == [60, 86400, 2.5]
    assert dataset.interactions.items.tolist() == [0, 2, 1]
    assert listed(dataset, "pairs.parquet") == {3: "got '', expected seconds since 1970 or ISO 8601"}


def test_summary_and_rejected_csv(tmp_path: Path) -> None:
    dataset = read_mostly(write(tmp_path))
    summary = dataset.summary()
    assert summary == {
        "name": "films",
        "items": 4,
        "users": 3,
        "interactions": 5,
        "density": 5 / 12,
        "presence": {"text": 3, "table": 3, "image": 2},
        "combinations": {"text+table+image": 2, "none": 1, "text+table": 1},
        "interactions_per_user": {"min": 1, "median": 2.0, "mean": 5 / 3, "max": 2, "none": 0},
        "interactions_per_item": {"min": 1, "median": 1.0, "mean": 1.25, "max": 2, "none": 0},
        "interaction_splits": {},
        "item_splits": {},
        "triples": 3,
        "entities": 5,
        "relations": 2,
        "rejected": {"row dropped": 11, "cell dropped": 2, "kept": 1},
    }
    dataset.rejected.write(tmp_path / "rejected.csv")
    with (tmp_path / "rejected.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 14
    assert rows[-1] == {
        "table": "pairs.csv",
        "row": "13",
        "id": "",
        "column": "",
        "effect": "row dropped",
        "reason": "got 2 columns, expected 4: '10,11'",
    }


def test_a_card_with_items_alone(tmp_path: Path) -> None:
    dataset = read_dataset(write(tmp_path, pairs=None, graph=None))
    assert len(dataset.interactions) == len(dataset.graph) == len(dataset.users) == 0
    assert dataset.graph.entities == ("3", "12", "x")
    assert dataset.summary()["interactions_per_user"] == {}


def test_a_dataset_can_be_sent_to_a_worker(tmp_path: Path) -> None:
    dataset = read_mostly(write(tmp_path))
    again = pickle.loads(pickle.dumps(dataset))
    assert again.item_ids == dataset.item_ids
    assert again.card == dataset.card


def test_select_takes_rows_of_every_column() -> None:
    pairs = Interactions(
        np.arange(5), np.arange(5) + 10, time=np.arange(5) / 2, split=np.array(list("abcde"))
    )
    chosen = pairs.select(np.array([4, 1]))
    assert chosen.items.tolist() == [14, 11]
    assert chosen.time is not None
    assert chosen.time.tolist() == [2.0, 0.5]
    assert chosen.split is not None
    assert chosen.split.tolist() == ["e", "b"]
    assert chosen.value is None


PAIR = st.tuples(st.sampled_from(["1", "2", "30", ""]), st.sampled_from(["7", "8", "11", "99", ""]))


@given(st.lists(PAIR, max_size=23))
def test_good_and_bad_rows_together_are_all_rows(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    """Against a plain loop: whatever the rows, each is read once or listed once."""
    folder = tmp_path_factory.getbasetemp() / "rows"
    folder.mkdir(exist_ok=True)
    write(folder, pairs="user,item\n" + "".join(f"{user},{item}\n" for user, item in rows), graph=None)
    good = list(dict.fromkeys(row for row in rows if row[0] and row[1] in ("7", "8", "11")))
    if rows and not good:
        with pytest.raises(InputError, match="are bad"):
            read_dataset(folder, reject_limit=1.0)
        return
    dataset = read_dataset(folder, reject_limit=1.0)
    pairs = dataset.interactions
    results = [
        (dataset.user_ids[u], dataset.item_ids[i]) for u, i in zip(pairs.users, pairs.items, strict=True)
    ]
    assert results == good
    assert len(listed(dataset, "pairs.csv")) == len(rows) - len(good)
    assert list(dataset.user_ids) == natural_sort({user for user, _ in good})
