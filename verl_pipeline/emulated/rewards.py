"""Rewards on the described pool of workers, first come first served.

Invariants:
* A reward's end follows from the order and times of arrival alone, as in the planner.
* Where rewards are not streamed, none of a batch begins before its last response is there.
"""

import asyncio
from collections import defaultdict

from verl_pipeline.emulated.clock import EmulatedClock
from verl_pipeline.emulated.cluster import EmulatedCluster
from verl_pipeline.emulated.journal import Journal
from verl_pipeline.planner.rewards import RewardPool


class EmulatedRewards:
    """The reward workers of a run, in one process.

    Args:
        run: of which they are.
        clock: of the run.
        journal: where it writes when rewards were computed.
    """

    def __init__(self, run: EmulatedCluster, clock: EmulatedClock, journal: Journal):
        self._run, self._clock, self._journal = run, clock, journal
        self._pool = RewardPool(run.cluster.reward.workers, 2 * run.cluster.sampling.trajectories)
        self._arrived: dict[int, int] = defaultdict(int)
        self._complete: dict[int, asyncio.Event] = defaultdict(asyncio.Event)

    async def compute(self, row: int, sample: int) -> float:
        """Wait until the reward of a trajectory is there; 0 or 1."""
        batch, trajectory = self._run.find_place(row, sample)
        if not self._run.streams_rewards:
            self._arrived[batch] += 1
            if self._arrived[batch] == self._run.cluster.sampling.trajectories:
                self._complete[batch].set()
            await self._complete[batch].wait()
        seconds = float(self._run.workload.rewards[batch, trajectory])
        if seconds:
            with self._journal.record("reward", "rewards"):
                await self._clock.wait(self._pool.finish(self._clock.now(), seconds))
        # Half of the samples are right: every group has a gradient.
        return float(sample % 2)
