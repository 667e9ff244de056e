"""What one process of agent loops and the dispatcher tell each other.

Invariants:
* However many trajectories wait, two calls are open: one that tells what has happened here, and one
  that waits for places. What happens while a call tells goes into the next one.
* The dispatcher hears of a trajectory's arrival before its end, or of both at once: Ray starts the
  calls of an async actor in no certain order, so the next call follows the answer.
* A place that comes for a trajectory that has given up was given back with its end.
"""

import asyncio
import uuid
from collections.abc import Coroutine
from typing import Any

from verl_pipeline.trainer.dispatch import Arrival


class PlaceExchange:
    """See the module; all calls come from one event loop.

    Args:
        dispatcher: the actor :class:`~.dispatcher.Dispatcher`.
    """

    def __init__(self, dispatcher: Any):
        self._dispatcher = dispatcher
        self._name = uuid.uuid4().hex
        self._handles: dict[str, Any] = {}
        # By trajectory that waits, its replica.
        self._places: dict[str, asyncio.Future[str]] = {}
        self._arrivals: list[Arrival] = []
        self._ends: list[str] = []
        self._telling: asyncio.Task[None] | None = None
        self._taking: asyncio.Task[None] | None = None

    async def begin(self, arrival: Arrival) -> tuple[str, Any]:
        """Wait until a trajectory may begin; a wait that is cancelled gives the place back.

        Returns:
            Name and handle of its replica.

        Raises:
            RayActorError: the dispatcher has died.
        """
        place = asyncio.get_running_loop().create_future()
        self._places[arrival.name] = place
        self._arrivals.append(arrival)
        self._telling = self._keep_running(self._telling, self._tell)
        self._taking = self._keep_running(self._taking, self._take)
        try:
            replica = await place
        except asyncio.CancelledError:
            self.end(arrival.name)
            raise
        return replica, self._handles[replica]

    def end(self, name: str) -> None:
        """A trajectory needs its replica no more, or does not want to begin; does not wait."""
        self._places.pop(name, None)
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
        self._handles = self._handles or await self._dispatcher.list_handles.remote()
        while self._places:
            for grant in await self._dispatcher.take_grants.remote(self._name):
                place = self._places.pop(grant.trajectory, None)
                if place is not None and not place.done():
                    place.set_result(grant.replica)
