"""What a chart of a long run draws, so that its size is bounded.

Invariants:
* Bars that are joined to one cover all of them and say how many they are.
* A curve that is thinned keeps the smallest and the largest value of each stretch.
"""

from dataclasses import dataclass

import numpy as np

# Of bars that all stand at one moment.
MIN_GRAIN_S = 1e-6


@dataclass(frozen=True)
class Bars:
    """Bars of one colour, or of several kinds in one lane.

    Attributes:
        group: what must not be joined: kind and lane; int (n,).
        left, right: seconds; float64 (n,).
        step: step of the first one, NaN if unknown; float64 (n,).
        count: spans that the bar stands for; int (n,).
        busy: seconds of them; float64 (n,).
    """

    group: np.ndarray
    left: np.ndarray
    right: np.ndarray
    step: np.ndarray
    count: np.ndarray
    busy: np.ndarray


def make_bars(group: np.ndarray, left: np.ndarray, right: np.ndarray, step: np.ndarray) -> Bars:
    """Return a bar a span, sorted by group and start."""
    order = np.lexsort((left, group))
    return Bars(
        group[order],
        left[order],
        right[order],
        step[order],
        np.ones(len(order), int),
        (right - left)[order],
    )


def thin_bars(bars: Bars, limit: int) -> tuple[Bars, float]:
    """Join short bars of a group that are next to one another until ``limit`` are left.

    Returns:
        The bars, and the seconds within which short bars were joined; 0 if none were.
    """
    if len(bars.left) <= limit:
        return bars, 0.0
    duration = float(bars.right.max() - bars.left.min())
    grain = max(duration / max(limit, 1) / 8, MIN_GRAIN_S)
    while True:
        joined = _join_bars(bars, grain)
        # At the grain of the whole run, a group has one short bar and few long ones.
        if len(joined.left) <= limit or grain > duration:
            return joined, grain
        grain *= 2


def _join_bars(bars: Bars, grain: float) -> Bars:
    """Join bars shorter than ``grain`` that begin in the same stretch of ``grain`` seconds."""
    stretch = np.floor(bars.left / grain)
    is_short = bars.right - bars.left < grain
    begins = np.ones(len(stretch), bool)
    begins[1:] = ~(
        is_short[1:]
        & is_short[:-1]
        & (stretch[1:] == stretch[:-1])
        & (bars.group[1:] == bars.group[:-1])
    )
    first = np.flatnonzero(begins)
    return Bars(
        bars.group[first],
        bars.left[first],
        np.maximum.reduceat(bars.right, first),
        bars.step[first],
        np.add.reduceat(bars.count, first),
        np.add.reduceat(bars.busy, first),
    )


def thin_curve(x: np.ndarray, y: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Return at most about ``limit`` points of a curve: of each stretch, the extremes of y."""
    if len(x) <= limit:
        return x, y
    edges = np.linspace(0, len(x), limit // 2 + 1).astype(int)[:-1]
    safe = np.where(np.isnan(y), -np.inf, y)
    kept = set(edges.tolist()) | {len(x) - 1}
    for start, end in zip(edges, [*edges[1:], len(x)], strict=True):
        kept.add(int(start + safe[start:end].argmax()))
        kept.add(int(start + np.where(np.isnan(y[start:end]), np.inf, y[start:end]).argmin()))
    places = np.array(sorted(kept))
    return x[places], y[places]


def pick_evenly(places: np.ndarray, count: int) -> np.ndarray:
    """Return ``count`` of the places, from the first to the last, at even distances."""
    if len(places) <= count:
        return places
    return places[np.linspace(0, len(places) - 1, count).round().astype(int)]
