"""The life of each trajectory, recorded in the agent loop worker that runs it.

Invariants:
* The agent loops, their rewards and their errors stay as they are: what is recorded is read, never
  changed.
* A trajectory has one ``started`` and at most one of each later moment; ``failed`` is the last.
  Only past the barrier, where it may have to wait for its place, does it have ``begun``; it has
  another one, which counts, when its replica was lost and it begins again.
* In verl's modes the tag of a stored trajectory gets ``generated_at`` (seconds since the epoch), as
  our own agent loops set it.
"""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import ray
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ

from verl_pipeline.telemetry.recorder import open_recorder
from verl_pipeline.telemetry.records import Moment, TrajectoryEvent
from verl_pipeline.telemetry.span_text import format_spans
from verl_pipeline.trainer.pipeline_config import TRAINER_MODE
from verl_pipeline.trainer.version_spans import VERSION_SPANS, parse_spans
from verl_pipeline.verl_adapter.telemetry.agent_loop_calls import REPLICA_LANES
from verl_pipeline.verl_adapter.telemetry.first_tokens import note_first_tokens
from verl_pipeline.verl_adapter.telemetry.reward_lanes import WatchedHandles, name_lane
from verl_pipeline.verl_adapter.telemetry.run_target import make_target
from verl_pipeline.verl_adapter.trajectories.trajectory_store import TRAIN, put_outcomes

MAX_REASON_CHARACTERS = 200
# verl's class is a Ray actor class already; this is the plain class inside it.
_AgentLoopWorker = AgentLoopWorkerTQ.__ray_metadata__.modified_class


@dataclass
class _Life:
    """The trajectory that the current task runs.

    Attributes:
        replica: lane of the replica that sampled it last.
        reward_worker: lane of the reward worker that it went to last.
        first_token, generated_at: on this process's clock.
    """

    prompt: str
    session: int
    batch: int | None
    is_validation: bool
    replica: str | None = None
    reward_worker: str | None = None
    first_token: float | None = None
    generated_at: float | None = None


_current_life: ContextVar[_Life | None] = ContextVar("life of the trajectory", default=None)


