"""Rewards on a bounded pool of workers, first come first served."""

from heapq import heapify, heapreplace

import numpy as np


class RewardPool:
    """Workers that compute one reward at a time, in the order in which trajectories end.

    Args:
        workers: of the pool; more than ``most`` are never busy at a time.
        most: trajectories that can wait for a reward.
    """

    def __init__(self, workers: int, most: int):
        self._free = [0.0] * min(workers, most)
        heapify(self._free)

    def finish(self, ended: float, seconds: float) -> float:
        """Return when the reward of a trajectory that ended at ``ended`` is there.

        Calls come in the order of ``ended``.
        """
        end = max(ended, self._free[0]) + seconds
        heapreplace(self._free, end)
        return end


def find_last_reward(ends: np.ndarray, seconds: np.ndarray, workers: int) -> float:
    """When the last reward of a batch is there, if the pool is free before.

    Args:
        ends: when each trajectory ends, float64, [trajectories].
        seconds: of each reward on a worker, [trajectories].
    """
    if workers >= len(ends) or not seconds.any():
        return float((ends + seconds).max())
    pool = RewardPool(workers, len(ends))
    order = np.argsort(ends, kind="stable")
    ordered = zip(ends[order].tolist(), seconds[order].tolist(), strict=True)
    return max(pool.finish(end, spent) for end, spent in ordered)
