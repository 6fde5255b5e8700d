"""The graph beside the items, counted by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmattn import InputError
from mmattn.data.card import Card
from mmattn.data.graph_neighbours import bidirectional_edges, with_neighbours
from mmattn.data.reader import read_dataset

GRAPH = "graph: {file: triples.csv, head: head, relation: relation, tail: tail}"


def card(folder: Path, roles: str = "title: text, node: entity", graph: str = GRAPH) -> Card:
    (folder / "items.csv").write_text("id,title,node\na,Heat,10\nb,Ronin,\nc,Up,40\n")
    (folder / "triples.csv").write_text(
        "head,relation,tail\n10,star,20\n10,genre,30\n50,star,20\n10,writer,20\n"
    )
    (folder / "card.yaml").write_text(
        f"name: films\nitems: {{file: items.csv, id: id, columns: {{{roles}}}}}\n{graph}\n"
    )
    return Card.load(folder)


def test_each_item_gets_what_its_entity_is_joined_to(tmp_path: Path) -> None:
    dataset = read_dataset(card(tmp_path))
    assert dataset.graph.entities == ("10", "20", "30", "40", "50")
    grown = with_neighbours(dataset)
    assert [item.content.get("graph") for item in grown.items] == [
        {"node": 0, "neighbours": [1, 2]},  # 20 by two relations, once
        None,
        {"node": 3, "neighbours": []},
    ]
    for before, after in zip(dataset.items, grown.items, strict=True):
        assert dict(before.content) == {key: value for key, value in after.content.items() if key != "graph"}


def test_edges_go_both_ways_with_relations_of_their_own(tmp_path: Path) -> None:
    graph = read_dataset(card(tmp_path)).graph
    assert graph.relation_names == ("genre", "star", "writer")
    results = {tuple(edge) for edge in bidirectional_edges(graph).T.tolist()}
    assert results == {(0, 1, 1), (0, 2, 0), (4, 1, 1), (0, 1, 2), (1, 0, 4), (2, 0, 3), (1, 4, 4), (1, 0, 5)}


@pytest.mark.parametrize("options", [{"roles": "title: text"}, {"graph": ""}])
def test_without_a_graph_it_is_refused(tmp_path: Path, options: dict[str, str]) -> None:
    with pytest.raises(InputError, match="films: got no graph, expected a table of triples"):
        with_neighbours(read_dataset(card(tmp_path, **options)))
