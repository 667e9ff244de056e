"""A run of our schedule on emulated replicas in virtual time: one process, seconds a run.

The schedule's steps, the dispatcher's book and its decisions are the real ones; replicas and
rewards are the emulated cluster's. What it leaves out is what carries them: verl, Ray, the network.
So it shows what the decisions do where the planner knows nothing: among replicas that are not
equally fast.

Invariant: events happen in the order of their times, those of a moment in the order of their
planning.
"""

import heapq
import itertools
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from functools import partial

from verl_pipeline.emulated.replica import EmulatedReplica, Request
from verl_pipeline.planner.profile import Profile
from verl_pipeline.planner.replica import make_speed
from verl_pipeline.planner.rewards import RewardPool
from verl_pipeline.planner.schedules import Layout
from verl_pipeline.planner.workload import Workload
from verl_pipeline.trainer import schedule
from verl_pipeline.trainer.dispatch import DispatchBook, Grant
from verl_pipeline.trainer.schedule import ROLLING, Dial, find_window


@dataclass(frozen=True)
class Span:
    """What somebody did, in virtual seconds: an update, a checkpoint, a publication or a load; or
    that the trainer waited for rewards only.

    Attributes:
        number: of the batch, or of the weights' version; 0 if neither is one.
    """

    name: str
    number: int
    start: float
    end: float


