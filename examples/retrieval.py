"""Find things by what they are: an index is built, filtered, changed, split, saved; then two modalities.

Reach for `mmattn.retrieval` when a trained model has given every item a vector. The vectors here are drawn by
chance around one point a genre; yours come from `mmattn embed RUN --input FILE --out vectors.parquet`.

    python examples/retrieval.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from mmattn.retrieval.fused_index import FusedIndex
from mmattn.retrieval.index import Index
from mmattn.retrieval.open_index import open_index
from mmattn.retrieval.sharded import ShardedIndex

GENRES = ("comedy", "drama", "western")
FILMS, WIDTH = 300, 16


def main() -> dict[str, Any]:
    generator = np.random.default_rng(0)
    genre = generator.integers(len(GENRES), size=FILMS)
    year = generator.integers(1950, 2020, size=FILMS)
    centres = np.linalg.qr(generator.normal(size=(WIDTH, WIDTH)))[0][: len(GENRES)]
    vectors = centres[genre] + generator.normal(0, 0.1, (FILMS, WIDTH))
    ids = [f"film-{number}" for number in range(FILMS)]
    metadata = {"genre": [GENRES[each] for each in genre], "year": year.tolist()}

    films = Index.build(
        vectors, ids, "cosine", metadata=metadata, provenance={"model": "drawn by chance"}, device="cpu"
    )
    print(films, films.plan(), sep="\n")

    western = centres[2:3]
    old = films.search(western, k=5, where="year < 1960 and genre != 'comedy'")
    print("old westerns:", old.to_lists()[0])

    films.remove([old.ids[0, 0]])
    films.add(western, ["new"], metadata={"genre": ["western"], "year": [2026]}, provenance=films.provenance)

    with tempfile.TemporaryDirectory() as folder:
        ShardedIndex.from_index(films, 3).save(
            Path(folder) / "films"
        )  # one folder: verified when it is opened, never unpickled
        opened = open_index(Path(folder) / "films", device="cpu")
        print(opened)
        first = opened.search(western, k=3).ids[0].tolist()
        alike = opened.search_ids(["new"], k=3, where="genre == 'western'").ids[0].tolist()

    # Half of the films have a poster; a film without one is not punished for it.
    posters = Index.build(vectors[::2] + 0.01, ids[::2], "cosine", device="cpu")
    texts = Index.build(vectors, ids, "cosine", device="cpu")
    both = FusedIndex({"text": texts, "image": posters}, {"text": 2.0})
    fused = both.search({"text": western, "image": western}, k=5).ids[0].tolist()
    genre_of = dict(zip(ids, metadata["genre"], strict=True))
    print("by text and poster:", [(name, genre_of[name]) for name in fused])
    return {
        "old": [(genre_of[name], int(year[ids.index(name)])) for name in old.ids[0].tolist()],
        "still there": old.ids[0, 0] in films,
        "first": first,
        "alike": alike,
        "fused": [genre_of[name] for name in fused],
    }


if __name__ == "__main__":
    main()
