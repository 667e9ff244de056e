"""Drops trajectories whose grader failed: a broken grader says nothing about the policy."""

from verl_pipeline.filters.protocol import BatchView, Decision
from verl_pipeline.filters.registry import register_filter

VERDICT = "infrastructure"


@register_filter("infrastructure")
class InfrastructureFilter:
    """Drops every trajectory with the verdict ``infrastructure``."""

    name = "infrastructure"
    only_drops = True

    def decide(self, batch: BatchView) -> list[Decision]:
        return [
            Decision.DROP if verdict == VERDICT else Decision.KEEP for verdict in batch.verdicts
        ]
