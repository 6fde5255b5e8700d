"""The card: what it accepts, what it says to everything else, and that it survives its own file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mmattn.data.card import Card, Column, GraphTable, InteractionTable, ItemTable, UserTable
from mmattn.data.roles import ROLES, TARGET_ROLES
from mmattn.errors import InputError

ITEMS = "id,title,year,poster\n1,Heat,1995,heat.png\n2,Up,2009,up.png\n"
PAIRS = "user,item,time\n7,1,100\n7,2,101\n"


def folder(path: Path, **changes: Any) -> Path:
    """A small data set whose card has the given changes at its top level."""
    (path / "items.csv").write_text(ITEMS)
    (path / "pairs.csv").write_text(PAIRS)
    raw: dict[str, Any] = {
        "name": "films",
        "items": {"file": "items.csv", "id": "id", "columns": {"title": "text", "year": "number"}},
        "interactions": {"file": "pairs.csv", "user": "user", "item": "item", "time": "time"},
        **changes,
    }
    (path / "card.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


def items(**changes: Any) -> dict[str, Any]:
    return {"file": "items.csv", "id": "id", "columns": {"title": "text"}, **changes}


def test_a_card_loads_from_its_folder_or_its_file(tmp_path: Path) -> None:
    folder(tmp_path)
    card = Card.load(tmp_path)
    assert card == Card.load(tmp_path / "card.yaml")
    assert card.items.columns == {"title": (Column("text"),), "year": (Column("number"),)}
    assert card.interactions == InteractionTable("pairs.csv", "user", "item", "time")
    assert card.resolve_path("a/b.png") == tmp_path / "a/b.png"
    assert card.resolve_path("/else/b.png") == Path("/else/b.png")


def test_modalities_come_in_the_cards_order_and_a_column_may_have_several_uses() -> None:
    table = ItemTable(
        "items.csv",
        "id",
        {
            "poster": "image",
            "genres": ["categories", {"role": "text", "modality": "tags"}],
            "cover": {"role": "image", "modality": "back"},
            "title": ["text", "label"],
            "year": "number",
        },
    )
    assert table.modalities == ("image", "table", "tags", "back", "text")
    assert [(name, use.role) for name, use in table.uses()] == [
        ("poster", "image"),
        ("genres", "categories"),
        ("genres", "text"),
        ("cover", "image"),
        ("title", "text"),
        ("title", "label"),
        ("year", "number"),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"interaction": {}}, ": unknown key 'interaction'. Did you mean 'interactions'?"),
        ({"items": items(ids="id")}, ": items: unknown key 'ids'. Did you mean 'id'?"),
        ({"items": {"file": "items.csv"}}, ": items: key 'id' is missing (text)"),
        ({"items": items(id=3)}, ": items.id: got 3 (int), expected text"),
        (
            {"items": items(columns={"title": "texts"})},
            ": items: columns.title: no role 'texts'. Did you mean 'text'?",
        ),
        (
            {"items": items(columns={"title": {"rolle": "text"}})},
            ": items: columns.title: unknown key 'rolle'. Did you mean 'role'?",
        ),
        (
            {"items": items(columns={"title": []})},
            ": items: columns.title: got no use, expected a role or several",
        ),
        ({"format": 2}, ": format: got 2, expected 1, the one this version reads"),
        (
            {"items": items(columns={"title": "image", "poster": "image"})},
            ": items: columns.poster: modality 'image' is given by column 'title' already; "
            "name another one: {role: image, modality: ...}",
        ),
        (
            {"items": items(columns={"title": ["category", "text", "categories"]})},
            ": items: columns.title: modality 'table' is given by column 'title' already; "
            "name another one: {role: categories, modality: ...}",
        ),
        (
            {"items": items(columns={"title": "text", "year": {"role": "number", "modality": "text"}})},
            ": items: columns.year: modality 'text' cannot be both text and table",
        ),
        (
            {"items": items(columns={"title": {"role": "label", "modality": "text"}})},
            ": items: columns.title: got modality 'text' for a label, which belongs to none",
        ),
        (
            {"items": items(columns={"title": ["labels", "transcript"]})},
            ": items: columns.title: got the targets labels and transcript, expected one a column",
        ),
        (
            {"items": items(columns={"title": "tags", "year": "text"})},
            ": items: columns.title: tags refer to a modality of words, and the card has 0 of these",
        ),
        (
            {
                "items": items(
                    columns={
                        "title": "boxes",
                        "year": "image",
                        "poster": {"role": "image", "modality": "back"},
                    }
                )
            },
            ": items: columns.title: boxes refer to a modality of image, and the card has 2 of these, "
            "name one with `annotates`: image, back",
        ),
        (
            {"items": items(columns={"title": {"role": "boxes", "annotates": "imag"}, "poster": "image"})},
            ": items: columns.title: no modality 'imag' of image. Did you mean 'image'?",
        ),
        (
            {"items": items(columns={"title": {"role": "text", "annotates": "image"}, "poster": "image"})},
            ": items: columns.title: got annotates 'image' for a text, expected it for tags and boxes only",
        ),
        (
            {"items": items(columns={"title": "text", "year": "words"})},
            ": items: columns.year: modality 'text' cannot be both text and words",
        ),
        ({"items": items(file="item.csv")}, ": items.file: no file {folder}/item.csv"),
        (
            {"items": items(columns={"titel": "text"})},
            ": items.columns.titel: no column 'titel' in items.csv, which has id, title, year, poster",
        ),
        (
            {"items": items(split="part")},
            ": items.split: no column 'part' in items.csv, which has id, title, year, poster",
        ),
        (
            {"interactions": {"file": "pairs.csv", "user": "user", "item": "film"}},
            ": interactions.item: no column 'film' in pairs.csv, which has user, item, time",
        ),
        (
            {"graph": {"file": "pairs.csv", "head": "user", "relation": "item", "tail": "tail"}},
            ": graph.tail: no column 'tail' in pairs.csv, which has user, item, time",
        ),
        ({"users": {"file": "users.csv", "id": "id"}}, ": users.file: no file {folder}/users.csv"),
    ],
)
def test_a_wrong_card_is_one_line_with_the_path_and_the_place(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder(tmp_path, **changes)
    with pytest.raises(InputError) as caught:
        Card.load(tmp_path)
    assert str(caught.value) == f"{tmp_path}/card.yaml" + message.replace("{folder}", str(tmp_path))


def test_files_that_are_no_cards(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"card\.yaml: cannot be read"):
        Card.load(tmp_path)
    (tmp_path / "card.yaml").write_text("name: [films")
    with pytest.raises(InputError, match=r"card\.yaml: not valid YAML: .*line 1"):
        Card.load(tmp_path)
    (tmp_path / "card.yaml").write_text("- films")
    with pytest.raises(InputError, match=r"card\.yaml: got list, expected keys and values"):
        Card.load(tmp_path)


@pytest.mark.parametrize(
    ("role", "values", "message"),
    [
        ("number", [["a"], ["b"]], "holds list<element: string>, expected single values for the role number"),
        ("image", [["a"], ["b"]], "expected single values for the role image"),
        ("image", [1, 2], "holds int64, expected paths for the role image"),
        ("audio", [0.5, 2], "holds double, expected paths for the role audio"),
    ],
)
def test_a_role_that_the_parquet_type_cannot_have(
    tmp_path: Path, role: str, values: list[Any], message: str
) -> None:
    pd.DataFrame({"id": [1, 2], "x": values}).to_parquet(tmp_path / "items.parquet")
    Card("films", ItemTable("items.parquet", "id", {"x": role})).save(tmp_path)
    with pytest.raises(InputError, match=r"card\.yaml: items\.columns\.x: column 'x' ") as caught:
        Card.load(tmp_path)
    assert message in str(caught.value)


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=7)
TEXT_ROLES = st.sampled_from(["text", "categories", "category", "number", "entity", "label"])
USES = st.one_of(
    TEXT_ROLES.map(Column),
    st.builds(Column, st.just("categories"), separator=st.sampled_from([",", ";"])),
    st.builds(Column, st.just("labels"), separator=st.sampled_from([",", ";"])),
    st.builds(Column, st.just("text"), modality=st.sampled_from(["plot", "review"])),
)
COLUMNS = st.dictionaries(
    NAMES, st.lists(USES, min_size=1, max_size=3, unique_by=lambda use: use.modality).map(tuple), max_size=5
)


@given(
    name=NAMES,
    columns=COLUMNS,
    split=st.none() | NAMES,
    time=st.none() | NAMES,
    description=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=50),
    graph=st.none() | st.builds(GraphTable, NAMES, NAMES, NAMES, NAMES),
)
def test_a_card_is_the_same_after_its_own_file(
    tmp_path_factory: pytest.TempPathFactory, name: str, **parts: Any
) -> None:
    card = Card(
        name,
        ItemTable("i.csv", "id", parts["columns"], parts["split"]),
        interactions=InteractionTable("p.csv", "u", "i", parts["time"]),
        users=UserTable("u.csv", "id", parts["columns"]),
        graph=parts["graph"],
        description=parts["description"],
    )
    path = card.save(tmp_path_factory.getbasetemp() / "round.yaml")
    again = Card.read(path)
    assert again == card
    assert list(again.items.uses()) == list(card.items.uses())


def test_every_role_belongs_to_a_kind() -> None:
    kinds = {Column(role).kind for role in ROLES if role not in TARGET_ROLES}
    assert kinds == {"text", "words", "table", "image", "audio"}
    assert TARGET_ROLES == ("label", "labels", "tags", "transcript", "value", "boxes")
    assert not any(Column(role).kind or Column(role).modality for role in TARGET_ROLES)
