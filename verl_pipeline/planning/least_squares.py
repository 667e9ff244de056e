"""Least squares without negative factors, for a few columns."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

# Columns of a fit, each scaled to length 1, tell their factors apart below this condition number.
WORST_CONDITION = 80.0


def fit_shares(columns: Sequence[np.ndarray], seconds: np.ndarray) -> np.ndarray:
    """Return the factors, none negative, with which the columns add up to the seconds best.

    A column that others explain (:data:`WORST_CONDITION`) gets 0, the last ones first.

    Args:
        columns: float64 [measurements] each, few.
        seconds: float64 [measurements].

    Returns:
        float64 [columns].
    """
    scales = [float(np.linalg.norm(column)) or 1.0 for column in columns]
    scaled = np.stack([c / scale for c, scale in zip(columns, scales, strict=True)], axis=1)
    kept: list[int] = []
    for place in range(len(columns)):
        if columns[place].any() and np.linalg.cond(scaled[:, [*kept, place]]) < WORST_CONDITION:
            kept.append(place)
    best, least = np.zeros(len(columns)), np.inf
    for size in range(1, len(kept) + 1):
        for chosen in map(list, combinations(kept, size)):
            factors = np.linalg.lstsq(scaled[:, chosen], seconds, rcond=None)[0]
            error = float(((scaled[:, chosen] @ factors - seconds) ** 2).sum())
            if (factors >= 0).all() and error < least * (1 - 1e-9):
                least = error
                best = np.zeros(len(columns))
                best[chosen] = factors
    return best / scales
