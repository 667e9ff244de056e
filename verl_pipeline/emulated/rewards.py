"""Rewards on the described pool of workers, first come first served.

Invariants:
* A reward's end follows from the emulated ends of responses alone, as in the planner.
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
        place = batch, _ = self._run.find_place(row, sample)
        times = self._clock.times
        caused = float(times.generated[place])
        if not self._run.streams_rewards:
            self._arrived[batch] += 1
            if self._arrived[batch] == self._run.cluster.sampling.trajectories:
                self._complete[batch].set()
            await self._complete[batch].wait()
            caused = float(times.generated[batch].max())
        seconds = float(self._run.workload.rewards[place])
        end = self._pool.finish(caused, seconds) if seconds else caused
        times.rewarded[place] = end
        if seconds:
            await self._clock.wait(end)
            self._journal.add("reward", "rewards", end - seconds, end)
        times.complete(end)
        # Half of the samples are right: every group has a gradient.
        return float(sample % 2)
