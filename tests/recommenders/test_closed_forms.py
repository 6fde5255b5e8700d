"""The baselines against their textbook formulas in plain numpy, and against known results on real data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestNeighbors

from mmattn.errors import InputError
from mmattn.evaluation.ranking.metrics import evaluate, rank
from mmattn.evaluation.splits import strategies
from mmattn.evaluation.splits.split import Split
from mmattn.recommenders import EASE, ContentKNN, ContentRidge, KernelRidge, Popularity, kernels

USERS, ITEMS, WIDTH = 23, 19, 7
EVERYBODY = np.arange(USERS)
ML1M = Path(__file__).parents[2] / "../shared/data/ml1m/interactions"


@pytest.fixture
def world() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Choices [U, I] with nothing in the cold columns, features [I, F], warm and cold ids."""
    rng = np.random.default_rng(0)
    cold = np.sort(rng.permutation(ITEMS)[:5])
    warm = np.setdiff1d(np.arange(ITEMS), cold)
    chosen = rng.random((USERS, ITEMS)) < 0.3
    chosen[:, cold] = False
    return chosen.astype(float), rng.normal(size=(ITEMS, WIDTH)), warm, cold


def test_popularity_counts(world) -> None:
    chosen, _, _, _ = world
    scores = Popularity().fit(sparse.csr_array(chosen)).score([0, 3, 4], [5, 1])
    assert scores.tolist() == [[chosen[:, 5].sum(), chosen[:, 1].sum()]] * 3


def test_ease_is_the_closed_form(world) -> None:
    chosen, _, warm, cold = world
    scores = EASE(2.0).fit(sparse.csr_array(chosen), known=warm).score(EVERYBODY, np.arange(ITEMS))
    x = chosen[:, warm]
    p = np.linalg.inv(x.T @ x + 2.0 * np.eye(len(warm)))
    b = np.eye(len(warm)) - p @ np.diag(1 / np.diag(p))  # the paper's equation 8
    np.testing.assert_allclose(scores[:, warm], x @ b, atol=1e-5)
    assert not scores[:, cold].any()


def test_content_ridge_is_ridge_from_features_to_users(world) -> None:
    chosen, features, warm, cold = world
    scores = ContentRidge(3.0).fit(sparse.csr_array(chosen), features, known=warm).score(EVERYBODY, cold)
    textbook = Ridge(alpha=3.0, fit_intercept=False).fit(features[warm], chosen[:, warm].T)
    np.testing.assert_allclose(scores, textbook.predict(features[cold]).T, atol=1e-5)


def test_kernel_ridge_with_a_linear_kernel_is_content_ridge(world) -> None:
    chosen, features, warm, cold = world
    seen = sparse.csr_array(chosen)
    kernel = KernelRidge(3.0).fit(seen, features @ features.T, known=warm).score(EVERYBODY, cold)
    linear = ContentRidge(3.0).fit(seen, features, known=warm).score(EVERYBODY, cold)
    np.testing.assert_allclose(kernel, linear, atol=1e-5)


def test_knn_sums_the_cosines_of_the_nearest(world) -> None:
    chosen, features, warm, cold = world
    scores = ContentKNN(4).fit(sparse.csr_array(chosen), features, known=warm).score(EVERYBODY, cold)
    similar = cosine_similarity(features[cold], features[warm])
    nearest = NearestNeighbors(n_neighbors=4, metric="cosine").fit(features[warm])
    for row, picked in enumerate(nearest.kneighbors(features[cold], return_distance=False)):
        expected = chosen[:, warm[picked]] @ similar[row, picked].clip(min=0)
        np.testing.assert_allclose(scores[:, row], expected, atol=1e-5)


def test_knn_does_not_listen_to_the_item_itself() -> None:
    seen = sparse.csr_array(np.eye(3))
    scores = ContentKNN(3).fit(seen, np.ones((3, 2))).score([0], [0, 1])
    np.testing.assert_allclose(scores, [[0.0, 1.0]], atol=1e-6)


