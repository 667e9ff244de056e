"""The dispatcher's book: which trajectory waits, which is open on which replica, who loads what.

It applies :func:`verl_pipeline.trainer.schedule.decide` event by event, and imports no Ray: the
actor around it is :mod:`verl_pipeline.verl_adapter.rollout.dispatcher`.

Invariants:
* A trajectory that waits begins exactly once, in the order of (validation first, batch, arrival).
* A trajectory stays on its replica until it ends, between its turns too.
* Nothing begins on a replica that loads or is lost.
"""

import bisect
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from verl_pipeline.trainer.schedule import Begin, Load, Replica, Window, decide


@dataclass(frozen=True, order=True)
class Waiting:
    """A trajectory that has not begun; sorts in the order of beginning."""

    batch: int
    number: int
    name: str = field(compare=False)
    window: Window = field(compare=False)


@dataclass(frozen=True)
class Grant:
    """A trajectory begins on a replica."""

    trajectory: str
    replica: str


class DispatchBook:
    """The state of a pool past the barrier.

    Args:
        slots: by replica, trajectories that it may have open.
        mode: ``rolling`` or ``in_flight``.
    """

    def __init__(self, slots: dict[str, int], mode: str):
        self.mode = mode
        self.published = -1
        self.replicas = {name: Replica(None, number) for name, number in slots.items()}
        self._waiting: list[Waiting] = []
        self._open: dict[str, str] = {}
        self._numbers = itertools.count()

    def arrive(self, name: str, batch: int, window: Window) -> None:
        """A trajectory wants to begin.

        Args:
            batch: 0 for a validation, which begins before all that waits.
        """
        entry = Waiting(batch, next(self._numbers), name, window)
        # From the front: the list holds several batches, and what arrives is of the last.
        bisect.insort(self._waiting, entry)

    def give_up(self, name: str) -> None:
        """A trajectory that waits does not want to begin any more."""
        self._waiting = [entry for entry in self._waiting if entry.name != name]

    def end(self, name: str) -> None:
        """A trajectory has ended, however it did."""
        replica = self.replicas.get(self._open.pop(name, ""))
        if replica is not None:
            replica.open -= 1

    def publish(self, version: int) -> None:
        """A version can be loaded from now on."""
        self.published = max(self.published, version)

    def finish_load(self, name: str) -> None:
        """A replica holds what it has been loading."""
        replica = self.replicas[name]
        assert replica.loading is not None
        replica.version, replica.loading = replica.loading, None

    def lose(self, name: str) -> list[str]:
        """A replica is dead; returns the trajectories that were open on it."""
        self.replicas.pop(name, None)
        lost = [trajectory for trajectory, place in self._open.items() if place == name]
        for trajectory in lost:
            del self._open[trajectory]
        return lost

    def take_actions(self) -> Iterator[Grant | Load]:
        """What happens now; each is in the book when it is returned."""
        begun = 0
        windows = (entry.window for entry in self._waiting)
        try:
            for action in decide(self.replicas, windows, self.published, self.mode):
                replica = self.replicas[action.replica]
                if isinstance(action, Begin):
                    entry = self._waiting[begun]
                    begun += 1
                    replica.open += 1
                    self._open[entry.name] = action.replica
                    yield Grant(entry.name, action.replica)
                else:
                    replica.loading = action.version
                    yield action
        finally:
            del self._waiting[:begun]

    @property
    def open_count(self) -> int:
        """Trajectories that have begun and not ended."""
        return len(self._open)

    @property
    def waiting_count(self) -> int:
        """Trajectories that have not begun."""
        return len(self._waiting)

    def find_common_version(self) -> int | None:
        """What all replicas hold; None while they differ or load."""
        held = {replica.version for replica in self.replicas.values()}
        is_loading = any(replica.loading is not None for replica in self.replicas.values())
        return held.pop() if len(held) == 1 and not is_loading else None

    def describe(self) -> str:
        """The state in one line, for errors."""
        places = ", ".join(
            f"{name} holds v_{replica.version}"
            + (f" and loads v_{replica.loading}" if replica.loading is not None else "")
            + f" with {replica.open} trajectories open"
            for name, replica in self.replicas.items()
        )
        front = self._waiting[0] if self._waiting else None
        waits = (
            f"{len(self._waiting)} trajectories wait, the first for "
            f"v_{front.window.oldest} to v_{front.window.newest}"
            if front
            else "none waits"
        )
        return f"v_{self.published} is published; {places}; {waits}"
