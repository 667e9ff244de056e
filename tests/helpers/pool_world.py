"""A simulated run past the barrier: our schedule and book, with engines that only take time.

Waits of the trainer let simulated time pass, so :func:`verl_pipeline.trainer.schedule.run_step`
drives it as it drives a real run.
"""

import heapq
import itertools
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from verl_pipeline.trainer import schedule
from verl_pipeline.trainer.dispatch import DispatchBook, Grant
from verl_pipeline.trainer.schedule import Dial, Window, find_window

# Batch number of validations at the dispatcher.
VALIDATION = 0


class Stalled(AssertionError):
    """Somebody waits, and nothing is going to happen."""


@dataclass
class Sampled:
    """How a trajectory was sampled."""

    batch: int
    window: Window
    first: int
    last: int
    begun_as: int


@dataclass
class World:
    """One run; every time is in the same unit.

    Attributes:
        lengths: of trajectory i of batch k; the index wraps around.
        updates, load_s: of the trainer, and of a replica's load.
        deaths: when which replica dies, never the last one.
        beside: steps whose validation runs beside the next ones.
        return_s: from its death until it takes part again, under another name; None: never.
    """

    dial: Dial
    last_step: int
    slots: dict[str, int]
    batch_size: int
    lengths: list[float]
    updates: list[float]
    load_s: float
    deaths: list[tuple[float, str]] = field(default_factory=list)
    beside: frozenset[int] = frozenset()
    return_s: float | None = None
    book: DispatchBook = field(init=False)
    now: float = 0.0
    sampled: dict[str, Sampled] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    begun: list[str] = field(default_factory=list)
    submitted: list[int] = field(default_factory=list)
    trained: list[int] = field(default_factory=list)
    changed_while_open: list[str] = field(default_factory=list)
    overfull: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.book = DispatchBook(dict(self.slots), self.dial.mode)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._place: dict[str, str] = {}
        self._validation: set[str] = set()
        for at, name in self.deaths:
            self._plan(at, lambda name=name: self._die(name))
        self.publish_weights(0)

    # ---- what the schedule drives --------------------------------------------------------

    def drain_rollout(self):
        self._wait(lambda: all(map(self._is_complete, self.submitted)))

    def send_weights(self, version):
        raise AssertionError("nobody sends past the barrier")

    def publish_weights(self, version):
        self.book.publish(version)
        self._act()

    def begin_validation(self, version):
        if version in self.beside:
            self._finish_validation()
            self.book.hold(version)
            self._validation = set(self._submit_validation(version))

    def submit_batch(self, batch):
        self.submitted.append(batch)
        window = find_window(batch, self.dial.staleness)
        for name in self._name_batch(batch):
            self._arrive(name, batch, window)
        self._act()

    def train_batch(self, batch):
        self._wait(lambda: self._is_complete(batch))
        end = self.now + self.updates[batch % len(self.updates)]
        self._plan(end, lambda: None)
        self._wait(lambda: self.now >= end)
        self.trained.append(batch)

    def find_held(self, trained):
        """What a checkpoint after ``trained`` holds: complete batches, without a gap."""
        lead = trained
        while lead + 1 in self.submitted and self._is_complete(lead + 1):
            lead += 1
        return list(range(trained + 1, lead + 1))

    def validate(self, version, size=3):
        names = self._submit_validation(version, size)
        self._wait(lambda: self.done.issuperset(names))

    def run(self, *, validations=(), checkpoints=(), trained=0, held=(), stop=None):
        """Run from ``trained`` to ``stop``, or to the last step."""
        if trained:
            self.publish_weights(trained)
        for batch in held:
            self.submitted.append(batch)
            self.done.update(self._name_batch(batch))
        schedule.fill_pipeline(
            self,
            trained_version=trained,
            held_batches=set(held),
            dial=self.dial,
            last_step=self.last_step,
        )
        for k in range(trained + 1, (stop or self.last_step) + 1):
            schedule.run_step(self, k, dial=self.dial, last_step=self.last_step)
            if k in checkpoints:
                schedule.prepare_checkpoint(self, self.dial)
            if k in validations and k not in self.beside:
                self._finish_validation()  # one at a time
                schedule.prepare_validation(self, k, self.dial)
                self.validate(k)
        self._finish_validation()
        return self

    # ---- the engines ---------------------------------------------------------------------

    def _name_batch(self, batch):
        return [f"b{batch}p{number}" for number in range(self.batch_size)]

    def _finish_validation(self):
        self._wait(lambda: self.done.issuperset(self._validation))

    def _submit_validation(self, version, size=3):
        names = [f"v{version}p{number}" for number in range(size)]
        for name in names:
            self._arrive(name, VALIDATION, Window(version, version))
        self._act()
        return names

    def _is_complete(self, batch):
        return self.done.issuperset(self._name_batch(batch))

    def _plan(self, at, event):
        heapq.heappush(self._events, (at, next(self._numbers), event))

    def _wait(self, is_over):
        while not is_over():
            if not self._events:
                raise Stalled(self.book.describe())
            at, _number, event = heapq.heappop(self._events)
            self.now = max(self.now, at)
            event()

    def _arrive(self, name, batch, window):
        self.sampled[name] = Sampled(batch, window, -1, -1, 0)
        self.book.arrive(name, batch, window)

    def _act(self):
        for action in self.book.take_actions():
            if isinstance(action, Grant):
                self._begin(action.trajectory, action.replica)
            else:
                replica = self.book.replicas[action.replica]
                if replica.open and self.dial.mode == schedule.ROLLING:
                    self.changed_while_open.append(action.replica)
                self._plan(
                    self.now + self.load_s,
                    lambda name=action.replica: self._finish_load(name),
                )

    def _begin(self, name, place):
        life, replica = self.sampled[name], self.book.replicas[place]
        life.begun_as += 1
        life.first = replica.version
        self.begun.append(name)
        self._place[name] = place
        if replica.open > replica.slots:
            self.overfull.append(place)
        # Not hash(), which is salted: a planted fault would go unseen in some processes.
        number = zlib.crc32(name.encode()) % len(self.lengths)
        self._plan(self.now + self.lengths[number], lambda: self._end(name, place))

    def _finish_load(self, name):
        if name in self.book.replicas:
            self.book.finish_load(name)
            self._act()

    def _end(self, name, place):
        if self._place.get(name) != place or name in self.done or place not in self.book.replicas:
            return
        replica = self.book.replicas[place]
        if replica.loading is not None:  # frozen meanwhile
            self._plan(self.now + self.load_s, lambda: self._end(name, place))
            return
        self.sampled[name].last = replica.version
        self.done.add(name)
        self.book.end(name)
        if self.done.issuperset(self._validation):
            self.book.hold(None)
        self._act()

    def _die(self, name):
        if len(self.book.replicas) == 1 or name not in self.book.replicas:
            return
        if self.return_s is not None:
            slots = self.book.replicas[name].slots
            self._plan(self.now + self.return_s, lambda: self._join(f"{name} again", slots))
        for lost in (loss.trajectory for loss in self.book.lose(name)):
            del self._place[lost]
            life = self.sampled[lost]
            life.begun_as -= 1
            self.book.arrive(lost, life.batch, life.window)
        self._act()

    def _join(self, name, slots):
        self.book.join(name, slots)
        self._act()


def find_violations(world: World) -> list[str]:
    """One sentence for each broken invariant of a run that has ended."""
    found = []
    for name, life in world.sampled.items():
        if name not in world.done:
            found.append(f"{name} is lost")
        elif life.begun_as != 1:
            found.append(f"{name} has begun {life.begun_as} times")
        elif not (life.window.admits(life.first) and life.first <= life.last <= life.window.newest):
            found.append(f"{name} was sampled with v_{life.first}..v_{life.last}: {life.window}")
        elif world.dial.mode == schedule.ROLLING and life.first != life.last:
            found.append(f"{name} has two versions")
    expected = list(range(world.submitted[0], world.last_step + 1)) if world.submitted else []
    if world.submitted != expected:
        found.append(f"submitted {world.submitted}")
    if world.trained != expected[len(expected) - len(world.trained) :]:
        found.append(f"trained {world.trained}")
    found += [f"{name} loaded while it ran something" for name in world.changed_while_open]
    found += [f"{name} has more open than slots" for name in world.overfull]
    return found
