"""A service answers: hand-worked scores, every kind of history, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mmattn
from mmattn import InputError
from mmattn.retrieval.index import Index
from mmattn.serving.service import RecommenderService


def test_scores_by_hand(service: RecommenderService) -> None:
    actual = service.recommend([14, 10], k=3)
    # Two items in the history add [1] each: item n scores 2 n.
    assert (actual.ids, actual.scores, actual.basis) == ([13, 12, 11], [6.0, 4.0, 2.0], "history")
    assert service.recommend(["14", "10", 14], k=3) == actual  # text names the same items; twice is once
    assert mmattn.recommend(service, [14, 10], 3) == actual


def test_filters_still_give_k(service: RecommenderService) -> None:
    assert service.recommend([14], 2, "genre == 'Comedy'").ids == [12, 10]
    assert service.recommend([14], 2, "genre == 'Comedy' and year > 1991").ids == [12]
    assert service.recommend([14], 2, "year < 1900").ids == []
    assert service.recommend([14], 9).ids == [13, 12, 11, 10]  # all that are left


def test_nobody_s_history(service: RecommenderService) -> None:
    service.item_to_user = np.array([[1.0], [2.0], [6.0], [100.0], [100.0]], np.float32)
    actual = service.recommend([], k=2)
    # The mean of what the three known items add: 3. Items 13 and 14 are not known and have no part in it.
    assert (actual.ids, actual.scores, actual.basis) == ([14, 13], [12.0, 9.0], "catalogue")


def test_a_history_of_ten_thousand() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((10_037, 4)).astype(np.float32)
    maps = rng.standard_normal((10_037, 4)).astype(np.float32)
    index = Index.build(vectors, [f"i{number}" for number in range(10_037)])
    nothing = np.zeros((0, 0), np.float32)
    large = RecommenderService(
        Path("nowhere"), index, maps, nothing, np.arange(5), nothing, nothing, {"catalogue": "large"}
    )
    met = rng.permutation(10_037)[:10_000]
    actual = large.recommend([f"i{number}" for number in met], k=20)
    left = np.setdiff1d(np.arange(10_037), met)
    scores = vectors[left].astype(np.float64) @ maps[met].astype(np.float64).sum(0)
    assert actual.ids == [f"i{number}" for number in left[np.argsort(-scores)[:20]]]
    assert actual.scores == pytest.approx(np.sort(scores)[::-1][:20].tolist(), rel=1e-3)


@pytest.mark.parametrize(
    ("history", "message"),
    [
        (
            [10, 114, 99],
            r"history: 2 items not among the 5 of catalogue 'line': '114', '99'. Did you mean '1",
        ),
        (["ten"], "history: 1 item not among the 5 of catalogue 'line': 'ten'."),
        ([None], "history: 1 item not among the 5"),
        ("10", "history: got '10', expected a list of item ids"),
        (10, "history: got 10, expected a list of item ids"),
    ],
)
def test_histories_that_cannot_be(service: RecommenderService, history: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        service.recommend(history)  # type: ignore[arg-type]


@pytest.mark.parametrize("k", [0, -1, 2.5, True])
def test_k_that_cannot_be(service: RecommenderService, k: object) -> None:
    with pytest.raises(InputError, match="expected a whole number from 1"):
        service.recommend([10], k)  # type: ignore[arg-type]


def test_a_filter_that_does_not_parse(service: RecommenderService) -> None:
    with pytest.raises(InputError, match="no column 'gnre'. Did you mean 'genre'"):
        service.recommend([10], 2, "gnre == 'Comedy'")


def test_saved_and_opened(service: RecommenderService) -> None:
    run = service.folder.parent
    service.save()
    opened = RecommenderService.open(run)
    assert opened.recommend([14, 10], 3, "year > 1990") == service.recommend([14, 10], 3, "year > 1990")
    assert pd.DataFrame(opened.index.metadata).equals(service.index.metadata)
    opened.save()  # the same content is the same state, whoever writes it
    service.save()


def test_nobody_writes_over_what_another_has_written(service: RecommenderService) -> None:
    service.save()
    first, second = (
        RecommenderService.open(service.folder.parent),
        RecommenderService.open(service.folder.parent),
    )
    first.item_to_user = first.item_to_user * 2
    first.save()
    with pytest.raises(InputError, match="was changed since it was opened; open it again"):
        second.save()


def test_damage_is_named(service: RecommenderService) -> None:
    service.save()
    maps = next(service.folder.glob("item-to-user-*.npy"))
    maps.write_bytes(maps.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=r"item-to-user-\w+.npy: damaged"):
        RecommenderService.open(service.folder.parent)


def test_no_run_and_something_else(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no index/ to recommend from"):
        mmattn.recommend(tmp_path, ["7"])
    Index.build(np.eye(2)).save(tmp_path / "index")
    with pytest.raises(InputError, match="holds one index, for Index.open, expected a run's recommender"):
        RecommenderService.open(tmp_path)
