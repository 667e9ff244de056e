"""Runs the filters over a batch and counts what each did.

Invariants:
* A row without a reward (NaN) leaves before the first filter, whatever filters there are: it could
  not be trained on.
* Filters run in order; each sees what those before it kept.
* A group-relative advantage has no baseline for a group that the drops leave with one member: that
  member gets advantage 0 instead of its raw reward. A group of one from the start is left alone.
* Metrics count trajectories as requested: one that an agent loop split into rows counts once.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from verl_pipeline.filters.protocol import BatchView, Decision, Filter


@dataclass(frozen=True)
class FilteredBatch:
    """What the filters decided about a batch of n trajectories.

    Attributes:
        kept: int64, positions of the rows that stay, in order.
        zeroed: bool, shape (n,); rows whose advantage becomes 0, because a filter asked for it or
            because the group has no baseline. False for dropped rows.
        metrics: ``filters/<name>/...``: trajectories with a row that was dropped or zeroed, their
            share of the tokens, their mean reward and length; ``filters/no_reward/dropped``;
            ``filters/lone_survivors``; and ``filters/before/...`` and ``filters/after/...``:
            number, mean reward, mean length and truncated share of all trajectories with a reward
            and of those that are trained on (neither dropped nor zeroed).
        reasons: by position of a row that was dropped or zeroed, the filter that did it last,
            ``no_reward`` or ``lone_survivor``.
    """

    kept: np.ndarray
    zeroed: np.ndarray
    metrics: dict[str, float]
    reasons: dict[int, str]

    def name_sessions(self, batch: BatchView) -> dict[tuple[str, int], str]:
        """``reasons`` by prompt and session."""
        return {
            (batch.uids[row], int(batch.sessions[row])): reason
            for row, reason in self.reasons.items()
        }

    @property
    def trained_rows(self) -> np.ndarray:
        """int64, positions of the rows that stay with an advantage, in order."""
        return self.kept[~self.zeroed[self.kept]]


def apply_filters(
    filters: Sequence[Filter],
    batch: BatchView,
    group_sizes: Mapping[str, int] | None = None,
) -> FilteredBatch:
    """Apply ``filters`` to ``batch``.

    Args:
        group_sizes: members requested, by prompt, if the advantage is relative to the group: a lone
            survivor then gets advantage 0.

    Raises:
        ValueError: a filter returned another number of decisions than there are trajectories.
    """
    zeroed = np.zeros(len(batch), dtype=bool)
    unrewarded = np.isnan(batch.rewards)
    kept = np.flatnonzero(~unrewarded)
    metrics = {"filters/no_reward/dropped": _count_sessions(batch, unrewarded)}
    reasons = dict.fromkeys(np.flatnonzero(unrewarded).tolist(), "no_reward")
    metrics |= _summarize_side("before", batch.select_rows(kept))
    for entry in filters:
        view = batch.select_rows(kept)
        decisions = entry.decide(view)
        if len(decisions) != len(view):
            raise ValueError(
                f"filter {entry.name}: {len(decisions)} decisions for {len(view)} trajectories"
            )
        dropped = np.array([decision is Decision.DROP for decision in decisions], dtype=bool)
        zero = np.array([decision is Decision.ZERO_ADVANTAGE for decision in decisions], dtype=bool)
        metrics |= _compute_filter_metrics(entry.name, view, dropped, zero)
        zeroed[kept[zero]] = True
        reasons |= dict.fromkeys(kept[dropped | zero].tolist(), entry.name)
        kept = kept[~dropped]
    # A later filter may have dropped what an earlier one zeroed.
    zeroed[np.setdiff1d(np.arange(len(batch)), kept)] = False
    lone = np.zeros(len(kept), dtype=bool)
    if group_sizes is not None:
        lone = find_lone_survivors(batch.select_rows(kept), group_sizes)
    zeroed[kept[lone]] = True
    reasons |= dict.fromkeys(kept[lone].tolist(), "lone_survivor")
    metrics["filters/lone_survivors"] = _count_sessions(batch.select_rows(kept), lone)
    filtered = FilteredBatch(kept, zeroed, metrics, reasons)
    metrics |= _summarize_side("after", batch.select_rows(filtered.trained_rows))
    return filtered


def find_lone_survivors(left: BatchView, group_sizes: Mapping[str, int]) -> np.ndarray:
    """Rows of a member that is the only one left of its group.

    Args:
        left: the m rows that stay.
        group_sizes: members requested, by prompt.

    Returns:
        bool, shape (m,).
    """
    members = set(zip(left.uids, left.sessions.tolist(), strict=True))
    counts = Counter(uid for uid, _session in members)
    return np.array([counts[uid] == 1 and group_sizes[uid] > 1 for uid in left.uids], dtype=bool)


def _compute_filter_metrics(
    name: str, view: BatchView, dropped: np.ndarray, zeroed: np.ndarray
) -> dict[str, float]:
    prefix = f"filters/{name}"
    tokens = view.response_lengths.sum()
    affected = dropped | zeroed
    affected_tokens = view.response_lengths[affected].sum()
    return {
        f"{prefix}/dropped": _count_sessions(view, dropped),
        f"{prefix}/zero_advantage": _count_sessions(view, zeroed),
        f"{prefix}/share_of_tokens": float(affected_tokens / tokens) if tokens else 0.0,
        **_compute_means(prefix, view.select_rows(np.flatnonzero(affected))),
    }


def _count_sessions(view: BatchView, rows: np.ndarray) -> float:
    """Trajectories with at least one of ``rows`` (bool, shape (n,))."""
    return float(len(view.select_rows(np.flatnonzero(rows)).merge_sessions()))


def _summarize_side(side: str, rows: BatchView) -> dict[str, float]:
    prefix, view = f"filters/{side}", rows.merge_sessions()
    summary = {f"{prefix}/trajectories": float(len(view)), **_compute_means(prefix, view)}
    if len(view):
        summary[f"{prefix}/truncated_share"] = float(view.truncated.mean())
    return summary


def _compute_means(prefix: str, view: BatchView) -> dict[str, float]:
    """Mean reward and length; nothing for an empty view, since its means are undefined."""
    if not len(view):
        return {}
    view = view.merge_sessions()
    return {
        f"{prefix}/reward_mean": float(view.rewards.mean()),
        f"{prefix}/response_length_mean": float(view.response_lengths.mean()),
    }
