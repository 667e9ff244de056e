"""The replicas of a rollout pool past the barrier: each begins and loads when it is told.

Invariants:
* A trajectory is caused by the slot that it takes, since that was free and its replica's weights
  were there; requests do not wait for one another.
* A load begins when the weights are published, and of a replica that runs nothing when that ended.
* Requests that run are frozen while their replica loads, and go on with the new version.
"""

from collections import deque

from verl_pipeline.emulated.clock import EmulatedClock
from verl_pipeline.emulated.cluster import EmulatedCluster
from verl_pipeline.emulated.journal import Journal
from verl_pipeline.emulated.replica_pool import ReplicaPool


class FlowingPool(ReplicaPool):
    """See the module.

    Attributes:
        versions: what each replica holds; None before its first load.
    """

    def __init__(self, run: EmulatedCluster, clock: EmulatedClock, journal: Journal):
        super().__init__(run, clock, journal)
        self.versions: list[int | None] = [None] * len(self.replicas)
        # Since when each free slot of a replica is free, the oldest first.
        self._free = [deque([0.0] * run.slots) for _ in self.replicas]
        self._loaded = [0.0] * len(self.replicas)

    async def load(self, place: int, version: int) -> None:
        """Let a replica take v_version, which is published."""
        replica, times = self.replicas[place], self._clock.times
        caused = times.published
        if not replica.running:
            caused = max(caused, *self._free[place])
        start = self._clock.begin(caused)
        self._answer(place, replica.pause(start))
        if (old := self.versions[place]) is not None:
            replica.mark_version(old)
        self._plan_next(place, start)
        end = start + self._run.cluster.weights.load_s
        await self._clock.wait(end)
        self._journal.add("load", f"replica {place}", start, end)
        replica.resume(end)
        self.versions[place], self._loaded[place] = version, end
        self._plan_next(place, end)

    async def _admit(self, place: int, batch: int, is_new: bool) -> float:
        return self._clock.begin(max(self._loaded[place], self._free[place].popleft()))

    async def _serve(self, place, request, now):
        left, moment = await super()._serve(place, request, now)
        self._free[place].append(moment)
        return left, moment
