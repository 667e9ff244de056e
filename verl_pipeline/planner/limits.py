"""What no schedule can beat: the trainer, the pool's rate, and the longest trajectory's chain.

A batch's life is: the weights v_{k-1-s} are published, its longest trajectory, the update. So 1 + s
steps take at least (longest + update), whatever happens to the other trajectories.

Invariant: every term is a lower bound of a step of any schedule with two pools.
"""

from dataclasses import dataclass

import numpy as np

from verl_pipeline.planner.profile import Profile
from verl_pipeline.planner.replica import make_speed
from verl_pipeline.planner.schedules import Layout, Schedule
from verl_pipeline.planner.workload import Workload


@dataclass(frozen=True)
class Limit:
    """Lower bounds of the mean step, in seconds.

    Attributes:
        update: the trainer's own work: log-probs, update, publication.
        work: all tokens over the most that the rollout pool can decode.
        chain: (longest + update) / (1 + staleness).
        validation: added to the largest of them.
    """

    update: float
    work: float
    chain: float
    validation: float = 0.0

    @property
    def step_s(self) -> float:
        return max(self.update, self.work, self.chain) + self.validation

    @property
    def cause(self) -> str:
        """Name of the largest."""
        bounds = {"update": self.update, "work": self.work, "chain": self.chain}
        return max(bounds, key=bounds.__getitem__)


def compute_limit(
    profile: Profile, workload: Workload, schedule: Schedule, layout: Layout
) -> Limit:
    """Compute the limit of a schedule with two pools on a layout."""
    replicas = layout.rollout_gpus // profile.sampling.tensor_parallel
    speed = make_speed(profile.sampling, layout.slots, replicas)
    work = workload.responses.sum(axis=1) / speed.tokens_per_s
    work += workload.prompts.sum(axis=1) * speed.prefill_s
    alone = workload.responses * speed.step_s[1] + workload.prompts * speed.prefill_s
    longest = (alone + workload.rewards).max(axis=1)
    updates = [
        profile.training.compute_seconds(tokens, profile.sampling.mean_tokens, layout.trainer_gpus)
        for tokens in workload.tokens.tolist()
    ]
    update = float(np.mean(updates))
    return Limit(
        update + profile.weights.publish_s,
        float(work.mean()) / replicas,
        (float(longest.mean()) + update) / (1 + schedule.staleness),
        profile.validation.seconds_per_step,
    )
