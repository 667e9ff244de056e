"""The agent loops' client of the rollout servers: what a turn may generate, and when it waits.

Invariants:
* A turn is granted what verl's servers grant by default: at most ``response_length`` tokens, and no
  more than fit with the conversation so far into ``prompt_length + response_length``. verl's own
  client for interrupted generations grants every turn a whole ``response_length``; an agent loop
  cuts off the surplus after everybody has waited for it.
* A limit that the agent loop sets itself is left alone.
* The trajectory's job (:mod:`verl_pipeline.trainer.stall`) waits in the queue of its server exactly
  while a request is there, and only an answer counts as an end.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from verl.utils import normalize_token_ids
from verl.workers.rollout.llm_server import FullyAsyncLLMServerClient
from verl.workers.rollout.replica import TokenOutput

from verl_pipeline.trainer.schedule import Window
from verl_pipeline.trainer.stall import current_job

# What agent loops call their limit, for vLLM and for SGLang.
_LIMITS = ("max_tokens", "max_new_tokens")


def compute_turn_budget(conversation: int, prompt_length: int, response_length: int) -> int:
    """Tokens that a turn may generate after ``conversation`` tokens; at least 1, as vLLM asks."""
    return max(1, min(response_length, prompt_length + response_length - conversation))


def name_server_queue(server: str) -> str:
    """The queue of requests to one rollout server.

    Args:
        server: its id at verl's load balancer, ``host:port``.
    """
    return f"rollout server {server}"


class TurnBudgetClient(FullyAsyncLLMServerClient):
    """verl's client whose outputs carry the weight versions at their first and last token."""

    async def generate(  # type: ignore[override]
        self,
        request_id: str,
        *,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        **kwargs: Any,
    ) -> TokenOutput:
        """Generate one turn after the conversation ``prompt_ids``."""
        prompt_ids = normalize_token_ids(prompt_ids)
        if all(sampling_params.get(name) is None for name in _LIMITS):
            rollout = self.config.actor_rollout_ref.rollout
            budget = compute_turn_budget(
                len(prompt_ids), rollout.prompt_length, rollout.response_length
            )
            given = {name: sampling_params[name] for name in sampling_params if name not in _LIMITS}
            sampling_params = given | {"max_tokens": budget}
        return await super().generate(
            request_id, prompt_ids=prompt_ids, sampling_params=sampling_params, **kwargs
        )

    async def _acquire_server(self, request_id: str, **extra: Any) -> tuple[str, Any]:
        server, handle = await self._find_server(request_id, **extra)
        if job := current_job.get():
            job.enter_queue(name_server_queue(server))
        return server, handle

    async def _find_server(self, request_id: str, **extra: Any) -> tuple[str, Any]:
        return await super()._acquire_server(request_id, **extra)

    def _release_server(self, server_id: str, request_id: str | None = None) -> None:
        self._leave_server(server_id, request_id)
        if job := current_job.get():
            task = asyncio.current_task()
            is_given_up = task is not None and task.cancelling() > 0
            job.leave_queue(name_server_queue(server_id), has_ended=not is_given_up)

    def _leave_server(self, server_id: str, request_id: str | None) -> None:
        super()._release_server(server_id, request_id=request_id)

    @asynccontextmanager
    async def hold_place(self, name: str, batch: int, window: Window) -> AsyncIterator[None]:
        """While a trajectory is sampled; past the barrier it waits for its place first.

        Args:
            name: of the trajectory.
            batch: its batch; 0 for a validation.
            window: versions that it may be sampled with.
        """
        yield

    async def leave_place(self) -> None:
        """The trajectory of this task has been sampled; its reward needs no replica."""


@dataclass
class _Place:
    """Where the trajectory of a task is sampled."""

    trajectory: str
    server: str
    handle: Any
    is_left: bool = False


_place: ContextVar[_Place | None] = ContextVar("place", default=None)


class DispatchedClient(TurnBudgetClient):
    """The client past the barrier: all turns of a trajectory go to the replica it was given."""

    @asynccontextmanager
    async def hold_place(self, name: str, batch: int, window: Window) -> AsyncIterator[None]:
        """See the base; the wait is in nobody's deadline, since it may be one for the trainer."""
        try:
            server, handle = await self._load_balancer.begin_trajectory.remote(name, batch, window)
        except asyncio.CancelledError:
            self._load_balancer.end_trajectory.remote(name)
            raise
        place = _Place(name, server, handle)
        token = _place.set(place)
        try:
            yield
        finally:
            _place.reset(token)
            self._leave(place)

    async def leave_place(self) -> None:
        """See the base."""
        if (place := _place.get()) is not None:
            self._leave(place)

    def _leave(self, place: _Place) -> None:
        if not place.is_left:
            place.is_left = True
            self._load_balancer.end_trajectory.remote(place.trajectory)

    async def _find_server(self, request_id: str, **extra: Any) -> tuple[str, Any]:
        place = _place.get()
        assert place is not None, "a request outside a trajectory"
        return place.server, place.handle

    def _leave_server(self, server_id: str, request_id: str | None) -> None:
        """The place is held between the turns."""
