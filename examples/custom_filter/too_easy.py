"""A custom filter: drops the prompts that the policy already solves most of the time."""

from collections import defaultdict

from verl_pipeline.filters import BatchView, Decision


class TooEasy:
    """Drops each group whose share of right answers exceeds ``share``.

    Args:
        share: in [0, 1]; above it a group is too easy to learn from.
        right: reward from which an answer counts as right.
    """

    name = "too_easy"
    only_drops = True

    def __init__(self, share: float = 0.75, right: float = 1.0):
        if not 0 <= share <= 1:
            raise ValueError(f"share={share} must lie in [0, 1]")
        self.share, self.right = share, right

    def decide(self, batch: BatchView) -> list[Decision]:
        rewards: dict[str, list[float]] = defaultdict(list)
        members = batch.merge_sessions()  # one entry each, however an agent loop splits them
        for uid, reward in zip(members.uids, members.rewards, strict=True):
            rewards[uid].append(reward)
        shares = {uid: sum(r >= self.right for r in g) / len(g) for uid, g in rewards.items()}
        return [Decision.DROP if shares[uid] > self.share else Decision.KEEP for uid in batch.uids]
