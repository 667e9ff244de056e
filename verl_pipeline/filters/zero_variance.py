"""Drops groups without a signal: if all rewards are equal, every group-relative advantage is 0.

Such rows would still cost a forward and a backward pass and count in the loss's denominator. verl's
``algorithm.filter_groups`` replaces such prompts with others; this filter does not.
"""

from collections import defaultdict

from verl_pipeline.filters.protocol import BatchView, Decision
from verl_pipeline.filters.registry import register_filter


@register_filter("zero_variance")
class ZeroVarianceFilter:
    """Drops each group of two or more members that all have the same reward."""

    name = "zero_variance"
    only_drops = True

    def decide(self, batch: BatchView) -> list[Decision]:
        rewards: dict[str, list[float]] = defaultdict(list)
        members = batch.merge_sessions()
        for uid, reward in zip(members.uids, members.rewards, strict=True):
            rewards[uid].append(float(reward))
        flat = {uid for uid, group in rewards.items() if len(group) > 1 and len(set(group)) == 1}
        return [Decision.DROP if uid in flat else Decision.KEEP for uid in batch.uids]
