"""The work of a run, drawn once and given to every schedule alike.

Invariant: batch j of a seed is the same whatever the number of batches, so schedules are compared
on the same lengths, request by request.
"""

from dataclasses import dataclass

import numpy as np

from verl_pipeline.planner.profile import Profile


@dataclass(frozen=True)
class Workload:
    """Batches; row j is what update j+1 trains on.

    Attributes:
        responses, prompts: whole tokens of each trajectory, float64, [batches, trajectories].
        rewards: seconds of each reward on a worker, float64, [batches, trajectories].
    """

    responses: np.ndarray
    prompts: np.ndarray
    rewards: np.ndarray

    @property
    def tokens(self) -> np.ndarray:
        """Tokens of each batch, prompts included, [batches]."""
        return (self.responses + self.prompts).sum(axis=1)

    def select(self, first: int, last: int) -> "Workload":
        """Batches ``first`` to ``last - 1``."""
        parts = (self.responses, self.prompts, self.rewards)
        return Workload(*(part[first:last] for part in parts))

    def order(self, batch: int, longest_first: bool) -> np.ndarray:
        """Indices of a batch's trajectories in the order in which they are handed out."""
        if longest_first:
            return np.argsort(-self.responses[batch], kind="stable")
        return np.arange(self.responses.shape[1])


def draw_workload(profile: Profile, batches: int, seed: int) -> Workload:
    """Draw ``batches`` batches; samples of a prompt share its length and are independent else."""
    sampling = profile.sampling
    size = sampling.trajectories
    shape = (batches, size)
    responses, prompts, rewards = np.empty(shape), np.empty(shape), np.empty(shape)
    for batch in range(batches):
        random = np.random.default_rng((seed, batch))
        responses[batch] = sampling.response_tokens.draw(random, size)
        prompts[batch] = np.repeat(
            sampling.prompt_tokens.draw(random, sampling.prompts), sampling.samples
        )
        rewards[batch] = profile.reward.seconds.draw(random, size)
    return Workload(np.ceil(responses), np.ceil(prompts), rewards)
