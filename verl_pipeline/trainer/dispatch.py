"""The dispatcher's book: which trajectory waits, which is open on which replica, who loads what.

It applies :func:`verl_pipeline.trainer.schedule.decide` event by event, and imports no Ray: the
actor around it is :mod:`verl_pipeline.verl_adapter.rollout.dispatcher`.

Invariants:
* A trajectory that waits begins exactly once, in the order of (validation first, batch, arrival).
* A trajectory stays on its replica until it ends, between its turns too.
* Nothing begins on a replica that loads or is lost.
* No replica begins to load a version newer than the one that is held.
* The actions are those of ``decide`` over all replicas. It is shown only those that may act: the
  ones that an event has changed since it found nothing more to do, and all of them while one loads,
  since others wait for it, and when the first that waits asks for other versions than the first did
  then.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from verl_pipeline.trainer.schedule import Begin, Load, Replica, Window, decide


@dataclass(frozen=True)
class Arrival:
    """A trajectory wants to begin.

    Attributes:
        name: unique.
        batch: 0 for a validation, which begins before all that waits.
        window: versions that it may be sampled with.
    """

    name: str
    batch: int
    window: Window


@dataclass(frozen=True)
class Grant:
    """A trajectory begins on a replica."""

    trajectory: str
    replica: str


@dataclass(frozen=True)
class Loss:
    """The replica of a trajectory is lost: it has to arrive again, under another name."""

    trajectory: str
    replica: str


class _Queue:
    """The trajectories that wait; everything but the choice among a few batches is O(1)."""

    def __init__(self) -> None:
        # By batch, in the order of arrival. A plain dict slows down as its front is deleted.
        self._batches: dict[int, OrderedDict[str, Arrival]] = {}
        self._by_name: dict[str, Arrival] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def add(self, arrival: Arrival) -> None:
        self._batches.setdefault(arrival.batch, OrderedDict())[arrival.name] = arrival
        self._by_name[arrival.name] = arrival

    def remove(self, name: str) -> None:
        batch = self._by_name.pop(name).batch
        del self._batches[batch][name]
        if not self._batches[batch]:
            del self._batches[batch]

    def find_first(self) -> Arrival | None:
        if not self._batches:
            return None
        return next(iter(self._batches[min(self._batches)].values()))


class DispatchBook:
    """The state of a pool past the barrier.

    Args:
        slots: by replica, trajectories that it may have open.
        mode: ``rolling`` or ``in_flight``.
    """

    def __init__(self, slots: dict[str, int], mode: str):
        self.mode = mode
        self.published = -1
        self._held: int | None = None
        self.replicas = {name: Replica(None, number) for name, number in slots.items()}
        self._queue = _Queue()
        self._open: dict[str, str] = {}
        # No replica but the changed ones can load, or begin what asks for these versions.
        self._changed: set[str] = set(slots)
        self._settled: Window | None = None
        self._loading: set[str] = set()

    def arrive(self, name: str, batch: int, window: Window) -> None:
        """A trajectory wants to begin; see :class:`Arrival`."""
        assert name not in self._queue and name not in self._open, f"{name} has come already"
        self._queue.add(Arrival(name, batch, window))

    def end(self, name: str) -> None:
        """A trajectory has ended, however it did, or does not want to begin; may be told twice."""
        if name in self._queue:
            self._queue.remove(name)
        elif (place := self._open.pop(name, None)) is not None:
            self.replicas[place].open -= 1
            self._changed.add(place)

    def publish(self, version: int) -> None:
        """A version can be loaded from now on."""
        self.published = max(self.published, version)
        self._changed.update(self.replicas)

    def hold(self, version: int | None) -> None:
        """No replica begins to load a newer version; None: the newest is loaded again."""
        self._held = version
        self._changed.update(self.replicas)

    @property
    def loadable(self) -> int:
        """The newest version that replicas load now."""
        return self.published if self._held is None else min(self.published, self._held)

    def finish_load(self, name: str) -> None:
        """A replica holds what it has been loading."""
        replica = self.replicas[name]
        assert replica.loading is not None
        replica.version, replica.loading = replica.loading, None
        self._loading.discard(name)
        self._changed.update(self.replicas)

    def lose(self, name: str) -> list[Loss]:
        """A replica is lost; returns the trajectories that were open on it, which have ended."""
        self.replicas.pop(name, None)
        self._loading.discard(name)
        self._changed.discard(name)
        self._changed.update(self.replicas)
        lost = [trajectory for trajectory, place in self._open.items() if place == name]
        for trajectory in lost:
            del self._open[trajectory]
        return [Loss(trajectory, name) for trajectory in lost]

    def join(self, name: str, slots: int) -> None:
        """A replica that holds no weights yet, new or back from a loss, is there."""
        assert name not in self.replicas, f"{name} is there already"
        self.replicas[name] = Replica(None, slots)
        self._changed.update(self.replicas)

    def take_actions(self) -> list[Grant | Load]:
        """What happens now, in order; all of it is in the book."""
        actions: list[Grant | Load] = []
        while self._changed or self._find_window() != self._settled:
            window = self._find_window()
            if self._loading or window != self._settled:
                self._changed.update(self.replicas)
            # In the order of the pool, which decides between replicas that are equally busy.
            able = {name: self.replicas[name] for name in self.replicas if name in self._changed}
            self._changed, self._settled = set(), window
            for action in decide(able, self._list_windows(window), self.loadable, self.mode):
                replica = self.replicas[action.replica]
                if isinstance(action, Begin):
                    first = self._queue.find_first()
                    assert first is not None
                    self._queue.remove(first.name)
                    self._open[first.name] = action.replica
                    replica.open += 1
                    actions.append(Grant(first.name, action.replica))
                else:
                    replica.loading = action.version
                    self._loading.add(action.replica)
                    actions.append(action)
        return actions

    def _find_window(self) -> Window | None:
        """Of the first that waits."""
        first = self._queue.find_first()
        return first.window if first is not None else None

    def _list_windows(self, window: Window | None) -> Iterator[Window]:
        """Of those that wait, one as each before it begins, up to the first with another."""
        while window is not None and self._find_window() == window:
            yield window

    @property
    def open_count(self) -> int:
        """Trajectories that have begun and not ended."""
        return len(self._open)

    @property
    def waiting_count(self) -> int:
        """Trajectories that have not begun."""
        return len(self._queue)

    def describe(self) -> str:
        """The state in one line, for errors."""
        places = ", ".join(
            f"{name} holds v_{replica.version}"
            + (f" and loads v_{replica.loading}" if replica.loading is not None else "")
            + f" with {replica.open} trajectories open"
            for name, replica in self.replicas.items()
        )
        front = self._queue.find_first()
        waits = (
            f"{len(self._queue)} trajectories wait, the first for "
            f"v_{front.window.oldest} to v_{front.window.newest}"
            if front
            else "none waits"
        )
        held = "" if self._held is None else f", v_{self._held} is held for a validation"
        return f"v_{self.published} is published{held}; {places}; {waits}"
