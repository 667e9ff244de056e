"""All replicas of a rollout pool on one event loop.

Work is done when a request comes or ends, never for a token, so a process holds hundreds of
replicas.

Invariants:
* Every request is answered once: with all of its tokens, or with those that it had when all were
  aborted. A dead replica never answers.
* While the pool is closed no request begins; those that come wait until it opens.
* What a trajectory had when it was interrupted is kept to the last token, whatever is returned.
"""

import asyncio
import itertools
import time
from collections import defaultdict
from dataclasses import dataclass

from verl_pipeline.emulated.clock import EmulatedClock
from verl_pipeline.emulated.cluster import EmulatedCluster
from verl_pipeline.emulated.journal import Journal
from verl_pipeline.emulated.replica import EmulatedReplica, Request


@dataclass(frozen=True)
class Answer:
    """The end of a request.

    Attributes:
        row, sample: the trajectory.
        tokens: emulated, of its whole response.
        done: of these, what it has now.
        is_aborted: whether others are to come.
    """

    row: int
    sample: int
    tokens: float
    done: float
    is_aborted: bool


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
            self.replicas[number].slow_down(factor, self._clock.now())
        self.decoded_tokens = 0.0
        self._numbers = itertools.count()
        self._open: list[dict[int, asyncio.Future]] = [{} for _ in self.replicas]
        self._timers: list[asyncio.TimerHandle | None] = [None] * len(self.replicas)
        self._busy_since: list[float | None] = [None] * len(self.replicas)
        self._samples_begun: dict[int, int] = defaultdict(int)
        self._done: dict[tuple[int, int], float] = defaultdict(float)
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
        if sample is None:
            sample = self._samples_begun[row] % self._run.cluster.sampling.samples
            self._samples_begun[row] += 1
        await self._gate.wait()
        where = self._run.find_place(row, sample)
        tokens, done = float(self._run.workload.responses[where]), self._done[row, sample]
        prompt = float(self._run.workload.prompts[where])
        left = await self._serve(place, Request(tokens - done, prompt + done))
        self._done[row, sample] = tokens - left
        self.decoded_tokens += tokens - left - done
        return Answer(row, sample, tokens, tokens - left, left > 0)

    def abort_all(self) -> int:
        """Close the pool and answer all requests with what they have; returns how many."""
        self._gate.clear()
        count = 0
        for place, replica in enumerate(self.replicas):
            ended, aborted = replica.abort(self._clock.now())
            self._answer(place, ended)
            for number, left in aborted:
                self._settle(place, number, left)
            count += len(aborted)
            self._plan_next(place)
        return count

    def open(self) -> None:
        """Let requests begin."""
        self._gate.set()

    def pause(self) -> None:
        """Close the pool and freeze what runs."""
        self._gate.clear()
        for place, replica in enumerate(self.replicas):
            self._answer(place, replica.pause(self._clock.now()))
            self._plan_next(place)

    def resume(self) -> None:
        """Let what was frozen go on, and open the pool."""
        for place, replica in enumerate(self.replicas):
            replica.resume(self._clock.now())
            self._plan_next(place)
        self.open()

    async def _serve(self, place: int, request: Request) -> float:
        """Tokens that are left of a request when it is answered."""
        number = next(self._numbers)
        future = asyncio.get_running_loop().create_future()
        self._open[place][number] = future
        ended = self.replicas[place].submit(number, request, self._clock.now())
        self._answer(place, ended)
        self._plan_next(place)
        return await future

    def _answer(self, place: int, ended: list[tuple[int, float]]) -> None:
        for number, _moment in ended:
            self._settle(place, number, 0.0)

    def _settle(self, place: int, number: int, left: float) -> None:
        waiter = self._open[place].pop(number)
        if not waiter.done():  # whoever waited may have gone
            waiter.set_result(left)

    def _plan_next(self, place: int) -> None:
        """Wake up at the replica's next event; note when it begins or ends to be busy."""
        if (timer := self._timers[place]) is not None:
            timer.cancel()
            self._timers[place] = None
        replica = self.replicas[place]
        self._note_busy(place, bool(replica.running) and not replica.is_paused)
        event = replica.find_next()
        if event < float("inf"):
            seconds = self._clock.count_real(event)
            loop = asyncio.get_running_loop()
            self._timers[place] = loop.call_later(seconds, self._take_event, place, event)

    def _take_event(self, place: int, event: float) -> None:
        # A timer may fire a moment early.
        moment = max(self._clock.now(), event)
        self._answer(place, self.replicas[place].advance(moment))
        self._plan_next(place)

    def _note_busy(self, place: int, is_busy: bool) -> None:
        since = self._busy_since[place]
        if is_busy and since is None:
            self._busy_since[place] = time.time()
        elif not is_busy and since is not None:
            self._journal.add("sampling", f"replica {place}", since, time.time())
            self._busy_since[place] = None
