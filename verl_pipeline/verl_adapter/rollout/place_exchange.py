"""What one process of agent loops and the dispatcher tell each other.

Invariants:
* However many trajectories there are, two calls are open: one that tells what has happened here,
  and one that waits for places and for the loss of replicas. What happens while a call tells goes
  into the next one.
* The dispatcher hears of a trajectory's arrival before its end, or of both at once: Ray starts the
  calls of an async actor in no certain order, so the next call follows the answer.
* A place that comes for a trajectory that has given up was given back with its end.
"""

import asyncio
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from verl_pipeline.trainer.dispatch import Arrival, Loss


@dataclass(frozen=True)
class Place:
    """A trajectory's place.

    Attributes:
        replica, handle: name and handle of its replica.
        loss: done once the replica is lost.
    """

    trajectory: str
    replica: str
    handle: Any
    loss: asyncio.Future[None]


class PlaceExchange:
    """See the module; all calls come from one event loop.

    Args:
        dispatcher: the actor :class:`~.dispatcher.Dispatcher`.
        name: of this process; None: a new one.

    Attributes:
        lanes: of the run's records, by replica.
    """

    def __init__(self, dispatcher: Any, name: str | None = None):
        self._dispatcher = dispatcher
        self._name = name or uuid.uuid4().hex
        self._handles: dict[str, Any] = {}
        self.lanes: dict[str, str] = {}
        # By trajectory that waits, its replica; by one that has a place, the loss of it.
        self._places: dict[str, asyncio.Future[str]] = {}
        self._losses: dict[str, asyncio.Future[None]] = {}
        self._arrivals: list[Arrival] = []
        self._ends: list[str] = []
        self._telling: asyncio.Task[None] | None = None
        self._taking: asyncio.Task[None] | None = None

    async def begin(self, arrival: Arrival) -> Place:
        """Wait until a trajectory may begin; a wait that is cancelled gives the place back.

        Raises:
            RayActorError: the dispatcher has died.
        """
        loop = asyncio.get_running_loop()
        place, loss = loop.create_future(), loop.create_future()
        self._places[arrival.name], self._losses[arrival.name] = place, loss
        self._arrivals.append(arrival)
        self._telling = self._keep_running(self._telling, self._tell)
        self._taking = self._keep_running(self._taking, self._take)
        try:
            replica = await place
        except asyncio.CancelledError:
            self.end(arrival.name)
            raise
        except Exception:
            self._losses.pop(arrival.name, None)
            raise
        return Place(arrival.name, replica, self._handles[replica], loss)

    async def report_loss(self, replica: str, seen: str) -> None:
        """A replica is known to be dead, by what was ``seen`` (a clause)."""
        await self._dispatcher.lose.remote(replica, seen)

    def end(self, name: str) -> None:
        """A trajectory needs its replica no more, or does not want to begin; does not wait."""
        self._places.pop(name, None)
        self._losses.pop(name, None)
        self._ends.append(name)
        self._telling = self._keep_running(self._telling, self._tell)

    def _keep_running(self, task: asyncio.Task[None] | None, work: Any) -> asyncio.Task[None]:
        if task is not None and not task.done():
            return task
        return asyncio.get_running_loop().create_task(self._fail_with(work()))

    async def _fail_with(self, work: Coroutine[Any, Any, None]) -> None:
        """An error of the dispatcher is one of everybody who waits for it."""
        try:
            await work
        except Exception as error:  # whatever the dispatcher answers with
            self._arrivals, self._ends = [], []
            places, self._places = self._places, {}
            for place in places.values():
                if not place.done():
                    place.set_exception(error)

    async def _tell(self) -> None:
        while self._arrivals or self._ends:
            arrivals, self._arrivals = self._arrivals, []
            ends, self._ends = self._ends, []
            await self._dispatcher.tell.remote(self._name, arrivals, ends)

    async def _take(self) -> None:
        while self._losses:
            news = await self._dispatcher.take_news.remote(self._name)
            if any(one.replica not in self._handles for one in news):
                self._handles = await self._dispatcher.list_handles.remote()
                self.lanes = await self._dispatcher.list_lanes.remote()
            for one in news:
                if isinstance(one, Loss):
                    _settle(self._losses.pop(one.trajectory, None), None)
                else:
                    _settle(self._places.pop(one.trajectory, None), one.replica)


def _settle(future: asyncio.Future[Any] | None, result: Any) -> None:
    if future is not None and not future.done():
        future.set_result(result)
