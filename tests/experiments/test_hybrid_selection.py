"""The hybrid's settings: the best on validation, part by part, and nothing measured without a choice."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from mmattn.experiments.config import HybridConfig
from mmattn.experiments.recommendation.hybrid import fit_hybrid, tune_hybrid
from mmattn.recommenders import Recommender
from mmattn.recommenders.hybrid import BalancedEASE, Hybrid
from mmattn.recommenders.user_kernel import UserKernel

KNOWN = np.arange(7)
CHOSEN = sparse.csr_array((np.random.default_rng(0).random((13, 7)) < 0.4).astype(float))


class Judge:
    """Likes what it is told to, and remembers what it was shown."""

    def __init__(self, **liked: float):
        self.liked = liked
        self.shown: list[str] = []

    def __call__(self, entry: Recommender) -> float:
        self.shown.append(type(entry).__name__)
        return -sum(
            abs(getattr(entry, name) - value) for name, value in self.liked.items() if hasattr(entry, name)
        )


@pytest.mark.parametrize(("share", "evidence"), [(0.2, 5.0), (0.9, 0.0)])
def test_the_best_of_each_setting_is_taken(share: float, evidence: float) -> None:
    config = HybridConfig(
        regularization=(1.0, 30.0),
        user_regularization=(1.0, 4.0),
        profile_scale=(0.0,),
        user_weight=(0.2, 0.9),
        shrinkage=(0.0, 5.0),
        popularity_penalty=(0.0,),
    )
    judge = Judge(user_weight=share, shrinkage=evidence)
    chosen = tune_hybrid(config, CHOSEN, None, KNOWN, judge)
    assert (chosen["user_weight"], chosen["shrinkage"], chosen["content_scale"]) == (share, evidence, 1.0)
    assert judge.shown == ["BalancedEASE"] * 2 + ["UserKernel"] * 2 + ["Hybrid"] * 4
    hybrid = fit_hybrid(chosen, CHOSEN, None, KNOWN)
    assert (hybrid.user_weight, hybrid.shrinkage) == (share, evidence)


def test_the_parts_are_chosen_by_themselves() -> None:
    config = HybridConfig(
        regularization=(1.0, 30.0),
        user_regularization=(1.0, 4.0, 9.0),
        kernel_scale=(1.0, 2.0),
        user_weight=(1.0,),
    )
    strengths = {BalancedEASE: 30.0, UserKernel: 4.0}
    chosen = tune_hybrid(
        config, CHOSEN, None, KNOWN, lambda fitted: 0.0 if isinstance(fitted, Hybrid)
        else -abs(fitted.regularization - strengths.get(type(fitted), 0.0)),
    )  # fmt: skip
    assert (chosen["regularization"], chosen["user_regularization"], chosen["kernel_scale"]) == (
        30.0,
        4.0,
        1.0,
    )


def test_what_the_table_of_users_says_is_heard() -> None:
    profiles = np.eye(3, dtype=np.float32)[np.arange(13) % 3]
    heard: list[bool] = []

    def judge(one: Recommender) -> float:
        part = one.user_model if isinstance(one, Hybrid) else one
        heard.append(isinstance(part, UserKernel) and part._profile_UF is not None)
        return 0.0

    config = HybridConfig(
        regularization=(2.0,), profile_scale=(0.0, 0.5), user_weight=(0.5,), shrinkage=(0.0,)
    )
    chosen = tune_hybrid(config, CHOSEN, None, KNOWN, judge, profiles)
    assert heard.count(True) == 3  # of three strengths; then profile 0, the first of equals, is mixed
    assert chosen["profile_scale"] == 0.0
    with_them = fit_hybrid(chosen | {"profile_scale": 2.0}, CHOSEN, None, KNOWN, profiles).score([0], KNOWN)
    without = fit_hybrid(chosen | {"profile_scale": 2.0}, CHOSEN, None, KNOWN).score([0], KNOWN)
    assert abs(with_them - without).max() > 1e-3


def test_where_there_is_no_choice_nothing_is_measured() -> None:
    config = HybridConfig(
        regularization=(2.0,),
        user_regularization=(3.0,),
        profile_scale=(0.3,),
        user_weight=(0.5,),
        shrinkage=(1.0,),
        popularity_penalty=(0.1,),
    )
    judge = Judge()
    chosen = tune_hybrid(config, CHOSEN, None, KNOWN, judge)
    assert (chosen["regularization"], chosen["user_regularization"], chosen["user_weight"]) == (2.0, 3.0, 0.5)
    assert judge.shown == []


def test_without_a_share_there_is_no_users_part() -> None:
    judge = Judge()
    chosen = tune_hybrid(HybridConfig(user_weight=(0.0,)), CHOSEN, None, KNOWN, judge)
    assert "UserKernel" not in judge.shown
    assert fit_hybrid(chosen, CHOSEN, None, KNOWN).user_model is None
