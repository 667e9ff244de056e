"""All replicas of a rollout pool on one event loop.

Work is done when a request comes or ends, never for a token, so a process holds hundreds of
replicas.

Invariants:
* Every request is answered once: with all of its tokens, or with those that it had when all were
  aborted. A dead replica never answers.
* While the pool is closed no request begins; those that come wait until it opens.
* Resumed requests were caused by the opening of the pool. Where the driver waits for all that
  samples before it sends weights, a batch's were caused by that too, and by the trajectories that
  had ended: the first request may come when the update beside it is over. Elsewhere they were
  caused by all that had ended when the first of them came.
* Until all of a batch are there no replica goes on, at most for :data:`HOLD_S` after the last one:
  in compressed time it would run ahead of those that the control plane still brings.
* What a trajectory had when it was interrupted is kept to the last token, whatever is returned.
"""

import asyncio
import itertools
from collections import defaultdict
from dataclasses import dataclass
from math import inf

from verl_pipeline.emulated.clock import EmulatedClock
from verl_pipeline.emulated.cluster import EmulatedCluster
from verl_pipeline.emulated.journal import Journal
from verl_pipeline.emulated.replica import EmulatedReplica, Request

# Real seconds.
HOLD_S, HOLD_POLL_S = 60.0, 0.01
# Gets what is left of a request when it is answered, in tokens, and when that is.
Waiter = asyncio.Future[tuple[float, float]]
# A timer may fire this early, in real seconds.
TIMER_S = 1e-3


@dataclass(frozen=True)
class Answer:
    """The end of a request.

    Attributes:
        row, sample: the trajectory.
        tokens: emulated, of its whole response.
        done: of these, what it has now.
        is_aborted: whether others are to come.
        marks: of its request (:class:`.replica.Request`).
    """

    row: int
    sample: int
    tokens: float
    done: float
    is_aborted: bool
    marks: list[tuple[int, float]]


