"""The learned baselines against dense formulas in plain numpy, the library's own call, and planted tastes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from mmattn.errors import InputError, MissingDependency
from mmattn.evaluation.ranking.metrics import evaluate, rank
from mmattn.recommenders import BPR, VBPR, Factors, ImplicitALS, ItemKNN, LightGCN, Popularity
from mmattn.recommenders.lightgcn import _LightGCNModel, _to_torch_sparse, normalized_adjacency
from mmattn.recommenders.pairwise import InteractionPairs, bpr_loss

USERS, ITEMS, TASTES = 101, 61, 4
EVERYBODY = np.arange(USERS)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def planted() -> tuple[sparse.csr_array, sparse.csr_array, np.ndarray]:
    """Users of four tastes, items of four kinds and unequal popularity: train and test [U, I], kind [I]."""
    rng = np.random.default_rng(0)
    taste, kind = rng.integers(0, TASTES, USERS), rng.integers(0, TASTES, ITEMS)
    liking = np.where(taste[:, None] == kind, 0.6, 0.04) * rng.uniform(0.3, 1.0, ITEMS)
    chosen = rng.random((USERS, ITEMS)) < liking
    test = chosen & (rng.random((USERS, ITEMS)) < 0.3)
    train = chosen & ~test
    train[:, chosen.any(0) & ~train.any(0)] |= test[:, chosen.any(0) & ~train.any(0)]
    return sparse.csr_array(train.astype(float)), sparse.csr_array((test & ~train).astype(float)), kind


def recall(baseline: Any, train: sparse.csr_array, test: sparse.csr_array) -> float:
    scores = baseline.score(EVERYBODY, np.arange(ITEMS))
    return evaluate(rank(scores, 5, exclude=train), test, ["recall@5"]).mean("recall@5")


BASELINES: dict[str, Callable[[], Any]] = {
    "item-knn": lambda: ItemKNN(20, 1.0),
    "als": lambda: ImplicitALS(dim=8, regularization=1.0, num_threads=1),
    "bpr": lambda: BPR(dim=8, epochs=60, learning_rate=0.02, batch_size=256),
    "lightgcn": lambda: LightGCN(layers=2, dim=8, epochs=60, learning_rate=0.02, batch_size=256),
    "vbpr": lambda: VBPR(dim=4, visual_dim=4, epochs=60, learning_rate=0.02, batch_size=256),
}


@pytest.mark.parametrize("name", BASELINES)
def test_planted_tastes_are_found(planted, name: str) -> None:
    train, test, kind = planted
    pictures = np.eye(TASTES)[kind]
    popular = recall(Popularity().fit(train), train, test)
    actual = recall(BASELINES[name]().fit(train, pictures), train, test)
    assert actual > popular + 0.15, (actual, popular)


@pytest.mark.parametrize("name", BASELINES)
def test_the_same_seed_gives_the_same_scores(planted, name: str) -> None:
    train, _, kind = planted
    pictures = np.eye(TASTES)[kind]
    first, again = (
        BASELINES[name]().fit(train, pictures).score(EVERYBODY, np.arange(ITEMS)) for _ in range(2)
    )
    assert first.dtype == np.float32
    assert first.shape == (USERS, ITEMS)
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("name", BASELINES)
def test_what_is_not_known_cannot_matter(planted, name: str) -> None:
    """Interactions of cold items, were they to slip in, change nothing once `known` says so."""
    train, _, kind = planted
    cold = np.array([3, 17, 41])
    known = np.setdiff1d(np.arange(ITEMS), cold)
    leaky, clean = train.toarray(), train.toarray()
    leaky[:, cold], clean[:, cold] = 1, 0
    pictures = np.eye(TASTES)[kind]
    scores = [
        BASELINES[name]().fit(sparse.csr_array(matrix), pictures, known).score(EVERYBODY, np.arange(ITEMS))
        for matrix in (clean, leaky)
    ]
    np.testing.assert_array_equal(*scores)
    if name == "vbpr":  # the features reach them
        assert scores[0][:, cold].any(0).all()
    else:
        assert not scores[0][:, cold].any()


def test_item_neighbours_by_hand() -> None:
    """Items 0, 1, 2, 3 are chosen by 3, 3, 1 and 0 of four users; all numbers worked out on paper."""
    seen = sparse.csr_array(np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0]], float))
    s01, s02, s12 = 2 / (3 + 1), 1 / (3**0.5 + 1), 1 / (3**0.5 + 1)
    both = ItemKNN(2, shrinkage=1.0).fit(seen, known=range(4)).score([0, 3], range(4))
    np.testing.assert_allclose(both, [[s01, s01, s02 + s12, 0], [0, s01, s02, 0]], rtol=1e-6)
    nearest = ItemKNN(1, shrinkage=1.0).fit(seen, known=range(4)).score([1], range(4))
    # The single neighbours: 1 of 0, 0 of 1, and of 2 either of two equals.
    np.testing.assert_allclose(nearest, [[s01, s01, s02, 0]], rtol=1e-6)


@pytest.mark.parametrize("block", [7, 1024])
def test_item_neighbours_are_the_dense_formula_in_blocks_of_any_size(
    planted, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmattn.recommenders.knn._BLOCK_SIZE", block)
    train, _, _ = planted
    x = train.toarray()
    common = x.T @ x
    similar = common / (np.sqrt(np.outer(common.diagonal(), common.diagonal())) + 5.0)
    np.fill_diagonal(similar, 0)
    kept = similar * (similar >= np.sort(similar, 0)[-3])  # the three largest of each column
    unique = (np.count_nonzero(kept, 0) == 3) & x.any(0)
    assert unique.sum() > 30
    scores = ItemKNN(3, shrinkage=5.0).fit(train).score(EVERYBODY, np.arange(ITEMS))
    np.testing.assert_allclose(scores[:, unique], (x @ kept)[:, unique], atol=1e-5)


def test_als_solves_its_normal_equations(planted) -> None:
    """Hu et al., equation 5: (X' C_i X + strength) y_i = X' C_i p_i, with c = 1 + confidence where chosen."""
    train, _, _ = planted
    fitted = ImplicitALS(dim=5, regularization=2.0, alpha=7.0, iterations=200, num_threads=1).fit(train)
    x, chosen = fitted.factors.users.astype(float), train.toarray()
    for item in np.flatnonzero(chosen.any(0)):
        confidence = 1 + 7.0 * chosen[:, item]
        left = x.T @ (confidence[:, None] * x) + 2.0 * np.eye(5)
        expected = np.linalg.solve(left, x.T @ (confidence * chosen[:, item]))
        np.testing.assert_allclose(fitted.factors.items[item], expected, atol=2e-3)


def test_als_gives_the_library_s_own_scores(planted) -> None:
    from implicit.als import AlternatingLeastSquares

    train, _, _ = planted
    library = AlternatingLeastSquares(factors=6, regularization=0.5, alpha=4.0, random_state=3, num_threads=1)
    library.fit(sparse.csr_matrix(train, dtype=np.float32), show_progress=False)
    ours = ImplicitALS(dim=6, regularization=0.5, alpha=3.0, seed=3, num_threads=2).fit(
        train, known=range(ITEMS)
    )
    expected = library.user_factors @ library.item_factors.T
    np.testing.assert_allclose(ours.score(EVERYBODY, np.arange(ITEMS)), expected, atol=1e-4)


def test_als_says_what_is_missing(planted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "implicit.cpu.als", None)
    with pytest.raises(MissingDependency, match=r"pip install 'mmattn\[baselines\]'"):
        ImplicitALS().fit(planted[0])


def test_the_loss_is_the_closed_form_and_its_gradient() -> None:
    margin = torch.tensor([0.0, 1.0, -2.0, 90.0, -90.0], dtype=torch.float64, requires_grad=True)
    loss = bpr_loss(margin)
    known = [np.log(2), np.log1p(np.exp(-1)), np.log1p(np.exp(2)), 0.0, 90.0]
    assert loss.item() == pytest.approx(np.mean(known), rel=1e-12)
    loss.backward()
    expected = -1 / (1 + np.exp(margin.detach().numpy())) / 5  # -(1 - sigmoid(x)) of each
    np.testing.assert_allclose(margin.grad.numpy(), expected, atol=1e-12)


def test_one_step_of_bpr_is_rendle_s_update() -> None:
    """One user, two items: gradients as in the paper's section 4.3.1, then one step of plain descent."""
    seen = sparse.csr_array(np.array([[1.0, 0.0]]))
    pairs = InteractionPairs.from_interactions(seen, np.array([0, 1]))
    baseline = BPR(dim=3, regularization=0.1)
    vectors = baseline._build_model(pairs, None, torch.Generator().manual_seed(0))
    p, (q, r) = (part.detach().numpy().astype(float) for part in (vectors.users[0], vectors.items))
    baseline._train_epoch(
        vectors, torch.optim.SGD(vectors.parameters(), lr=0.5), pairs, np.random.default_rng(0)
    )
    slope = 1 / (1 + np.exp(p @ (q - r)))
    np.testing.assert_allclose(vectors.users[0].detach(), p + 0.5 * (slope * (q - r) - 0.1 * p), rtol=1e-5)
    np.testing.assert_allclose(vectors.items[0].detach(), q + 0.5 * (slope * p - 0.1 * q), rtol=1e-5)
    np.testing.assert_allclose(vectors.items[1].detach(), r + 0.5 * (-slope * p - 0.1 * r), rtol=1e-5)
    np.testing.assert_allclose(vectors.bias.detach(), [0.5 * slope, -0.5 * slope], rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 13), st.integers(2, 11), st.integers(0, 2**16))