class _RecordingLoops:
    """Goes before a class of agent loop workers (:func:`record_worker`)."""

    config: Any
    llm_client: Any

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        target = make_target(self.config)
        self._has_batches = target.header.mode == TRAINER_MODE
        self._response_length = self.config.actor_rollout_ref.rollout.response_length
        self._recorder = open_recorder(target, "agent_loop")
        _note_servers(self.llm_client)
        note_first_tokens(self.llm_client, self._note_first_token)
        if target.header.flows:
            self._note_places(self.llm_client)

    def _note_places(self, client: Any) -> None:
        """Let this worker's client record when a trajectory has its place on a replica."""
        hold = client.hold_place

        @asynccontextmanager
        async def hold_place(*trajectory: Any) -> AsyncIterator[str]:
            async with hold(*trajectory) as server:
                if life := _current_life.get():
                    life.replica = _find_lane(client, server)
                self._add(Moment.BEGUN)
                yield server

        client.hold_place = hold_place

    @property
    def reward_loop_worker_handles(self) -> list[Any] | None:
        """verl's; None if rewards come later."""
        return self._reward_workers

    @reward_loop_worker_handles.setter
    def reward_loop_worker_handles(self, handles: list[Any] | None) -> None:
        watched = None if handles is None else WatchedHandles(handles, _note_reward_worker)
        self._reward_workers = watched

    def _note_first_token(self, age: float) -> None:
        if (life := _current_life.get()) and life.first_token is None:
            life.first_token = self._recorder.now() - age

    async def _run_agent_loop(self, sampling_params, *, trajectory, session_id, uid, **kwargs):
        batch = int(trajectory["step"]) if self._has_batches else None
        is_validation = bool(trajectory["validate"])
        life = _Life(uid, int(session_id), None if is_validation else batch, is_validation)
        _current_life.set(life)  # verl runs each trajectory in a task of its own
        self._add(Moment.STARTED)
        try:
            return await super()._run_agent_loop(  # type: ignore[misc]
                sampling_params, trajectory=trajectory, session_id=session_id, uid=uid, **kwargs
            )
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            self._add(Moment.FAILED, reason=reason[:MAX_REASON_CHARACTERS])
            raise

    async def _compute_score(self, outputs, kwargs) -> None:
        final = outputs[-1]
        with self._recorder.survive("generated trajectories"):
            self._add_generated(outputs)
        await super()._compute_score(outputs, kwargs)  # type: ignore[misc]
        if final.reward_score is not None or self.reward_loop_worker_handles is not None:
            with self._recorder.survive("graded trajectories"):
                self._add_graded(final)

    def _add_generated(self, outputs: list[Any]) -> None:
        extra = outputs[-1].extra_fields
        spans = parse_spans(extra.get(VERSION_SPANS))
        life = _current_life.get()
        if life is None:
            return
        life.generated_at = self._recorder.now()
        self._add(
            Moment.GENERATED,
            first_version=outputs[0].extra_fields.get("min_global_steps"),
            last_version=extra.get("max_global_steps"),
            prompt_tokens=len(outputs[0].prompt_ids),
            response_tokens=sum(len(output.response_ids) for output in outputs),
            first_token=life.first_token,
            limit=extra.get("max_tokens") or self._response_length,
            version_spans=format_spans(spans) if len(spans) > 1 else None,
        )

    def _add_graded(self, final: Any) -> None:
        report = final.extra_fields.get("reward_extra_info")
        report = report if isinstance(report, dict) else {}
        try:
            reward = float(final.reward_score)
        except (TypeError, ValueError):
            reward = math.nan
        self._add(
            Moment.GRADED,
            reward=reward if math.isfinite(reward) else None,
            verdict=_shorten(report.get("verdict")),
            reason=_shorten(report.get("reason")),
            reward_worker=life.reward_worker if (life := _current_life.get()) else None,
        )

    def _add(self, moment: Moment, **fields: Any) -> None:
        life = _current_life.get()
        if life is None:
            return
        self._recorder.add(
            TrajectoryEvent(
                moment,
                self._recorder.now(),
                life.prompt,
                session=life.session,
                batch=life.batch,
                is_validation=life.is_validation,
                replica=life.replica if moment is not Moment.STARTED else None,
                **fields,
            )
        )


def _shorten(value: Any) -> str | None:
    return None if value is None else str(value).partition("\n")[0][:MAX_REASON_CHARACTERS]


def _note_reward_worker(place: int) -> None:
    if life := _current_life.get():
        life.reward_worker = name_lane(place)


def _find_lane(client: Any, server: str) -> str:
    """Of a server; one that started after the run did is known to the client only."""
    lanes = getattr(client, REPLICA_LANES, {})
    name_lane = getattr(client, "name_lane", None)
    return lanes.get(server) or (name_lane(server) if name_lane else server)


def _note_servers(client: Any) -> None:
    """Let this worker's client note the server of each request in the life that asks for it."""
    acquire = getattr(client, "_acquire_server", None)
    if acquire is None:  # another client than verl's
        return

    async def acquire_server(request_id: str, **extra: Any) -> tuple[str, Any]:
        server, handle = await acquire(request_id, **extra)
        if life := _current_life.get():
            life.replica = _find_lane(client, server)
        return server, handle

    client._acquire_server = acquire_server


def record_worker(worker_class: type) -> type:
    """``worker_class`` with its trajectories recorded."""
    return type(f"Recording{worker_class.__name__}", (_RecordingLoops, worker_class), {})


class _TimedWorker(_AgentLoopWorker):  # type: ignore[valid-type,misc]
    """verl's worker, whose stored trajectories tell when they were generated."""

    async def _agent_loop_postprocess(self, output, validate, **kwargs) -> None:
        await super()._agent_loop_postprocess(output, validate, **kwargs)
        life = _current_life.get()
        if validate or life is None or life.generated_at is None:
            return
        last = len(output) - 1 if isinstance(output, list) else 0
        with self._recorder.survive("the times of stored trajectories"):
            key = f"{kwargs['uid']}_{kwargs['session_id']}_{last}"
            await put_outcomes([key], TRAIN, [{"generated_at": life.generated_at}])


class RecordingManager(AgentLoopManagerTQ):
    """verl's agent loop manager with workers that record their trajectories."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(record_worker(_TimedWorker))
