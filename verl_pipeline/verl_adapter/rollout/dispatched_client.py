"""The agent loops' client past the barrier: a trajectory asks for its place once, when it begins.

Invariants:
* All turns of a trajectory go to the replica that it was given, also between its turns.
* The place is given back once, when the trajectory has been sampled or has failed.
* A trajectory whose replica is lost is stopped wherever it is, between its turns too, and nothing
  of what was sampled is kept: whoever holds the place begins it again.
* What is known to be dead from a request's error is told to the dispatcher at once. If Ray cannot
  reach a replica at the moment, the request is lost whatever becomes of the replica (Ray says so of
  the actors of a dead node until it knows better): the trajectory begins again, too.
* The wait for a place is in nobody's deadline: it may be one for the trainer.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from ray.exceptions import ActorUnavailableError, RayError
from verl.workers.rollout.replica import TokenOutput

from verl_pipeline.trainer.dispatch import Arrival
from verl_pipeline.trainer.schedule import Window
from verl_pipeline.verl_adapter.rollout.llm_client import TurnBudgetClient
from verl_pipeline.verl_adapter.rollout.place_exchange import Place, PlaceExchange
from verl_pipeline.verl_adapter.rollout.replica_probe import find_death

# A trajectory whose replica cannot be reached waits so long for the news of its loss before it
# begins again, perhaps on the same one; whoever waits for the batch has a deadline.
UNREACHABLE_S = 2.0


class ReplicaLost(RuntimeError):
    """A trajectory's replica, or its request there, is lost: it is sampled again from its start."""


@dataclass
class _HeldPlace:
    """Where the trajectory of a task is sampled.

    Attributes:
        scope: of what the loss of the replica stops.
    """

    place: Place
    scope: asyncio.Timeout
    is_left: bool = False


_held: ContextVar[_HeldPlace | None] = ContextVar("place", default=None)


class DispatchedClient(TurnBudgetClient):
    """See the module.

    Attributes:
        process: what the dispatcher knows this process of agent loops by; set before the first
            trajectory, or made up.
    """

    process: str | None = None
    _exchange: PlaceExchange | None = None

    @asynccontextmanager
    async def hold_place(self, name: str, batch: int, window: Window) -> AsyncIterator[str]:
        """Wait for a place, and have it while the trajectory is sampled.

        Args:
            name: of the trajectory.
            batch: its batch; 0 for a validation.
            window: versions that it may be sampled with.

        Raises:
            ReplicaLost: the replica was lost while the body ran, which was cancelled.
        """
        # Made here: the client travels to the processes of the agent loops.
        self._exchange = self._exchange or PlaceExchange(self._load_balancer, self.process)
        place = await self._exchange.begin(Arrival(name, batch, window))
        held = _HeldPlace(place, asyncio.timeout(None))
        token = _held.set(held)
        loop = asyncio.get_running_loop()

        def stop(_loss: asyncio.Future[None]) -> None:
            if not held.is_left:
                held.scope.reschedule(loop.time())

        try:
            async with held.scope:
                place.loss.add_done_callback(stop)
                yield place.replica
        except TimeoutError as error:
            if not held.scope.expired():
                raise
            raise ReplicaLost(f"{name}: {place.replica} is lost or cannot be reached") from error
        finally:
            _held.reset(token)
            self._leave(held)

    def name_lane(self, server: str) -> str:
        """The lane of the run's records that a replica is on."""
        return self._exchange.lanes.get(server, server) if self._exchange else server

    def leave_place(self) -> None:
        """The trajectory of this task has been sampled; its reward needs no replica."""
        if (held := _held.get()) is not None:
            held.scope.reschedule(None)  # a loss may have been told at this moment
            self._leave(held)

    def _leave(self, held: _HeldPlace) -> None:
        if not held.is_left:
            held.is_left = True
            assert self._exchange is not None, "the place came from it"
            self._exchange.end(held.place.trajectory)

    async def generate(self, request_id: str, **request: Any) -> TokenOutput:  # type: ignore[override]
        """See the base; does not return if the replica is dead or cannot be reached."""
        try:
            return await super().generate(request_id, **request)
        except RayError as error:
            held, seen = _held.get(), find_death(error)
            is_unreachable = isinstance(error, ActorUnavailableError)
            if held is None or held.is_left or (seen is None and not is_unreachable):
                raise
            if seen is None:
                end = asyncio.get_running_loop().time() + UNREACHABLE_S
                held.scope.reschedule(end)  # a loss that is told meanwhile ends it at once
            else:
                assert self._exchange is not None, "the place came from it"
                await self._exchange.report_loss(held.place.replica, seen)
                if not held.place.loss.done():
                    held.place.loss.set_result(None)
            return await asyncio.Event().wait()  # for the end of the place, which is on its way

    async def _find_server(self, request_id: str, **extra: Any) -> tuple[str, Any]:
        held = _held.get()
        assert held is not None, "a request outside a trajectory"
        return held.place.replica, held.place.handle

    def _leave_server(self, server_id: str, request_id: str | None) -> None:
        """The place is held between the turns."""