class DecisionWorld:
    """What the schedule drives; its waits let virtual time pass.

    Args:
        workload: at least ``steps`` batches.
        slow: by replica, how many times slower it decodes.
        checkpoints: steps after which one is written.
        write_s: seconds that the trainer writes one.
        drains: whether one waits until the pool has drained, if the dial has a barrier.
        streams_rewards: whether a reward begins when its trajectory ends; else when the last of
            the batch does.

    Attributes:
        waits: of the trainer for each checkpoint, in seconds.
        trainer: what the trainer did; the rest of its time it waited for samples.
        loads: by replica, its loads of weights.
        running: by replica, how many trajectories it ran from which moment on.
    """

    def __init__(
        self,
        profile: Profile,
        workload: Workload,
        dial: Dial,
        layout: Layout,
        steps: int,
        slow: Mapping[int, float],
        checkpoints: Container[int] = (),
        write_s: float = 0.0,
        drains: bool = True,
        streams_rewards: bool = True,
    ):
        self.profile, self.workload, self.dial, self.layout = profile, workload, dial, layout
        self.steps, self.size = steps, workload.responses.shape[1]
        self.checkpoints, self.write_s, self.drains = checkpoints, write_s, drains
        self.streams_rewards = streams_rewards
        self.waits: list[float] = []
        self.trainer: list[Span] = []
        count = layout.rollout_gpus // profile.sampling.tensor_parallel
        self.replicas = [
            EmulatedReplica(make_speed(profile.sampling, layout.slots, count)) for _ in range(count)
        ]
        self.loads: list[list[Span]] = [[] for _ in self.replicas]
        self.running: list[list[tuple[float, int]]] = [[(0.0, 0)] for _ in self.replicas]
        for place, factor in slow.items():
            self.replicas[place].slow_down(factor, 0.0)
        self.now = 0.0
        self.ends: list[float] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._stamps = [0] * count
        self._rewards = RewardPool(profile.reward.workers, steps * self.size)
        self._submitted = 0
        self._rewarded, self._sampled = [0] * steps, [0] * steps
        # With a barrier every trajectory begins at once, on the replica with the fewest.
        slots = self.size * steps if dial.has_barrier else layout.slots
        mode = ROLLING if dial.has_barrier else dial.mode
        self._book = DispatchBook({str(place): slots for place in range(count)}, mode)
        self._hold(0)

    def run(self) -> list[float]:
        """Return when each update ends, in seconds [steps]."""
        dial, last = self.dial, self.steps
        schedule.fill_pipeline(
            self, trained_version=0, held_batches=set(), dial=dial, last_step=last
        )
        for step in range(1, last + 1):
            schedule.run_step(self, step, dial=dial, last_step=last)
            if step in self.checkpoints:
                before = self.now
                schedule.prepare_checkpoint(self, dial, self.drains)
                self.waits.append(self.now - before)
                self._spend("checkpoint", step, self.write_s)
        return self.ends

    # ---- what the schedule drives ------------------------------------------------------------

    def drain_rollout(self) -> None:
        """See :class:`schedule.Pipeline`."""
        self._wait(lambda: sum(self._sampled) == self._submitted)
        self._await_rewards(lambda: sum(self._rewarded) == self._submitted)

    def send_weights(self, version: int) -> None:
        """Both pools wait."""
        if version:
            weights = self.profile.weights
            span = self._spend("weights", version, weights.publish_s + weights.load_s)
            for loads in self.loads:
                loads.append(span)
            self._hold(version)

    def publish_weights(self, version: int) -> None:
        """The trainer waits until they are sent."""
        self._spend("weights", version, self.profile.weights.publish_s)
        self._book.publish(version)
        self._act()

    def begin_validation(self, version: int) -> None:
        """These runs have none."""

    def submit_batch(self, batch: int) -> None:
        """See :class:`schedule.Pipeline`."""
        self._submitted += self.size
        window = find_window(batch, self.dial.staleness)
        for index in range(self.size):
            self._book.arrive(f"{batch - 1}:{index}", batch, window)
        self._act()

    def train_batch(self, batch: int) -> None:
        """Wait for its rewards, then let the update pass."""
        self._wait(lambda: self._sampled[batch - 1] == self.size)
        self._await_rewards(lambda: self._rewarded[batch - 1] == self.size)
        tokens = float(self.workload.tokens[batch - 1])
        seconds = self.profile.training.compute_seconds(
            tokens, self.profile.sampling.mean_tokens, self.layout.trainer_gpus
        )
        self._spend("update", batch, seconds)
        self.ends.append(self.now)

    # ---- virtual time ------------------------------------------------------------------------

    def _plan(self, at: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at, next(self._numbers), event))

    def _wait(self, is_over: Callable[[], bool]) -> None:
        while not is_over():
            if not self._events:
                raise RuntimeError(f"nothing happens any more: {self._book.describe()}")
            self.now, _number, event = heapq.heappop(self._events)
            event()

    def _await_rewards(self, are_there: Callable[[], bool]) -> None:
        began = self.now
        self._wait(are_there)
        if self.now > began:
            self.trainer.append(Span("rewards", 0, began, self.now))

    def _spend(self, name: str, number: int, seconds: float) -> Span:
        span = Span(name, number, self.now, self.now + seconds)
        self.trainer.append(span)
        self._plan(span.end, lambda: None)
        self._wait(lambda: self.now >= span.end)
        return span

    # ---- replicas ----------------------------------------------------------------------------

    def _hold(self, version: int) -> None:
        self._book.publish(version)
        for replica in self._book.replicas.values():
            replica.version = version

    def _act(self) -> None:
        for action in self._book.take_actions():
            place = int(action.replica)
            if isinstance(action, Grant):
                self._begin(action.trajectory, place)
            else:
                self._settle(place, self.replicas[place].pause(self.now))
                end = self.now + self.profile.weights.load_s
                self.loads[place].append(Span("load", action.version, self.now, end))
                self._plan(end, partial(self._finish_load, place))

    def _begin(self, name: str, place: int) -> None:
        batch, index = map(int, name.split(":"))
        request = Request(
            float(self.workload.responses[batch, index]), float(self.workload.prompts[batch, index])
        )
        replica = self.replicas[place]
        self._settle(place, replica.submit(batch * self.size + index, request, self.now))

    def _finish_load(self, place: int) -> None:
        self.replicas[place].resume(self.now)
        self._settle(place, [])
        self._book.finish_load(str(place))
        self._act()

    def _take_event(self, place: int, stamp: int) -> None:
        if stamp == self._stamps[place]:
            self._settle(place, self.replicas[place].advance(self.now))
            self._act()

    def _settle(self, place: int, ended: list[tuple[int, float]]) -> None:
        """Trajectories of a replica have ended, or begun: its next event is another."""
        for number, moment in ended:
            batch, index = divmod(number, self.size)
            self._book.end(f"{batch}:{index}")
            self._sampled[batch] += 1
            if self.streams_rewards:
                self._grade(batch, index, moment)
            elif self._sampled[batch] == self.size:
                for each in range(self.size):
                    self._grade(batch, each, moment)
        self.running[place].append((self.now, self.replicas[place].running))
        self._stamps[place] = stamp = self._stamps[place] + 1
        following = self.replicas[place].find_next()
        if following < float("inf"):
            self._plan(following, lambda: self._take_event(place, stamp))

    def _grade(self, batch: int, index: int, moment: float) -> None:
        rewarded = self._rewards.finish(moment, float(self.workload.rewards[batch, index]))
        self._plan(rewarded, partial(self._reward, batch))

    def _reward(self, batch: int) -> None:
        self._rewarded[batch] += 1
