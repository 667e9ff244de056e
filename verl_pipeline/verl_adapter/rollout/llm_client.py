"""The agent loops' client of the rollout servers: what a turn may generate, and when it waits.

Invariants:
* A turn is granted what verl's servers grant by default: at most ``response_length`` tokens, and no
  more than fit with the conversation so far into ``prompt_length + response_length``. verl's own
  client for interrupted generations grants every turn a whole ``response_length``; an agent loop
  cuts off the surplus after everybody has waited for it.
* A limit that the agent loop sets itself is left alone.
* An answer's ``version_spans`` (:mod:`verl_pipeline.trainer.version_spans`) are those of its whole
  conversation so far, all turns and interrupted attempts, in one list that later turns extend: an
  agent loop that keeps its first turn's ``extra_fields`` has them all at its end. Its
  ``min_global_steps`` and ``max_global_steps`` are their lowest and highest version.
* Each request of a conversation after the first one, be it a turn or an attempt, has a seed of its
  own, if the first has one.
* The trajectory's job (:mod:`verl_pipeline.trainer.stall`) waits in the queue of its server exactly
  while a request is there, and only an answer counts as an end.
"""

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from verl.utils import normalize_token_ids
from verl.workers.rollout.llm_server import FullyAsyncLLMServerClient, LLMServerClient
from verl.workers.rollout.replica import TokenOutput

from verl_pipeline.trainer.stall import current_job
from verl_pipeline.trainer.version_spans import (
    VERSION_SPANS,
    VersionSpan,
    dump_spans,
    join_spans,
    parse_spans,
)
from verl_pipeline.verl_adapter.rollout.request_seeds import renew_seed

# What agent loops call their limit, for vLLM and for SGLang.
_LIMITS = ("max_tokens", "max_new_tokens")

# Version spans of the trajectory on whose behalf code runs, by conversation (``request_id``).
conversation_spans: ContextVar[dict[str, list[list[int]]]] = ContextVar("conversation_spans")


def compute_turn_budget(conversation: int, prompt_length: int, response_length: int) -> int:
    """Tokens that a turn may generate after ``conversation`` tokens; at least 1, as vLLM asks."""
    return max(1, min(response_length, prompt_length + response_length - conversation))


def name_server_queue(server: str) -> str:
    """The queue of requests to one rollout server.

    Args:
        server: its id at verl's load balancer, ``host:port``.
    """
    return f"rollout server {server}"


class _AttemptClient(LLMServerClient):
    """verl's plain client, which notes each answer of a server."""

    async def generate(  # type: ignore[override]
        self,
        request_id: str,
        *,
        attempts: list[TokenOutput],
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        **kwargs: Any,
    ) -> TokenOutput:
        """verl's; the answer is added to ``attempts``."""
        if attempts or request_id in conversation_spans.get({}):
            sampling_params = renew_seed(sampling_params, len(prompt_ids))
        answer = await super().generate(
            request_id, prompt_ids=prompt_ids, sampling_params=sampling_params, **kwargs
        )
        attempts.append(answer)
        return answer


class TurnBudgetClient(FullyAsyncLLMServerClient, _AttemptClient):
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
        # verl's client for interrupted generations asks _AttemptClient once an attempt.
        attempts: list[TokenOutput] = []
        output = await super().generate(
            request_id,
            prompt_ids=prompt_ids,
            sampling_params=sampling_params,
            attempts=attempts,
            **kwargs,
        )
        output.extra_fields |= _describe_versions(request_id, attempts)
        return output

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


def _describe_versions(conversation: str, attempts: Sequence[TokenOutput]) -> dict[str, Any]:
    """``extra_fields`` of a turn that took these attempts; {} if no server told a version."""
    sampled = [span for attempt in attempts for span in _read_spans(attempt)]
    spans = conversation_spans.get({}).setdefault(conversation, [])
    spans[:] = dump_spans(join_spans([*parse_spans(spans), *sampled]))
    if not spans:
        return {}
    versions = [version for version, _tokens in spans]
    return {
        VERSION_SPANS: spans,
        "min_global_steps": min(versions),
        "max_global_steps": max(versions),
    }


def _read_spans(attempt: TokenOutput) -> list[VersionSpan]:
    """Of a server that tells none, its version at the end."""
    fields = attempt.extra_fields
    if VERSION_SPANS in fields:
        return parse_spans(fields[VERSION_SPANS])
    version = fields.get("global_steps")
    return [] if version is None else [VersionSpan(version, len(attempt.token_ids))]
