"""What a simulation found.

Invariant: the shares of GPU time sum to 1.
"""

from dataclasses import dataclass

import numpy as np

# By cause: what all GPUs of the cluster do, as shares of the measured steps.
CAUSES = {
    "sampling": "a rollout replica decodes at least half of what it could",
    "tail": "a rollout replica runs, with fewer than half",
    "rollout_idle": "a rollout replica runs nothing: it waits for others, the trainer or the bound",
    "rollout_weights": "a rollout replica loads or waits for weights",
    "update": "the trainer computes log-probs and updates",
    "trainer_wait": "the trainer waits for samples and rewards",
    "trainer_weights": "the trainer publishes weights",
    "switch": "colocated GPUs change between sampling and training",
    "reward": "colocated GPUs wait for rewards",
    "validation": "all GPUs wait for a validation",
}


@dataclass(frozen=True)
class Outcome:
    """One simulated run.

    Attributes:
        step_s: mean seconds of a step after the warm-up.
        total_s: from the start to the end of the last update.
        ends: when each update ends, float64, [steps].
        shares: of all GPU time after the warm-up, by :data:`CAUSES`.
        first_versions, last_versions: weights that sampled a trajectory's first and last token,
            int64, [steps, trajectories].
    """

    step_s: float
    total_s: float
    ends: np.ndarray
    shares: dict[str, float]
    first_versions: np.ndarray
    last_versions: np.ndarray

    @property
    def mean_age(self) -> float:
        """Updates between the first token's weights and those that train on it, on average."""
        steps = len(self.ends)
        return float((np.arange(steps)[:, None] - self.first_versions).mean())
