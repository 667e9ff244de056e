"""What no schedule can beat: the trainer, both pools' rates, and the longest trajectory's chain.

A batch's life is: the weights v_{k-1-s} are published, its longest trajectory, the update. So 1 + s
steps take at least (longest + update), whatever happens to the other trajectories.

A replica's tokens take as many decoding steps as its slots need, or its KV cache: in a step that
holds every running context, and over its life a trajectory holds the sum of its contexts.

Invariant: every term is a lower bound of a step of any schedule with two pools.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass

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
        reward: all rewards' time over their workers.
        chain: (longest + update) / (1 + staleness).
        validation: added to the largest of them.
    """

    update: float
    work: float
    reward: float
    chain: float
    validation: float = 0.0

    @property
    def step_s(self) -> float:
        return max(self.update, self.work, self.reward, self.chain) + self.validation

    @property
    def cause(self) -> str:
        """Name of the largest."""
        return max(("update", "work", "reward", "chain"), key=lambda name: getattr(self, name))


def compute_limit(
    profile: Profile, workload: Workload, schedule: Schedule, layout: Layout
) -> Limit:
    """Compute the limit of a schedule with two pools on a layout."""
    replicas = layout.rollout_gpus // profile.sampling.tensor_parallel
    speed = make_speed(profile.sampling, layout.slots, replicas)
    responses, prompts = workload.responses, workload.prompts
    tokens = float(responses.sum(axis=1).mean())
    contexts = float((responses * (prompts + responses / 2)).sum(axis=1).mean())
    alone, together = speed.step_s[0], speed.step_s[1] - speed.step_s[0]
    steps = max(tokens / speed.slots, contexts / speed.kv_tokens)
    work = steps * alone + tokens * together + float(prompts.sum(axis=1).mean()) * speed.prefill_s
    lives = responses * speed.step_s[1] + prompts * speed.prefill_s + workload.rewards
    longest = lives.max(axis=1)
    updates = [
        profile.training.compute_seconds(tokens, profile.sampling.mean_tokens, layout.trainer_gpus)
        for tokens in workload.tokens.tolist()
    ]
    update = float(np.mean(updates))
    return Limit(
        update + profile.weights.publish_s,
        work / replicas,
        float(workload.rewards.sum(axis=1).mean()) / profile.reward.workers,
        (float(longest.mean()) + update) / (1 + schedule.staleness),
        profile.validation.seconds_per_step,
    )


def average_limits(limits: Sequence[Limit]) -> Limit:
    """The mean of every bound, which bounds the mean step."""
    return Limit(*np.mean([astuple(limit) for limit in limits], axis=0).tolist())
