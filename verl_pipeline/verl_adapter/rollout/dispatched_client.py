"""The agent loops' client past the barrier: a trajectory asks for its place once, when it begins.

Invariants:
* All turns of a trajectory go to the replica that it was given, also between its turns.
* The place is given back once, when the trajectory has been sampled or has failed.
* The wait for a place is in nobody's deadline: it may be one for the trainer.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from verl_pipeline.trainer.dispatch import Arrival
from verl_pipeline.trainer.schedule import Window
from verl_pipeline.verl_adapter.rollout.llm_client import TurnBudgetClient
from verl_pipeline.verl_adapter.rollout.place_exchange import PlaceExchange


@dataclass
class _Place:
    """Where the trajectory of a task is sampled."""

    trajectory: str
    server: str
    handle: Any
    is_left: bool = False


_place: ContextVar[_Place | None] = ContextVar("place", default=None)


class DispatchedClient(TurnBudgetClient):
    """See the module."""

    _exchange: PlaceExchange | None = None

    @asynccontextmanager
    async def hold_place(self, name: str, batch: int, window: Window) -> AsyncIterator[str]:
        """Wait for a place, and have it while the trajectory is sampled.

        Args:
            name: of the trajectory.
            batch: its batch; 0 for a validation.
            window: versions that it may be sampled with.
        """
        # Made here: the client travels to the processes of the agent loops.
        self._exchange = self._exchange or PlaceExchange(self._load_balancer)
        server, handle = await self._exchange.begin(Arrival(name, batch, window))
        place = _Place(name, server, handle)
        token = _place.set(place)
        try:
            yield server
        finally:
            _place.reset(token)
            self._leave(place)

    def leave_place(self) -> None:
        """The trajectory of this task has been sampled; its reward needs no replica."""
        if (place := _place.get()) is not None:
            self._leave(place)

    def _leave(self, place: _Place) -> None:
        if not place.is_left:
            place.is_left = True
            assert self._exchange is not None, "the place came from it"
            self._exchange.end(place.trajectory)

    async def _find_server(self, request_id: str, **extra: Any) -> tuple[str, Any]:
        place = _place.get()
        assert place is not None, "a request outside a trajectory"
        return place.server, place.handle

    def _leave_server(self, server_id: str, request_id: str | None) -> None:
        """The place is held between the turns."""
