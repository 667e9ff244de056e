"""The replicas of verl's `separate_async`, which sample beside the trainer and are interrupted for
each load of weights.

Invariants:
* No replica passes the moment at which the driver acts next: the end of what the trainer does, or
  the completion of the prompts that it waits for. While a response is on the way to its reward, or
  the driver to its next act, that moment is not known, and all replicas are held, at most for
  :data:`~.replica_pool.HOLD_S`.
* So an interruption comes when the update ends, however late the driver is: what the replicas did
  meanwhile would be emulated seconds for free, or lost.
"""

import asyncio
from math import inf

import numpy as np

from verl_pipeline.emulated.clock import EmulatedClock
from verl_pipeline.emulated.cluster import EmulatedCluster
from verl_pipeline.emulated.journal import Journal
from verl_pipeline.emulated.replica_pool import HOLD_S, ReplicaPool


class AheadPool(ReplicaPool):
    """See the module."""

    def __init__(self, run: EmulatedCluster, clock: EmulatedClock, journal: Journal):
        super().__init__(run, clock, journal)
        self._opened = 0
        self._begun_batches = 0
        self._ended = 0
        # What was last seen of the run, and since when (on the loop's clock) nothing has changed.
        self._seen: tuple[float, ...] = ()
        self._seen_since = 0.0

    def open(self) -> None:
        """See the base; the driver opens the pool once an update, and before the first."""
        self._opened += 1
        super().open()

    async def _admit(self, place: int, batch: int, is_new: bool) -> float:
        begin = await super()._admit(place, batch, is_new)
        self._begun_batches = max(self._begun_batches, batch + 1)
        return begin

    def _settle(self, place: int, number: int, left: float, moment: float) -> None:
        self._ended += left == 0.0
        super()._settle(place, number, left, moment)

    def _take_event(self, place: int) -> None:
        # Of several replicas that were held, the one whose event is first.
        first = min(range(len(self.replicas)), key=lambda other: self.replicas[other].find_next())
        super()._take_event(first)
        if first != place:
            self._set_timer(place)

    def _find_bound(self) -> float:
        times, run = self._clock.times, self._run
        updates = times.updates
        if updates >= run.steps:
            return inf
        if (until := times.trains_until) is not None:
            return until
        rewarded = times.rewarded
        graded = int(np.count_nonzero(~np.isnan(rewarded)))
        waits = (
            self._opened > updates
            and self._begun_batches > updates + run.ahead
            and not self._expected
        )
        # The driver does nothing before `driver_time` any more.
        bound = times.driver_time
        if waits and graded == self._ended:
            samples = run.cluster.sampling.samples
            end = find_batch_end(rewarded, samples, updates + 1, run.ahead, run.is_bounded)
            bound = max(bound, end)
        return inf if self._is_stuck(updates, self._opened, graded, bound) else bound

    def _is_stuck(self, *seen: float) -> bool:
        """Whether nothing has changed for so long that who is waited for may be gone."""
        state = (*seen, self._ended, self._expected, sum(r.running for r in self.replicas))
        now = asyncio.get_running_loop().time()
        if state != self._seen:
            self._seen, self._seen_since = state, now
        return now - self._seen_since > HOLD_S


def find_batch_end(
    rewarded: np.ndarray, samples: int, step: int, ahead: int, is_bounded: bool
) -> float:
    """When verl's replay buffer can give the batch of a step; infinity: that is not known yet.

    Args:
        rewarded: when each reward is there, float64, [batches, trajectories]; nan: not known.
        samples: of a prompt, which is given with all of them.
        step: from 1; the steps before have taken as many prompts each as a batch has.
        ahead: batches that are sampled ahead.
        is_bounded: whether it waits for prompts that were given to the pool ``ahead`` steps before.
    """
    groups = rewarded.reshape(len(rewarded), -1, samples).max(axis=2)
    needed = step * groups.shape[1]
    ends = np.sort(groups[~np.isnan(groups)])
    if len(ends) < needed:
        return inf
    # The first step's are those of all batches until then.
    oldest = groups[:step] if is_bounded and step > ahead else groups[:0]
    last = max(ends[needed - 1], oldest.max(initial=-inf))
    return inf if np.isnan(last) or np.isnan(oldest).any() else float(last)
