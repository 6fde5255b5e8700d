"""Simulated collectors, who pick digits by taste. Nothing here was ever done by a real person."""

from __future__ import annotations

import numpy as np
import pandas as pd

__all__ = ["simulate_picks"]

_YEAR_STARTS, _YEAR_ENDS = 1_704_067_200, 1_735_689_600  # 2024, UTC

# How much each taste counts, in log odds of a pick. Only the digit shows in every modality.
_DIGIT, _PARITY, _LANGUAGE, _VOICE, _INK = 2.0, 0.7, 1.2, 1.0, 0.6


def simulate_picks(
    items: pd.DataFrame, num_users: int, generator: np.random.Generator, random_fraction: float = 0.15
) -> pd.DataFrame:
    """Who picked what, and when.

    A collector has two or three favourite digits, leans to even or odd ones, likes two languages, two
    voices, and bold or fine handwriting. Picks are drawn without replacement, in proportion to the
    exponential of all that the collector likes in an item, but for a share of blind picks.

    Args:
        items: one row an item with the columns digit, language (None where the item has no text), voice
            (None without sound) and ink (mean of the picture, NaN without one): nobody can like what
            an item does not show.
        num_users: how many collectors.
        generator: where it all comes from.
        random_fraction: share of the picks that do not ask for taste.

    Returns:
        Columns user, item (the row in `items`, from 0) and time (whole seconds since 1970), ordered by time.
    """
    digit = items["digit"].to_numpy()
    ink = ((items["ink"] - items["ink"].mean()) / items["ink"].std()).fillna(0.0).to_numpy()
    picks = []
    for user in range(num_users):
        liking = _DIGIT * np.isin(digit, generator.choice(10, generator.integers(2, 4), replace=False))
        liking += _PARITY * (digit % 2 == generator.integers(2))
        liking += _LANGUAGE * _liked_values(items["language"], generator)
        liking += _VOICE * _liked_values(items["voice"], generator)
        liking += _INK * ink * generator.choice([-1, 1])
        count = min(10 + generator.poisson(30), len(items) // 2)
        # Gumbel noise on log odds: the largest are a draw without replacement.
        chosen = np.argsort(-(liking + generator.gumbel(size=len(items))))[:count]
        unseeing = generator.random(count) < random_fraction
        others = np.setdiff1d(np.arange(len(items)), chosen)
        chosen[unseeing] = generator.choice(others, unseeing.sum(), replace=False)
        times = np.sort(generator.integers(_YEAR_STARTS, _YEAR_ENDS, count))
        picks.append(pd.DataFrame({"user": user, "item": generator.permutation(chosen), "time": times}))
    return pd.concat(picks).sort_values(["time", "user"], ignore_index=True)


def _liked_values(column: pd.Series, generator: np.random.Generator) -> np.ndarray:
    """[I] whether each item shows one of the two values that this collector likes."""
    known = sorted(column.dropna().unique())
    liked = generator.choice(len(known), min(2, len(known)), replace=False)
    return column.isin([known[place] for place in liked]).to_numpy()
