"""Runs the filters over a batch and counts what each did.

Invariants:
* Filters run in order; each sees what those before it kept.
* A group that the drops leave with one member has no baseline: under a group-relative advantage its
  member gets advantage 0 instead of its raw reward. A group that had one member from the start is
  left alone.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from verl_pipeline.filters.protocol import BatchView, Decision, Filter


@dataclass(frozen=True)
class Filtered:
    """What the filters decided about a batch of n trajectories.

    Attributes:
        kept: int64, positions of the rows that stay, in order.
        zeroed: bool, shape (n,); rows whose advantage is to be 0, by a filter or for want of a
            baseline (those dropped are False).
        metrics: ``filters/<name>/...``: rows dropped and zeroed, their share of the tokens, their
            mean reward and length; ``filters/lone_survivors``; and for the whole list
            ``filters/before/...`` and ``filters/after/...``: number, mean reward, mean length and
            truncated share of all rows and of those that are trained on (neither dropped nor
            zeroed).
    """

    kept: np.ndarray
    zeroed: np.ndarray
    metrics: dict[str, float]

    @property
    def trained_on(self) -> np.ndarray:
        """int64, positions of the rows that stay with an advantage, in order."""
        return self.kept[~self.zeroed[self.kept]]


def _none(kept: np.ndarray) -> np.ndarray:
    return np.zeros(len(kept), dtype=bool)


def apply_filters(
    filters: Sequence[Filter], batch: BatchView, alone: Callable[[np.ndarray], np.ndarray] = _none
) -> Filtered:
    """Apply ``filters`` to ``batch``.

    Args:
        alone: of the rows that stay (int64 positions), which have no baseline left (bool):
            :func:`lone_survivors` under a group-relative advantage, by default none.

    Raises:
        ValueError: a filter returned another number of decisions than there are trajectories.
    """
    kept = np.arange(len(batch))
    zeroed = np.zeros(len(batch), dtype=bool)
    metrics = _summary("before", batch)
    for entry in filters:
        view = batch.select(kept)
        decisions = entry.decide(view)
        if len(decisions) != len(view):
            raise ValueError(
                f"filter {entry.name}: {len(decisions)} decisions for {len(view)} trajectories"
            )
        dropped = np.array([decision is Decision.DROP for decision in decisions], dtype=bool)
        zero = np.array([decision is Decision.ZERO_ADVANTAGE for decision in decisions], dtype=bool)
        metrics |= _metrics(entry.name, view, dropped, zero)
        zeroed[kept[zero]] = True
        kept = kept[~dropped]
    zeroed[np.setdiff1d(np.arange(len(batch)), kept)] = False
    without_baseline = alone(kept)
    zeroed[kept[without_baseline]] = True
    metrics["filters/lone_survivors"] = float(without_baseline.sum())
    filtered = Filtered(kept, zeroed, metrics)
    metrics |= _summary("after", batch.select(filtered.trained_on))
    return filtered


def lone_survivors(sessions: Sequence[tuple[str, int]], group_sizes: dict[str, int]) -> np.ndarray:
    """Rows of the only session that is left of a group of several.

    Args:
        sessions: prompt and session of each remaining row (a session may have several rows).
        group_sizes: sessions asked for, by prompt.

    Returns:
        bool, shape (len(sessions),).
    """
    left = Counter(uid for uid, _session in set(sessions))
    return np.array(
        [left[uid] == 1 and group_sizes[uid] > 1 for uid, _session in sessions], dtype=bool
    )


def _metrics(
    name: str, view: BatchView, dropped: np.ndarray, zeroed: np.ndarray
) -> dict[str, float]:
    prefix = f"filters/{name}"
    tokens = view.response_lengths.sum()
    affected = dropped | zeroed
    return {
        f"{prefix}/dropped": float(dropped.sum()),
        f"{prefix}/zero_advantage": float(zeroed.sum()),
        f"{prefix}/share_of_tokens": float(view.response_lengths[affected].sum() / tokens)
        if tokens
        else 0.0,
        **_means(prefix, view.select(np.flatnonzero(affected))),
    }


def _summary(side: str, view: BatchView) -> dict[str, float]:
    prefix = f"filters/{side}"
    summary = {f"{prefix}/trajectories": float(len(view)), **_means(prefix, view)}
    if len(view):
        summary[f"{prefix}/truncated_share"] = float(view.truncated.mean())
    return summary


def _means(prefix: str, view: BatchView) -> dict[str, float]:
    """None of no rows: a mean of nothing is no number."""
    if not len(view):
        return {}
    return {
        f"{prefix}/reward_mean": float(view.rewards.mean()),
        f"{prefix}/response_length_mean": float(view.response_lengths.mean()),
    }