class ReplicaPool:
    """The pool; everything runs on the loop of whoever calls.

    Args:
        run: the pool's cluster.
        clock: of the run.
        journal: where it writes when each replica was busy.
    """

    def __init__(self, run: EmulatedCluster, clock: EmulatedClock, journal: Journal):
        self._run, self._clock, self._journal = run, clock, journal
        self.replicas = [
            EmulatedReplica(run.speed, is_dead=number in run.dead_replicas)
            for number in range(run.replicas)
        ]
        for number, factor in run.slow_replicas.items():
            self.replicas[number].slow_down(factor, 0.0)
        self.decoded_tokens = [0.0] * len(self.replicas)
        self._numbers = itertools.count()
        self._open: list[dict[int, asyncio.Future[tuple[float, float]]]] = [
            {} for _ in self.replicas
        ]
        self._timers: list[asyncio.TimerHandle | None] = [None] * len(self.replicas)
        self._busy_since: list[float | None] = [None] * len(self.replicas)
        self._samples_begun: dict[int, int] = defaultdict(int)
        self._done: dict[tuple[int, int], float] = defaultdict(float)
        # When the last request of each batch began, before that what caused it; of None: the last
        # resumed one, before that the opening of the pool.
        self._caused: dict[int | None, float] = {None: 0.0}
        # Requests that are to come, and when (on the loop's clock) one came last.
        self._expected = 0
        self._came = 0.0
        self._gate = asyncio.Event()
        self._gate.set()

    @property
    def running(self) -> int:
        """Requests that decode, in all replicas."""
        return sum(replica.running for replica in self.replicas)

    @property
    def waiting(self) -> int:
        """Requests that wait in a replica's queue."""
        return sum(replica.waiting for replica in self.replicas)

    async def generate(self, place: int, row: int, sample: int | None) -> Answer:
        """Let replica ``place`` sample a trajectory to its end, or to the next abort.

        Args:
            row: of the data set.
            sample: of a trajectory that was interrupted; None: the prompt's next one.
        """
        is_new = sample is None
        if sample is None:
            sample = self._samples_begun[row] % self._run.cluster.sampling.samples
            self._samples_begun[row] += 1
        where = batch, _ = self._run.find_place(row, sample)
        begin = await self._admit(place, batch, is_new)
        tokens, done = float(self._run.workload.responses[where]), self._done[row, sample]
        prompt = float(self._run.workload.prompts[where])
        request = Request(tokens - done, prompt + done)
        left, moment = await self._serve(place, request, begin)
        self._clock.times.generated[where] = moment
        self._done[row, sample] = tokens - left
        self.decoded_tokens[place] += tokens - left - done
        return Answer(row, sample, tokens, tokens - left, left > 0, request.marks)

    def abort_all(self) -> int:
        """Close the pool and answer all requests with what they have; returns how many."""
        self._gate.clear()
        now, count = self._clock.begin_drivers(), 0
        for place, replica in enumerate(self.replicas):
            ended, aborted = replica.abort(now)
            self._answer(place, ended)
            for number, left in aborted:
                self._settle(place, number, left, now)
            count += len(aborted)
            self._plan_next(place, now)
        self._expected += count
        return count

    def pause(self) -> None:
        """Close the pool and freeze what runs."""
        self._gate.clear()
        now = self._clock.begin_drivers()
        for place, replica in enumerate(self.replicas):
            self._answer(place, replica.pause(now))
            self._plan_next(place, now)

    def open(self) -> None:
        """Let requests begin, and what was frozen go on."""
        now = self._caused[None] = self._clock.begin_drivers()
        for place, replica in enumerate(self.replicas):
            replica.resume(now)
            self._plan_next(place, now)
        self._gate.set()

    async def _admit(self, place: int, batch: int, is_new: bool) -> float:
        """Wait until a request may begin; returns when it begins."""
        if is_new and batch not in self._caused:
            self._caused[batch] = self._find_cause()
            self._expected += self._run.cluster.sampling.trajectories
        await self._gate.wait()
        self._note_arrival()
        return self._begin(batch if is_new else None)

    def _find_cause(self) -> float:
        """What a new batch waited for; an update that runs beside it is none of it."""
        times = self._clock.times
        if not times.is_drained:
            return times.driver_time
        return max(self._caused[None], times.completed)

    def _begin(self, batch: int | None) -> float:
        """When a request begins: requests of a batch come one by one, in real time."""
        caused = self._caused[batch]
        if caused < self._caused[None]:  # it waited for the pool to open
            batch, caused = None, self._caused[None]
        self._caused[batch] = self._clock.begin(caused)
        return self._caused[batch]

    async def _serve(self, place: int, request: Request, now: float) -> tuple[float, float]:
        """The result of the request's waiter."""
        number = next(self._numbers)
        future = asyncio.get_running_loop().create_future()
        self._open[place][number] = future
        self._answer(place, self.replicas[place].submit(number, request, now))
        self._plan_next(place, now)
        return await future

    def _note_arrival(self) -> None:
        self._came = asyncio.get_running_loop().time()
        self._expected = max(self._expected - 1, 0)
        if not self._expected:
            for place in range(len(self.replicas)):
                self._set_timer(place)

    def _find_bound(self) -> float:
        """The emulated moment that no replica passes yet; infinity: none is held."""
        now = asyncio.get_running_loop().time()
        return -inf if self._expected > 0 and now - self._came < HOLD_S else inf

    def _answer(self, place: int, ended: list[tuple[int, float]]) -> None:
        for number, moment in ended:
            self._settle(place, number, 0.0, moment)

    def _settle(self, place: int, number: int, left: float, moment: float) -> None:
        waiter = self._open[place].pop(number)
        if not waiter.done():  # whoever waited may have gone
            waiter.set_result((left, moment))

    def _plan_next(self, place: int, now: float) -> None:
        """After a change at ``now``."""
        self._note_busy(place, now)
        self._set_timer(place)

    def _set_timer(self, place: int) -> None:
        """Wake up at the replica's next event."""
        if (timer := self._timers[place]) is not None:
            timer.cancel()
            self._timers[place] = None
        event = self.replicas[place].find_next()
        if event < inf:
            loop, seconds = asyncio.get_running_loop(), self._clock.count_real(event)
            if event > self._find_bound():
                seconds = max(seconds, HOLD_POLL_S)
            self._timers[place] = loop.call_later(seconds, self._take_event, place)

    def _take_event(self, place: int) -> None:
        event = self.replicas[place].find_next()
        was_set_back = self._clock.count_real(event) > TIMER_S
        if not was_set_back and event <= self._find_bound():
            self._answer(place, self.replicas[place].advance(event))
            self._note_busy(place, event)
        self._set_timer(place)

    def _note_busy(self, place: int, now: float) -> None:
        replica, since = self.replicas[place], self._busy_since[place]
        is_busy = bool(replica.running) and not replica.is_paused
        if is_busy and since is None:
            self._busy_since[place] = now
        elif not is_busy and since is not None:
            self._journal.add("sampling", f"replica {place}", since, max(now, since))
            self._busy_since[place] = None
