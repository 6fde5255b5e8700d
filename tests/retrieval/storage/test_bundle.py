"""The bundle: whole at every moment, every flipped byte named, every lie found."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmattn.errors import InputError
from mmattn.retrieval.index import Index
from mmattn.retrieval.open_index import open_index
from mmattn.retrieval.storage import bundle
from mmattn.retrieval.storage.manifest import manifest_text

ORIGIN = {"encoder text": "aaaa", "weights": "bbbb"}
WIDTH = 31


def made(count: int = 23) -> Index:
    """Item n has the vector n, n + 1, ... and the year n."""
    return Index.build(
        vectors(range(count)), ids(range(count)), metadata=years(range(count)), provenance=ORIGIN
    )


def vectors(numbers: range) -> np.ndarray:
    return np.add.outer(np.array(numbers), np.arange(WIDTH)).astype(np.float32)


def ids(numbers: range) -> list[str]:
    return [f"item-{number}" for number in numbers]


def years(numbers: range) -> dict[str, Any]:
    return {"year": list(numbers), "tags": [["a", "b"][: number % 3] for number in numbers]}


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    index = made()
    index.save(tmp_path / "films")
    opened = open_index(tmp_path / "films")
    assert opened.ids.tolist() == index.ids.tolist()
    assert (opened.vectors(ids(range(23))) == vectors(range(23))).all()
    assert opened.provenance == ORIGIN
    query = vectors(range(5, 6))
    for where in (None, "year < 9", "'b' in tags"):
        assert (
            opened.search(query, 3, where=where).to_lists() == index.search(query, 3, where=where).to_lists()
        )
    assert isinstance(opened._items.vectors, np.memmap)


def test_numbers_stay_numbers_and_an_empty_index_stays_empty(tmp_path: Path) -> None:
    index = Index.build(np.eye(3), [7, 5, 2], "l2")
    index.save(tmp_path)
    assert open_index(tmp_path).search([[0, 1, 0]], 1).ids.tolist() == [[5]]
    index.remove([7, 5, 2])
    index.save(tmp_path)
    empty = open_index(tmp_path)
    assert (len(empty), empty.dim) == (0, 3)
    empty.add(np.eye(3), ["a", "b", "c"])
    assert empty.search([[0, 1, 0]], 1).ids.tolist() == [["b"]]


def test_a_new_state_replaces_the_old_one_and_leaves_nothing_behind(tmp_path: Path) -> None:
    index = made()
    index.save(tmp_path)
    (tmp_path / ".vectors.npy.abc.partial").write_bytes(b"of a kill")
    reader = open_index(tmp_path)
    index.remove(ids(range(20)))
    index.save(tmp_path)
    assert sorted(path.name.split("-")[0] for path in tmp_path.iterdir()) == [
        "items",
        "manifest.json",
        "vectors",
    ]
    assert len(open_index(tmp_path)) == 3
    assert reader.search(vectors(range(1)), 23).ids.shape == (1, 23)  # who has it open keeps reading


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="holds something else"):
        made().save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("cut", [0, 1, 100])
def test_files_that_were_cut_or_are_missing(tmp_path: Path, cut: int) -> None:
    made().save(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        path.write_bytes(whole[:cut])
        assert bundle.find_damage(tmp_path)[0].startswith(path.name)
        path.unlink()
        assert bundle.find_damage(tmp_path)[0].startswith(path.name)
        path.write_bytes(whole)
    assert bundle.find_damage(tmp_path) == []


def lie(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest and make its own checksum fit again, as a forger would."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["sha256"]
    change(manifest)
    path.write_text(manifest_text(manifest))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["index"].update(count=24), "the manifest says float32 [24, 31]"),
        (lambda m: m["index"].update(count=10**15), "the manifest says float32"),
        (lambda m: m["index"].update(dim=30), "the manifest says float32 [23, 30]"),
        (lambda m: m["index"].update(count=-1), "does not describe an index"),
        (lambda m: m["index"].update(metric="x"), "does not describe an index"),
        (lambda m: m["index"].update(provenance=[1]), "does not describe an index"),
        (lambda m: m["files"]["vectors"].update(bytes=5), "the manifest says 5"),
        (lambda m: m["files"]["vectors"].update(name="../../etc/passwd"), "names its files wrongly"),
        (lambda m: m["files"].pop("items"), "does not describe an index"),
        (lambda m: m.update(format="mmattn index 9"), "got format 'mmattn index 9'"),
        (lambda m: m.update(files=3), "names its files wrongly"),
    ],
)
def test_a_manifest_that_lies(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    made().save(tmp_path)
    lie(tmp_path, change)
    with pytest.raises(InputError) as caught:
        open_index(tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize("number", ["12e345678", "-1e999", "NaN", "Infinity", "-Infinity"])
def test_a_number_that_json_reads_and_cannot_write_is_damage(tmp_path: Path, number: str) -> None:
    """One flipped byte makes 12e345678, which is infinite, of a measured 12.345678."""
    made().save(tmp_path)
    path = tmp_path / "manifest.json"
    text = path.read_text()
    damaged = text.replace(f'"dim": {WIDTH}', f'"dim": {number}')
    assert damaged != text
    path.write_text(damaged)
    assert len(bundle.find_damage(tmp_path)) == 1
    with pytest.raises(InputError, match=r"manifest\.json: damaged"):
        open_index(tmp_path)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    """A forger who makes all hashes fit still gets nothing run."""
    made().save(tmp_path)
    path = next(tmp_path.glob("vectors-*"))
    path.write_bytes(pickle.dumps({"harmless": "as it is, but pickled"}))
    size, digest = path.stat().st_size, bundle.sha256_file(path)
    lie(tmp_path, lambda m: m["files"]["vectors"].update(bytes=size, sha256=digest))
    with pytest.raises(InputError, match="cannot be read as vectors"):
        open_index(tmp_path)


def test_vectors_of_another_origin_are_refused_after_opening_too(tmp_path: Path) -> None:
    made().save(tmp_path)
    opened = open_index(tmp_path)
    with pytest.raises(InputError, match="they come from cccc, expected bbbb"):
        opened.search(vectors(range(1)), provenance={**ORIGIN, "weights": "cccc"})
