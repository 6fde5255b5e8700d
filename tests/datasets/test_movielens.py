"""MovieLens from raw files written by hand, and (marked `data`) from the real ones."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from mmattn.data.reader import read_dataset
from mmattn.errors import InputError
from mmattn_datasets.movielens.prepare import MovieLens
from mmattn_datasets.movielens.raw import parse_people, split_title

SHARED = Path(__file__).parents[2] / "../shared/data"

EXTRAS_LINE = "{}::{}::1995::R::22 Nov 1995::Drama::{}::{}::{}::{}::http://poster"


def raw_ml1m(root: Path) -> Path:
    """Five films of which one is not rated, three users; every kind of bad line there is."""
    for folder in ("interactions", "metadata", "posters", "kg"):
        (root / folder).mkdir(parents=True)
    (root / "interactions/item_map.txt").write_text("10 2\n20 0\n30 1\n20 5\n40 x\n50 3\n60\n")
    (root / "interactions/user_map.txt").write_text("7 0\n8 1\n9 2\n")
    (root / "interactions/train.txt").write_text("0 0 1 2 1\n1 0 9\n2 2 a\n\n5 1\n")
    (root / "interactions/test.txt").write_text("0 3 2\n1 1\nb 1\n")
    movies = [
        "10::Heat (1995)::Action|Crime",
        "20::Mis\ufffdrables, Les (1995)::Drama",
        "30::Cité, La (Town, The)::Drama",
        "10::Heat again (1996)::Drama",
        "99::Nobody rated this (1990)::Drama",
        "broken line",
    ]
    (root / "metadata/movies.dat").write_bytes("\n".join(movies).encode())
    extras = [
        EXTRAS_LINE.format(
            10, "Heat", "Michael Mann", "Michael Mann (written by)", "Al Pacino, Val Kilmer", "Cops."
        ),
        EXTRAS_LINE.format(20, "Les Misérables", "Bille August(co-director)", "N/A", "N/A", "N/A"),
        EXTRAS_LINE.format(30, "Town", "N/A", "N/A", "N/A", "A ca"),
        EXTRAS_LINE.format(10, "Heat", "Other", "N/A", "N/A", "N/A"),
        "30::too::short",
    ]
    # The last plot ends in a byte that is Latin-1 and not UTF-8.
    lines = [line.encode() for line in extras]
    lines[2] = lines[2].replace(b"A ca", b"A caf\xe9")
    (root / "metadata/movies_extrainfos.dat").write_bytes(b"\r\n".join(lines) + b"\r\n")
    (root / "metadata/users.dat").write_text("7::F::1::10::48067\n8::M::25::16::70072\n")
    for film in (10, 20, 99):
        (root / f"posters/{film}.jpg").touch()
    (root / "kg/kg.txt").write_text("0\tfilm.genre\t5\n0\tfilm.genre\t5\n1\tfilm.star\tx\n1\tfilm.star\t6\n")
    (root / "kg/item_index2entity_id.txt").write_text("10\t0\n30\t1\n")
    return root


def complaints(out: Path) -> list[tuple[str, int, str, str]]:
    with (out / "rejected.csv").open(newline="", encoding="utf-8") as file:
        return [(row["table"], int(row["row"]), row["effect"], row["reason"]) for row in csv.DictReader(file)]


def test_ml1m_items(tmp_path: Path) -> None:
    root = raw_ml1m(tmp_path / "raw")
    card = MovieLens().prepare(root, tmp_path / "out")
    dataset = read_dataset(card)
    assert dataset.item_ids == ("0", "1", "2", "3")
    assert dataset.labels["movielens_id"].tolist() == ["20", "30", "10", "50"]
    poster = root.resolve() / "posters"
    assert [dict(item.content) for item in dataset.items] == [
        {
            "text": ["Les Misérables", "1995", "Drama", "Bille August", None, None],
            "table": {"year": 1995.0, "genres": ["Drama"], "directors": ["Bille August"], "mpaa": "R"},
            "image": poster / "20.jpg",
        },
        {
            "text": ["La Cité (The Town)", None, "Drama", None, None, "A café"],
            "table": {"genres": ["Drama"], "mpaa": "R", "entity": 1},
        },
        {
            "text": ["Heat", "1995", "Action, Crime", "Michael Mann", "Al Pacino, Val Kilmer", "Cops."],
            "table": {
                "year": 1995.0,
                "genres": ["Action", "Crime"],
                "directors": ["Michael Mann"],
                "actors": ["Al Pacino", "Val Kilmer"],
                "writers": ["Michael Mann"],
                "mpaa": "R",
                "entity": 0,
            },
            "image": poster / "10.jpg",
        },
        {},
    ]


def test_the_sparse_card_says_title_genres_and_poster(tmp_path: Path) -> None:
    root = raw_ml1m(tmp_path / "raw")
    whole = read_dataset(MovieLens().prepare(root, tmp_path / "out"))
    sparse = read_dataset(tmp_path / "out/sparse.yaml")
    poster = root.resolve() / "posters"
    assert [dict(item.content) for item in sparse.items] == [
        {"text": ["Les Misérables"], "table": {"genres": ["Drama"]}, "image": poster / "20.jpg"},
        {"text": ["La Cité (The Town)"], "table": {"genres": ["Drama"]}},
        {"text": ["Heat"], "table": {"genres": ["Action", "Crime"]}, "image": poster / "10.jpg"},
        {},
    ]
    assert sparse.item_ids == whole.item_ids
    assert sparse.interactions.users.tolist() == whole.interactions.users.tolist()
    assert sparse.interactions.items.tolist() == whole.interactions.items.tolist()
    assert (len(sparse.graph), sparse.card.users) == (0, None)


def test_ml1m_interactions_users_and_graph(tmp_path: Path) -> None:
    dataset = read_dataset(MovieLens().prepare(raw_ml1m(tmp_path / "raw"), tmp_path / "out"))
    pairs = dataset.interactions
    assert pairs.split is not None
    actual = list(zip(pairs.users.tolist(), pairs.items.tolist(), pairs.split.tolist(), strict=True))
    assert actual == [
        (0, 0, "train"),
        (0, 1, "train"),
        (0, 2, "train"),
        (1, 0, "train"),
        (2, 2, "train"),
        (0, 3, "test"),
        (1, 1, "test"),
    ]
    assert [dict(user.content) for user in dataset.users] == [
        {"table": {"gender": "F", "age": "1", "occupation": "10"}},
        {"table": {"gender": "M", "age": "25", "occupation": "16"}},
        {},
    ]
    graph = dataset.graph
    assert graph.entities == ("0", "1", "5", "6")
    assert graph.relation_names == ("film.genre", "film.star")
    assert (graph.heads.tolist(), graph.relations.tolist(), graph.tails.tolist()) == ([0, 1], [0, 1], [2, 3])


def test_ml1m_lists_every_bad_line(tmp_path: Path) -> None:
    MovieLens().prepare(raw_ml1m(tmp_path / "raw"), tmp_path / "out")
    assert sorted(complaints(tmp_path / "out")) == sorted(
        [
            ("interactions/item_map.txt", 0, "kept", "film 50 is not in metadata/movies.dat"),
            ("interactions/item_map.txt", 4, "row dropped", "number 20 or 5 has come before"),
            ("interactions/item_map.txt", 5, "row dropped", "got '40' 'x', expected two numbers"),
            ("interactions/item_map.txt", 7, "row dropped", "got 1 fields, expected 2"),
            ("interactions/train.txt", 1, "row dropped", "item 1: the user has had it before"),
            ("interactions/train.txt", 2, "row dropped", "item 9: not in item_map.txt"),
            ("interactions/train.txt", 3, "row dropped", "got 'a', expected a number"),
            ("interactions/train.txt", 5, "row dropped", "item 1: the user is not in user_map.txt"),
            ("interactions/test.txt", 1, "row dropped", "item 2: the user has had it before"),
            ("interactions/test.txt", 3, "row dropped", "got 'b', expected a number"),
            ("metadata/movies.dat", 3, "cell dropped", "no year at the end of 'Cité, La (Town, The)'"),
            ("metadata/movies.dat", 4, "row dropped", "the film has come before"),
            ("metadata/movies.dat", 6, "row dropped", "got 1 fields, expected 3"),
            ("metadata/movies_extrainfos.dat", 4, "row dropped", "the film has come before"),
            ("metadata/movies_extrainfos.dat", 5, "row dropped", "got 3 fields, expected 11"),
            ("kg/kg.txt", 2, "row dropped", "the same triple as in line 1"),
            ("kg/kg.txt", 3, "row dropped", "got '1', 'film.star', 'x', expected entity, relation, entity"),
            ("posters", 0, "kept", "no 30.jpg"),
            ("posters", 0, "kept", "no 50.jpg"),
        ]
    )  # fmt: skip


def test_ml1m_without_its_extras(tmp_path: Path) -> None:
    root = raw_ml1m(tmp_path / "raw")
    for name in (
        "metadata/movies_extrainfos.dat",
        "metadata/users.dat",
        "kg/kg.txt",
        "kg/item_index2entity_id.txt",
    ):
        (root / name).unlink()
    for poster in (root / "posters").iterdir():
        poster.unlink()
    (root / "posters").rmdir()
    card = MovieLens().prepare(root, tmp_path / "out")
    assert card.items.modalities == ("text", "table")
    assert card.graph is None
    assert card.users is None
    lacking = {
        table for table, row, effect, _ in complaints(tmp_path / "out") if row == 0 and effect == "kept"
    }
    assert lacking >= {"metadata/movies_extrainfos.dat", "metadata/users.dat", "kg/kg.txt", "posters"}


def test_posters_inside_the_output_are_relative_to_the_card(tmp_path: Path) -> None:
    raw_ml1m(tmp_path / "out/raw")
    MovieLens().prepare(tmp_path / "out/raw", tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "moved")
    dataset = read_dataset(tmp_path / "moved")
    assert dataset.items[2].content["image"] == tmp_path / "moved/raw/posters/10.jpg"


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"raw: no MovieLens here; expected interactions/train\.txt, .*movies\.csv"
    ):
        MovieLens().prepare(tmp_path / "raw", tmp_path / "out")
    root = raw_ml1m(tmp_path / "raw")
    (root / "interactions/user_map.txt").unlink()
    (root / "metadata/movies.dat").unlink()
    with pytest.raises(InputError, match=r"missing: interactions/user_map\.txt, metadata/movies\.dat$"):
        MovieLens().prepare(root, tmp_path / "out")
    with pytest.raises(InputError, match="no root given, expected the folder or zip"):
        MovieLens().prepare(None, tmp_path / "out")


def test_wrong_maps_are_an_error_not_a_long_list(tmp_path: Path) -> None:
    root = raw_ml1m(tmp_path / "raw")
    (root / "interactions/user_map.txt").write_text("7 100\n8 101\n")
    with pytest.raises(InputError, match=r"11 of 11 interactions are bad, expected the users and items of"):
        MovieLens().prepare(root, tmp_path / "out")


MOVIES = (
    "movieId,title,genres\n"
    '10,"Usual Suspects, The (1995)",Crime|Thriller\n'
    "20,Babylon 5,(no genres listed)\n"
    "30,Death Note (2006–2007),Drama\n"
    "40,short\n"
)
RATINGS = (
    "userId,movieId,rating,timestamp\n1,10,4.5,1000\n1,10,4.5,1000\n1,20,3.0,later\n"
    "2,99,3.0,5\n2,30,0.5,1260759144\n2,10,x,7\n11,20,2.0,6\n11,30,2.0,6\n"
)


def raw_latest(root: Path) -> Path:
    root.mkdir(parents=True)
    (root / "movies.csv").write_text(MOVIES)
    (root / "ratings.csv").write_text(RATINGS)
    return root


def test_latest_small_from_a_folder(tmp_path: Path) -> None:
    dataset = read_dataset(MovieLens().prepare(raw_latest(tmp_path / "ml-latest-small"), tmp_path / "out"))
    assert [(item.id, dict(item.content)) for item in dataset.items] == [
        (
            "10",
            {
                "text": ["The Usual Suspects", "1995", "Crime, Thriller"],
                "table": {"year": 1995.0, "genres": ["Crime", "Thriller"]},
            },
        ),
        ("20", {"text": ["Babylon 5", None, None]}),
        ("30", {"text": ["Death Note", "2006", "Drama"], "table": {"year": 2006.0, "genres": ["Drama"]}}),
    ]
    pairs = dataset.interactions
    assert dataset.user_ids == ("1", "2", "11")
    assert (pairs.users.tolist(), pairs.items.tolist()) == ([0, 1, 2, 2], [0, 2, 1, 2])
    assert pairs.time is not None
    assert pairs.value is not None
    assert (pairs.time.tolist(), pairs.value.tolist()) == ([1000, 1260759144, 6, 6], [4.5, 0.5, 2, 2])
    assert complaints(tmp_path / "out") == [
        ("movies.csv", 4, "row dropped", "got 2 columns, expected 3: '40,short'"),
        ("ratings.csv", 2, "row dropped", "the same user, item and time as in row 1"),
        ("ratings.csv", 3, "row dropped", "got 'later', expected seconds since 1970 or ISO 8601"),
        ("ratings.csv", 4, "row dropped", "unknown item '99'"),
        ("ratings.csv", 6, "row dropped", "got 'x', expected a finite number"),
        ("movies.csv", 2, "cell dropped", "no year at the end of 'Babylon 5'"),
    ]


def test_latest_small_zip_is_the_same_and_takes_extras(tmp_path: Path) -> None:
    folder = raw_latest(tmp_path / "raw/ml-latest-small")
    archive = tmp_path / "zipped/ml-latest-small.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as packed:
        for file in folder.iterdir():
            packed.write(file, f"ml-latest-small/{file.name}")
    plain = read_dataset(MovieLens().prepare(tmp_path / "raw", tmp_path / "plain"))
    for index in (archive, archive.parent):
        zipped = read_dataset(MovieLens().prepare(index, tmp_path / f"out{index.name}"))
        assert zipped.items == plain.items
    extras = raw_ml1m(tmp_path / "ml1m")
    joined = read_dataset(MovieLens().prepare(archive, tmp_path / "joined", extras=extras))
    assert joined.items[0].content["image"] == extras.resolve() / "posters/10.jpg"
    assert joined.items[0].content["text"] == [
        "The Usual Suspects", "1995", "Crime, Thriller", "Michael Mann", "Al Pacino, Val Kilmer", "Cops.",
    ]  # fmt: skip
    assert len(joined.graph) == 2


def test_a_broken_zip(tmp_path: Path) -> None:
    archive = tmp_path / "ml-latest-small.zip"
    archive.write_bytes(b"PK and no more")
    with pytest.raises(InputError, match=r"ml-latest-small\.zip: not a whole zip"):
        MovieLens().prepare(archive, tmp_path / "out")
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("ml-latest-small/movies.csv", MOVIES)
    with pytest.raises(
        InputError, match=r"ml-latest-small\.zip: not ml-latest-small, missing in it: ratings\.csv"
    ):
        MovieLens().prepare(tmp_path, tmp_path / "out")
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("movies.csv", MOVIES)
        packed.writestr("ratings.csv", "user,film,rating,timestamp\n")
    with pytest.raises(
        InputError, match=r"no column 'userId' in .*zip/ratings\.csv, which has user, film, rating"
    ):
        MovieLens().prepare(archive, tmp_path / "out")


@pytest.mark.parametrize(
    ("raw", "title", "year"),
    [
        ("Usual Suspects, The (1995)", "The Usual Suspects", 1995),
        ("Postino, Il (The Postman) (1994)", "Il Postino (The Postman)", 1994),
        ("White Balloon, The (Badkonake Sefid ) (1995)", "The White Balloon (Badkonake Sefid)", 1995),
        ("Eclisse, L' (1962)", "L'Eclisse", 1962),
        ("Late August, Early September (Fin août) (1998)", "Late August, Early September (Fin août)", 1998),
        ("2001: A Space Odyssey (1968)", "2001: A Space Odyssey", 1968),
        ("Doctor Who (2005- )", "Doctor Who", 2005),
        ("Fawlty Towers (1975-1979)", "Fawlty Towers", 1975),
        ("Moonlight", "Moonlight", None),
    ],
)
def test_titles(raw: str, title: str, year: int | None) -> None:
    assert split_title(raw) == (title, year)


def test_people() -> None:
    text = 'Senel Paz (screenplay), Senel Paz (story "The Wolf,  The Forest"), Tomás Gutiérrez Alea, N/A'
    assert parse_people(text) == ["Senel Paz", "Tomás Gutiérrez Alea"]
    assert parse_people("N/A") == parse_people("") == []


def test_old_files_in_latin_1(tmp_path: Path) -> None:
    root = raw_ml1m(tmp_path / "raw")
    (root / "metadata/movies.dat").write_bytes("20::Misérables, Les (1995)::Drama\n".encode("latin-1"))
    dataset = read_dataset(MovieLens().prepare(root, tmp_path / "out"))
    assert dataset.items[0].content["text"][0] == "Les Misérables"


@pytest.mark.data
def test_the_real_ml1m(tmp_path: Path) -> None:
    root = SHARED / "ml1m"
    if not root.is_dir():
        pytest.skip(f"no real data at {root}")
    dataset = read_dataset(MovieLens().prepare(root, tmp_path / "out"))
    summary = dataset.summary()
    assert (summary["items"], summary["users"]) == (3260, 6040)
    assert summary["interaction_splits"] == {"train": 801_218, "test": 197_321}
    assert summary["presence"]["image"] == 3256
    assert summary["presence"]["text"] == 3259  # film 860 is in no file of titles
    assert (summary["triples"], summary["relations"]) == (20_782, 7)
    assert dataset.item_ids == tuple(map(str, range(3260)))
    assert dataset.user_ids == tuple(map(str, range(6040)))
    assert dataset.items[34].content["text"][:2] == ["Toy Story", "1995"]
    assert not any("\ufffd" in json.dumps(dict(item.content), default=str) for item in dataset.items)
    assert {reason for _, _, _, reason in complaints(tmp_path / "out")} == {
        "film 860 is not in metadata/movies.dat",
        *(f"no {film}.jpg" for film in (1306, 155, 258, 2597)),
    }


@pytest.mark.data
def test_the_real_ml_latest_small(tmp_path: Path) -> None:
    root = SHARED / "ml-latest-small"
    if not root.is_dir():
        pytest.skip(f"no real data at {root}")
    dataset = read_dataset(MovieLens().prepare(root, tmp_path / "out", extras=SHARED / "ml1m"))
    assert (len(dataset.items), len(dataset.users), len(dataset.interactions)) == (9742, 610, 100_836)
    assert pd.Timestamp(dataset.interactions.time.max(), unit="s").year == 2018  # type: ignore[union-attr]
    assert dataset.items[0].modalities == ("text", "table", "image")