@pytest.mark.parametrize("baseline", [EASE(1.0), ContentRidge(1.0), ContentKNN(3)])
def test_what_is_not_known_cannot_matter(world, baseline) -> None:
    """Interactions of cold items, were they to slip in, change nothing once `known` says so."""
    chosen, features, warm, _ = world
    leaky = chosen.copy()
    leaky[:, np.setdiff1d(np.arange(ITEMS), warm)] = 1
    results = [
        baseline.fit(sparse.csr_array(matrix), features, known=warm).score(EVERYBODY, np.arange(ITEMS))
        for matrix in (chosen, leaky)
    ]
    np.testing.assert_array_equal(*results)


def test_known_defaults_to_what_anybody_chose(world) -> None:
    chosen, features, _, cold = world
    chosen[:, 3] = 0
    seen = sparse.csr_array(chosen)
    default = ContentRidge(1.0).fit(seen, features).score(EVERYBODY, cold)
    answer = ContentRidge(1.0).fit(seen, features, known=np.flatnonzero(chosen.any(0))).score(EVERYBODY, cold)
    np.testing.assert_array_equal(default, answer)


def test_counts_are_taken_as_ones(world) -> None:
    chosen, _, _, _ = world
    once = EASE(1.0).fit(sparse.csr_array(chosen)).score(EVERYBODY, [0, 1])
    often = EASE(1.0).fit(sparse.csr_array(5 * chosen)).score(EVERYBODY, [0, 1])
    np.testing.assert_array_equal(once, often)


@pytest.mark.parametrize(
    ("baseline", "features", "message"),
    [
        (ContentRidge(), None, r"ContentRidge.fit: got no features, expected \[2, F\]"),
        (ContentKNN(), np.ones((3, 2)), r"got features \(3, 2\), expected \[2, F\]"),
        (KernelRidge(), np.ones((2, 3)), r"got features \(2, 3\), expected \[2, 2\]"),
        (ContentRidge(), np.full((2, 1), np.nan), "not finite"),
        (KernelRidge(1.0), -9 * np.eye(2), "not positive definite"),
    ],
)
def test_features_are_checked(baseline, features, message: str) -> None:
    with pytest.raises(InputError, match=message):
        baseline.fit(sparse.csr_array(np.eye(2)), features)


def test_arguments_are_checked() -> None:
    for call in (lambda: EASE(0), lambda: ContentRidge(float("nan")), lambda: ContentKNN(0)):
        with pytest.raises(InputError, match="expected"):
            call()
    with pytest.raises(InputError, match="got 1 known items, expected some of 0 to 1"):
        EASE().fit(sparse.csr_array(np.eye(2)), known=[2])


@pytest.fixture(scope="module")
def movielens() -> dict[str, np.ndarray]:
    """The [n, 2] pairs of user and item in the two files of MovieLens-1M."""
    if not ML1M.is_dir():
        pytest.skip(f"no MovieLens-1M at {ML1M}")
    pairs = {}
    for part in ("train", "test"):
        rows = [np.array(line.split(), int) for line in (ML1M / f"{part}.txt").read_text().splitlines()]
        pairs[part] = np.array([(row[0], item) for row in rows for item in row[1:]])
    return pairs


@pytest.mark.data
def test_known_results_on_the_warm_split_of_movielens(movielens) -> None:
    """Popularity .1142 / .1900 and EASE(500) .2752 / .4107, as others have measured them."""
    users, items = np.concatenate([movielens["train"], movielens["test"]]).T
    train = np.arange(len(movielens["train"]))
    test = np.arange(len(train), len(users))
    split = Split("given", users, items, train, [], test, user_count=6040, item_count=3260)
    for baseline, recall, ndcg in ((Popularity(), 0.1142, 0.1900), (EASE(500.0), 0.2752, 0.4107)):
        scores = baseline.fit(split.known("test")).score(np.arange(6040), split.candidates("test"))
        measured = evaluate(rank(scores, 20, exclude=split.known("test")), split.matrix("test"))
        assert measured.mean("recall@20") == pytest.approx(recall, abs=5e-5)
        assert measured.mean("ndcg@20") == pytest.approx(ndcg, abs=5e-5)