def test_pairs_are_every_interaction_once_beside_an_item_that_was_not_chosen(
    users: int, items: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    chosen = rng.random((users, items)) < 0.5
    chosen[0, 0], chosen[0, 1] = True, False
    known = np.union1d([0, 1], np.flatnonzero(rng.random(items) < 0.8))
    pairs = InteractionPairs.from_interactions(sparse.csr_array(chosen.astype(float)), known)
    drawn = [np.concatenate(part) for part in zip(*pairs.sample_triplets(rng, batch_size=5), strict=True)]
    assert chosen[drawn[0], drawn[1]].all()
    assert not chosen[drawn[0], drawn[2]].any()
    assert np.isin(drawn[1], known).all()
    assert np.isin(drawn[2], known).all()
    met = set(zip(drawn[0].tolist(), drawn[1].tolist(), strict=True))
    assert len(met) == len(drawn[0])
    assert (0, 0) in met or chosen[0, known].sum() == len(known)


def dense_propagation(chosen: np.ndarray, users: np.ndarray, items: np.ndarray, layers: int) -> np.ndarray:
    """Equation 8 of the paper with dense matrices: the mean over layers of (D^-1/2 A D^-1/2)^k E."""
    count = len(chosen)
    a = np.zeros((count + chosen.shape[1],) * 2)
    a[:count, count:], a[count:, :count] = chosen, chosen.T
    root = np.diag(np.where(a.sum(1) > 0, a.sum(1), np.inf) ** -0.5)
    first = np.concatenate([users, items])
    return np.mean([np.linalg.matrix_power(root @ a @ root, k) @ first for k in range(layers + 1)], 0)


def test_lightgcn_passes_vectors_along_like_the_dense_formula_and_so_its_gradient() -> None:
    rng = np.random.default_rng(1)
    chosen = (rng.random((7, 5)) < 0.5).astype(float)
    chosen[3], chosen[:, 2] = 0, 0  # a user and an item without an edge
    pairs = InteractionPairs.from_interactions(sparse.csr_array(chosen), np.arange(5))
    users = torch.nn.Parameter(torch.from_numpy(rng.normal(size=(7, 3))))
    items = torch.nn.Parameter(torch.from_numpy(rng.normal(size=(5, 3))))
    graph = _to_torch_sparse(normalized_adjacency(pairs).astype(np.float64))
    vectors = _LightGCNModel(users, items, graph, layers=3)
    found_U, found_I, bias = vectors.factors()
    expected = dense_propagation(chosen, users.detach().numpy(), items.detach().numpy(), 3)
    # The edges' weights are kept in single precision.
    np.testing.assert_allclose(torch.cat([found_U, found_I]).detach(), expected, atol=1e-6)
    assert not bias.any()

    weight = rng.normal(size=expected.shape)
    (torch.cat([found_U, found_I]) * torch.from_numpy(weight)).sum().backward()
    # The propagation is linear and symmetric: its gradient is the propagation of the gradient.
    through = dense_propagation(chosen, weight[:7], weight[7:], 3)
    np.testing.assert_allclose(torch.cat([users.grad, items.grad]), through, atol=1e-6)


def test_lightgcn_without_layers_to_pass_along_is_refused_and_one_layer_is_one_hop() -> None:
    with pytest.raises(InputError, match="LightGCN: layers: got 0, expected at least 1"):
        LightGCN(layers=0)
    vectors = _LightGCNModel(
        torch.nn.Parameter(torch.eye(2)),
        torch.nn.Parameter(torch.zeros(2, 2)),
        _to_torch_sparse(
            normalized_adjacency(
                InteractionPairs.from_interactions(
                    sparse.csr_array(np.array([[1.0, 1], [0, 1]])), np.arange(2)
                )
            )
        ),
        layers=1,
    )
    items_IK = vectors.factors()[1].detach().numpy()
    np.testing.assert_allclose(items_IK, [[0.5 * 0.5**0.5, 0], [0.25, 0.5 * 0.5**0.5]], rtol=1e-6)


def in_numpy(baseline: Any, train: sparse.csr_array, features: np.ndarray, epochs: int) -> np.ndarray:
    """Training written out anew with dense matrices and Adam's formulas, from the same first vectors and
    the same drawn pairs: the scores [U, I]."""
    pairs = InteractionPairs.from_interactions(train, np.flatnonzero(train.toarray().any(0)))
    begun = baseline._build_model(pairs, features, torch.Generator().manual_seed(baseline.seed))
    value = {name: entry.detach().numpy().astype(float) for name, entry in begun.named_parameters()}
    moved = {name: [np.zeros_like(entry), np.zeros_like(entry)] for name, entry in value.items()}
    passed = np.eye(USERS + ITEMS)
    if isinstance(baseline, LightGCN):
        passed = dense_propagation(train.toarray(), passed[:USERS], passed[USERS:], baseline.layers)

    def vectors() -> tuple[np.ndarray, ...]:
        users, items = np.split(passed @ np.concatenate([value["users"], value["items"]]), [USERS])
        bias = value.get("bias", np.zeros(ITEMS))
        if "visual_users" not in value:
            return users, items, bias
        seen = features @ value["projection"]
        return (
            np.hstack([users, value["visual_users"]]),
            np.hstack([items, seen]),
            bias + features @ value["visual_bias"],
        )

    def gradients(users: np.ndarray, better: np.ndarray, worse: np.ndarray) -> dict[str, np.ndarray]:
        user_UK, item_IK, bias_I = vectors()
        scores_UI = user_UK @ item_IK.T + bias_I
        slope_B = -1 / (1 + np.exp(scores_UI[users, better] - scores_UI[users, worse])) / len(users)
        slope_UI = np.zeros((USERS, ITEMS))
        np.add.at(slope_UI, (users, better), slope_B)
        np.add.at(slope_UI, (users, worse), -slope_B)
        by_user_UK, by_item_IK = slope_UI @ item_IK, slope_UI.T @ user_UK
        group = value["users"].shape[1]
        first = passed.T @ np.concatenate([by_user_UK[:, :group], by_item_IK[:, :group]])
        results = {"users": first[:USERS], "items": first[USERS:], "bias": slope_UI.sum(0)}
        results["visual_users"] = by_user_UK[:, group:]
        if "visual_users" in value:
            results["projection"] = features.T @ by_item_IK[:, group:]
            results["visual_bias"] = features.T @ slope_UI.sum(0)
        weight = baseline.regularization / len(users)
        of_user = weight * np.bincount(users, minlength=USERS)
        of_item = weight * np.bincount(np.concatenate([better, worse]), minlength=ITEMS)
        for name, often in {
            "users": of_user,
            "visual_users": of_user,
            "items": of_item,
            "bias": of_item,
        }.items():
            if name in value:
                results[name] = results[name] + (often * value[name].T).T
        return results

    rng, step = np.random.default_rng(baseline.seed), 0
    for _ in range(epochs):
        for batch in pairs.sample_triplets(rng, baseline.batch_size):
            results, step = gradients(*batch), step + 1
            for name, (mean, square) in moved.items():
                mean += 0.1 * (results[name] - mean)
                square += 0.001 * (results[name] ** 2 - square)
                root = np.sqrt(square / (1 - 0.999**step)) + 1e-8
                value[name] = value[name] - baseline.learning_rate * mean / (1 - 0.9**step) / root
    users_UK, items_IK, bias_I = vectors()
    return users_UK @ items_IK.T + bias_I


@pytest.mark.parametrize("kind", [BPR, LightGCN, VBPR])
def test_training_is_the_same_written_out_in_dense_numpy(planted, kind: type) -> None:
    train, _, _ = planted
    pictures = np.random.default_rng(3).normal(size=(ITEMS, 7))
    pictures[::3] = 0  # absent
    baseline = kind(dim=3, epochs=3, batch_size=150, learning_rate=0.02, regularization=0.05, seed=4)
    scores = baseline.fit(train, pictures).score(EVERYBODY, np.arange(ITEMS))
    before, expected = (in_numpy(baseline, train, pictures, epochs) for epochs in (0, 3))
    largest = np.abs(expected).max()
    assert np.abs(expected - before).max() > 0.2 * largest
    np.testing.assert_allclose(scores, expected, atol=1e-3 * largest)


def test_vbpr_scores_as_the_paper_s_formula(planted) -> None:
    train, _, _ = planted
    pictures = np.random.default_rng(2).normal(size=(ITEMS, 7))
    baseline = VBPR(dim=3, visual_dim=5, epochs=2)
    pairs = InteractionPairs.from_interactions(train, np.arange(ITEMS))
    vectors = baseline._build_model(pairs, pictures, torch.Generator().manual_seed(0))
    torch.nn.init.normal_(vectors.bias)
    torch.nn.init.normal_(vectors.visual_bias)
    part = {name: value.detach().numpy().astype(float) for name, value in vectors.named_parameters()}
    scores = (
        part["bias"]
        + part["users"] @ part["items"].T
        + part["visual_users"] @ (pictures @ part["projection"]).T
        + pictures @ part["visual_bias"]
    )
    frozen = Factors(*(factor.detach().numpy() for factor in vectors.factors()))
    np.testing.assert_allclose(frozen.score(EVERYBODY, np.arange(ITEMS)), scores, atol=1e-5)
    users, better, worse = torch.tensor([0, 5, 5]), torch.tensor([1, 2, 9]), torch.tensor([2, 1, 60])
    margins, _ = vectors(users, better, worse)
    np.testing.assert_allclose(margins.detach(), scores[users, better] - scores[users, worse], atol=1e-5)


def test_an_absent_picture_adds_nothing_and_is_never_another_item_s(planted) -> None:
    """Half the items have no picture: they are ranked by their own vectors, and no one gets a stand-in."""
    train, test, kind = planted
    pictures = np.eye(TASTES)[kind]
    absent = np.arange(0, ITEMS, 2)
    pictures[absent] = 0
    cold = np.array([3, 10])  # one with a picture, one with nothing at all
    known = np.setdiff1d(np.arange(ITEMS), cold)
    baseline = BASELINES["vbpr"]().fit(train, pictures, known)
    width = baseline.dim
    assert baseline.factors.items[absent, :width].any()
    assert not baseline.factors.items[absent, width:].any()
    assert baseline.factors.items[3, width:].any()
    assert not baseline.score(EVERYBODY, [10]).any()
    assert recall(baseline, train, test) > recall(Popularity().fit(train), train, test) + 0.15


def test_training_stops_early_and_keeps_what_validation_liked_best(planted) -> None:
    train, _, _ = planted
    figures = iter([0.1, 0.5, 0.4, 0.5, 0.3, 0.2])
    seen: list[np.ndarray] = []

    def judge(score: Callable[..., np.ndarray]) -> float:
        seen.append(score([0, 1], range(ITEMS)))
        return next(figures)

    baseline = BPR(dim=4, epochs=40, validate_every=3, patience=2, validate_fn=judge).fit(train)
    assert len(seen) == 4  # after epochs 3, 6, 9 and 12: equal is not better
    assert baseline.best_epoch == 6
    np.testing.assert_array_equal(baseline.score([0, 1], range(ITEMS)), seen[1])
    # What it found is repeated without a judge.
    again = BPR(dim=4, epochs=baseline.best_epoch).fit(train)
    np.testing.assert_array_equal(again.score([0, 1], range(ITEMS)), seen[1])


def test_a_user_without_a_choice_gets_what_holds_for_everybody(planted) -> None:
    train, _, _ = planted
    silent = train.toarray()
    silent[5] = 0
    for baseline in (BPR(dim=4, epochs=3), LightGCN(dim=4, epochs=3)):
        fitted = baseline.fit(sparse.csr_array(silent))
        np.testing.assert_array_equal(fitted.score([5], range(ITEMS))[0], fitted.factors.bias)


def test_refusals(planted) -> None:
    train, _, _ = planted
    for wrong in (
        {"dim": 0},
        {"epochs": 0},
        {"learning_rate": 0.0},
        {"regularization": -1.0},
        {"batch_size": 0},
    ):
        with pytest.raises(InputError, match=f"BPR: {next(iter(wrong))}: got"):
            BPR(**wrong)
    with pytest.raises(InputError, match=r"VBPR.fit: got no features, expected \[61, F\]"):
        VBPR().fit(train)
    with pytest.raises(InputError, match="every user chose every known item"):
        BPR().fit(sparse.csr_array(np.ones((3, 2))))
    with pytest.raises(InputError, match="got no interaction with a known item"):
        BPR().fit(sparse.csr_array((3, 4)), known=[1])
    with pytest.raises(InputError, match="ItemKNN: shrinkage: got -1"):
        ItemKNN(3, -1)
    with pytest.raises(InputError, match="ImplicitALS: confidence: got -1"):
        ImplicitALS(alpha=-1)
