"""Simulate collectors who pick digits by taste. No interaction comes from a real person."""

from __future__ import annotations

import numpy as np
import pandas as pd

__all__ = ["simulate_picks"]

_YEAR_STARTS, _YEAR_ENDS = 1_704_067_200, 1_735_689_600  # 2024, UTC

# Weight of each preference, in log odds of a pick. Only the digit is visible in every modality.
_DIGIT, _PARITY, _LANGUAGE, _VOICE, _INK = 2.0, 0.7, 1.2, 1.0, 0.6


def simulate_picks(
    items: pd.DataFrame, num_users: int, generator: np.random.Generator, random_fraction: float = 0.15
) -> pd.DataFrame:
    """Simulate the picks of collectors.

    A collector prefers two or three digits, even or odd ones, two languages, two voices, and bold or fine
    handwriting. Picks are drawn without replacement, with probability proportional to the exponential of the
    collector's total preference for the item, except for a fraction of random picks.

    Args:
        items: one row per item with the columns digit, language (None without text), voice (None without
            audio) and ink (mean of the image, NaN without one): preferences apply to present modalities only.
        num_users: number of collectors.
        generator: the random generator.
        random_fraction: fraction of picks that ignore preferences.

    Returns:
        Columns user, item (row in `items`, from 0) and time (integer seconds since 1970), sorted by time.
    """
    digit = items["digit"].to_numpy()
    ink = ((items["ink"] - items["ink"].mean()) / items["ink"].std()).fillna(0.0).to_numpy()
    picks = []
    for user in range(num_users):
        preference = _DIGIT * np.isin(digit, generator.choice(10, generator.integers(2, 4), replace=False))
        preference += _PARITY * (digit % 2 == generator.integers(2))
        preference += _LANGUAGE * _liked_values(items["language"], generator)
        preference += _VOICE * _liked_values(items["voice"], generator)
        preference += _INK * ink * generator.choice([-1, 1])
        count = min(10 + generator.poisson(30), len(items) // 2)
        # The Gumbel top-k trick: the largest noisy log odds are a draw without replacement.
        chosen = np.argsort(-(preference + generator.gumbel(size=len(items))))[:count]
        is_random = generator.random(count) < random_fraction
        others = np.setdiff1d(np.arange(len(items)), chosen)
        chosen[is_random] = generator.choice(others, is_random.sum(), replace=False)
        times = np.sort(generator.integers(_YEAR_STARTS, _YEAR_ENDS, count))
        picks.append(pd.DataFrame({"user": user, "item": generator.permutation(chosen), "time": times}))
    return pd.concat(picks).sort_values(["time", "user"], ignore_index=True)


def _liked_values(column: pd.Series, generator: np.random.Generator) -> np.ndarray:
    """Whether each item [I] has one of the two values that this collector likes."""
    known = sorted(column.dropna().unique())
    liked = generator.choice(len(known), min(2, len(known)), replace=False)
    return column.isin([known[index] for index in liked]).to_numpy()
