"""The replicas of a rollout pool past the barrier: each begins and loads when it is told.

Invariants:
* A trajectory is caused by the slot that it takes, since that was free and its replica's weights
  were there; requests do not wait for one another.
* A load begins when the weights are published, and of a replica that runs nothing when that ended.
* Requests that run are frozen while their replica loads, and go on with the new version.
* No replica goes on while the driver is late with an update or a publication, the dispatcher with a
  load, or the control plane with a trajectory that a free slot may have, at most for
  :data:`~.replica_pool.HOLD_S`: in compressed time it would run ahead of them.
"""

import asyncio
from collections import defaultdict, deque
from math import inf

from verl_pipeline.emulated.clock import EmulatedClock
from verl_pipeline.emulated.cluster import EmulatedCluster
from verl_pipeline.emulated.journal import Journal
from verl_pipeline.emulated.replica_pool import HOLD_S, ReplicaPool


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
        self._loading: set[int] = set()
        self._begun: dict[int, int] = defaultdict(int)
        self._front = 0
        # Since when (on the loop's clock) it is held.
        self._held_since: float | None = None

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
        self._loading.add(place)
        end = start + self._run.cluster.weights.load_s
        await self._clock.wait(end)
        self._journal.add("load", f"replica {place}", start, end)
        self._loading.discard(place)
        self._held_since = None
        replica.resume(end)
        self.versions[place], self._loaded[place] = version, end
        self._plan_next(place, end)

    def _find_bound(self) -> float:
        times = self._clock.times
        is_due = (
            (self._front < self._run.steps and times.is_driver_due(self._clock.now()))
            or self._is_load_due(times.newest_version)
            or self._is_trajectory_due()
        )
        if not is_due:
            self._held_since = None
            return inf
        now = asyncio.get_running_loop().time()
        if self._held_since is None:
            self._held_since = now
        return -inf if now - self._held_since < HOLD_S else inf

    def _is_load_due(self, newest: int) -> bool:
        return any(
            (version is None or version < newest)
            and place not in self._loading
            and (self._run.freezes or not self.replicas[place].running)
            for place, version in enumerate(self.versions)
        )

    def _is_trajectory_due(self) -> bool:
        """Whether the dispatcher is about to begin one: it has room and weights for it."""
        size = self._run.cluster.sampling.trajectories
        # Batches count from 0 here: batch b is trained on by update b + 1.
        for batch in range(self._front, self._run.steps):
            if self._begun[batch] < size:
                oldest = batch - self._run.staleness
                return any(
                    version is not None and oldest <= version <= batch and self._free[place]
                    for place, version in enumerate(self.versions)
                    if place not in self._loading
                )
        return False

    async def _admit(self, place: int, batch: int, is_new: bool) -> float:
        self._held_since = None
        self._begun[batch] += is_new
        while self._begun[self._front] >= self._run.cluster.sampling.trajectories:
            self._front += 1
        return self._clock.begin(max(self._loaded[place], self._free[place].popleft()))

    async def _serve(self, place, request, now):
        left, moment = await super()._serve(place, request, now)
        self._free[place].append(moment)
        return left, moment