@pytest.mark.data
def test_on_cold_items_popularity_is_no_better_than_chance(movielens) -> None:
    """Chance is .0303 / .0537; in the order of the ids, early ones being popular, it is .1129 / .1686."""
    users, items = np.concatenate([movielens["train"], movielens["test"]]).T
    results = []
    for seed in (0, 1, 2):
        split = strategies.cold_item_split(users, items, item_count=3260, seed=seed)
        scores = Popularity().fit(split.known("test")).score(np.arange(6040), split.candidates("test"))
        ranking = rank(scores, 20, candidates=split.candidates("test"), ties="shuffled")
        measured = evaluate(ranking, split.matrix("test"))
        results.append((measured.mean("recall@20"), measured.mean("ndcg@20")))
    assert np.mean(results, axis=0) == pytest.approx([0.0303, 0.0537], abs=0.002)


def test_kernels_agree_with_scikit_learn() -> None:
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.metrics.pairwise import rbf_kernel

    rng = np.random.default_rng(1)
    features = rng.normal(size=(11, 5))
    np.testing.assert_allclose(kernels.cosine(features), cosine_similarity(features), atol=1e-12)
    tags = kernels.tag_matrix([[f"t{t}" for t in rng.integers(0, 13, 6)] for _ in range(11)])
    expected = cosine_similarity(TfidfTransformer().fit_transform(sparse.csr_matrix(tags)))
    np.testing.assert_allclose(kernels.cosine(kernels.tfidf(tags)), expected, atol=1e-12)
    years = rng.integers(1920, 2000, 11).astype(float)
    expected = rbf_kernel(years[:, None], gamma=1 / (2 * 5.0**2))
    np.testing.assert_allclose(kernels.gaussian(years, 5.0), expected, atol=1e-12)


def test_absent_content_is_similar_to_nothing() -> None:
    features = np.array([[1.0, 2.0], [0.0, 0.0]])
    assert not kernels.cosine(features)[1].any()
    tags = kernels.tag_matrix([["a"], []])
    assert not kernels.cosine(kernels.tfidf(tags))[1].any()
    assert not kernels.gaussian([1990, np.nan], 3.0)[1].any()


def test_weighted_sum_refuses_what_is_no_kernel() -> None:
    with pytest.raises(InputError, match="weights from 0"):
        kernels.weighted_sum((-1.0, np.eye(2)))
    with pytest.raises(InputError, match="one shape"):
        kernels.weighted_sum((1.0, np.eye(2)), (1.0, np.eye(3)))


def test_the_kernel_ridge_on_completed_histories_is_the_formula() -> None:
    rng = np.random.default_rng(3)
    seen = sparse.csr_array((rng.random((29, 11)) < 0.4).astype(np.float32))
    features = rng.standard_normal((11, 5))
    kernel, known = np.exp(0.3 * features @ features.T), np.arange(7)
    actual = (
        KernelRidge(2.0, completion_dropout=0.6, completion_ridge=3.0)
        .fit(seen, kernel, known)
        .score([4, 9], range(11))
    )
    chosen = seen.toarray()[:, :7].astype(np.float64)
    gram = chosen.T @ chosen
    filled_in = chosen @ np.linalg.inv(gram + np.diag(1.5 * chosen.sum(0) + 3.0)) @ gram
    expected = filled_in @ np.linalg.inv(kernel[:7, :7] + 2.0 * np.eye(7)) @ kernel[:7]
    np.testing.assert_allclose(actual, expected[[4, 9]], rtol=1e-4, atol=1e-5)
    plain = KernelRidge(2.0).fit(seen, kernel, known).score([4, 9], range(11))
    assert not np.allclose(actual, plain, atol=0.01)
