"""Any of verl's trainers, or ours, with what its driver does recorded: :func:`record_trainer`.

Invariants:
* The trainer's own methods run as they are; this class goes before them and adds nothing to their
  arguments or results.
* Spans of the driver lie inside one another or apart. From the first step on, the spans ``step``
  follow each other without a gap.
* Importing this module imports nothing of verl's trainers: theirs register ours.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from transfer_queue import KVBatchMeta

from verl_pipeline.telemetry.recorder import Recorder, open_recorder
from verl_pipeline.telemetry.records import Moment, Pool, Span, TrajectoryEvent
from verl_pipeline.telemetry.step_line import compute_step_metrics, describe_step
from verl_pipeline.trainer.pipeline_config import TRAINER_MODE
from verl_pipeline.trainer.trajectory_keys import parse_prompt, parse_session
from verl_pipeline.verl_adapter.telemetry.agent_loop_calls import REPLICA_LANES, RecordedManager
from verl_pipeline.verl_adapter.telemetry.driver_spans import DRIVER, DriverSpans
from verl_pipeline.verl_adapter.telemetry.recording_processes import (
    REWARD,
    ProcessClocks,
    flush_processes,
)
from verl_pipeline.verl_adapter.telemetry.replica_gauges import ReplicaGauges
from verl_pipeline.verl_adapter.telemetry.run_target import describe_settings, make_target
from verl_pipeline.verl_adapter.telemetry.step_log import StepLog
from verl_pipeline.verl_adapter.telemetry.step_texts import choose_keys, read_texts

# Steps over which the time of those to come is estimated.
_RECENT_STEPS = 10


class _RecordingTrainer(DriverSpans):
    """Goes before a trainer class; see :func:`record_trainer`."""

    # Of verl's trainer.
    actor_rollout_wg: Any
    reward_loop_manager: Any
    role_worker_mapping: dict[Any, Any]
    tokenizer: Any
    total_training_steps: int

    def __init__(self, config: Any):
        super().__init__(config)  # type: ignore[call-arg]
        self._prepare_recording()

    def _prepare_recording(self) -> None:
        target = make_target(self.config)
        # Of a trainer of ours that has to call itself by one of verl's modes.
        mode = getattr(self, "own_mode", target.header.mode)
        self._run_target = replace(target, header=replace(target.header, mode=mode))
        self._recorder = open_recorder(self._run_target, DRIVER)
        self._has_batches = self._run_target.header.mode == TRAINER_MODE
        self._run_started = self._step_began = self._recorder.now()
        self._gauges: ReplicaGauges | None = None
        self._clocks = ProcessClocks(self._recorder, self._list_processes)
        self._agent_loops: list[Any] = []
        self._step_spans: list[Span] = []
        self._step_seconds: list[float] = []
        self._trained: set[tuple[str, int]] = set()
        self._batch_tags: list[dict] = []
        self._has_begun = self._is_stepping = False

    # ---- start and end -----------------------------------------------------------------------

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()  # type: ignore[misc]
        if self._recorder.is_on:
            from verl_pipeline.verl_adapter.telemetry.trainer_ranks import record_ranks

            record_ranks(self.role_worker_mapping, self._run_target)

    def get_llm_client(self) -> Any:
        client = super().get_llm_client()  # type: ignore[misc]
        setattr(client, REPLICA_LANES, {at: lane for lane, at in self._find_replicas().items()})
        return client

    def fit(self, agent_loop_manager: Any) -> None:
        if not self._recorder.is_on:
            super().fit(agent_loop_manager)  # type: ignore[misc]
            return
        self._agent_loops = list(getattr(agent_loop_manager, "agent_loop_workers", []))
        self._add_header()
        self._gauges = ReplicaGauges(self._recorder, self._find_replicas())
        self._clocks.sample_first()
        self._gauges.start()
        detail = {}
        try:
            super().fit(  # type: ignore[misc]
                RecordedManager(agent_loop_manager, self._recorder, self._has_batches)
            )
            for actors in self._list_processes().values():
                flush_processes(actors)
        except BaseException as error:
            detail = {"error": f"{type(error).__name__}: {error}".partition("\n")[0][:500]}
            raise
        finally:
            self._gauges.stop()
            self._clocks.stop()
            now = self._recorder.now()
            self._recorder.add(Span(Pool.TRAINER, DRIVER, "end", now, now, detail=detail))
            self._recorder.close()

    def _add_header(self) -> None:
        header = replace(
            self._run_target.header,
            first_step=self.global_steps + 1,
            last_step=self._find_last_step(),
            replicas=len(self._find_replicas()),
            settings=describe_settings(self.config),
        )
        self._recorder.add_header(header)

    def _find_last_step(self) -> int:
        return int(getattr(self, "last_step", None) or self.total_training_steps)

    def _list_processes(self) -> dict[str, list[Any]]:
        managers = self._rollout_server_managers() if self._run_target.header.flows else []
        return {
            "agent_loop": self._agent_loops,
            "trainer": list(self.actor_rollout_wg.workers),
            REWARD: list(self.reward_loop_manager.reward_loop_workers),
            "dispatcher": [manager.global_load_balancer for manager in managers],
        }

    def on_train_begin(self) -> None:
        super().on_train_begin()  # type: ignore[misc]
        self._has_begun = True
        now = self._recorder.now()
        self._recorder.add(Span(Pool.TRAINER, DRIVER, "start", self._run_started, now))
        self._step_began = now
        if self._gauges is not None:
            self._gauges.take_busy_time()

    def step(self, metrics: dict, timing_raw: dict) -> KVBatchMeta:
        self._trained.clear()
        self._batch_tags = []
        self._is_stepping = True
        batch = super().step(metrics, timing_raw)  # type: ignore[misc]
        with self._recorder.survive("the trained trajectories of a step"):
            self._add_moments(Moment.TRAINED, self._trained)
        return batch

    # ---- trajectories ------------------------------------------------------------------------

    def _balance_batch(self, batch: KVBatchMeta, metrics: dict, *args: Any, **kwargs: Any) -> Any:
        sampled = _list_sessions(batch)
        self._batch_tags += batch.tags
        left: set[tuple[str, int]] = set()
        try:
            batch = super()._balance_batch(batch, metrics, *args, **kwargs)  # type: ignore[misc]
            left = _list_sessions(batch)
        finally:
            with self._recorder.survive("the filtered trajectories of a step"):
                self._add_moments(Moment.FILTERED, sampled - left)
            self._trained |= left
        return batch

    def _add_moments(self, moment: Moment, sessions: set[tuple[str, int]]) -> None:
        step = self.global_steps
        add_moments(
            self._recorder,
            moment,
            sessions,
            step=step,
            batch=step if self._has_batches else None,
            reasons=getattr(self, "filter_reasons", {}),
        )

    # ---- end of a step -----------------------------------------------------------------------

    def _compute_metrics(
        self, batch: KVBatchMeta, metrics: dict, *args: Any, **kwargs: Any
    ) -> None:
        super()._compute_metrics(batch, metrics, *args, **kwargs)  # type: ignore[misc]
        if self._recorder.is_on:
            with self._recorder.survive("the texts of a step"):
                rows = choose_keys(batch, self._run_target.texts_per_step)
                for text in read_texts(batch, rows, self.global_steps, self.tokenizer):
                    self._recorder.add(text)

    @property
    def logger(self) -> Any:
        """verl's trackers; set by verl."""
        return self._step_log

    @logger.setter
    def logger(self, tracking: Any) -> None:
        self._step_log = tracking
        if self._recorder.is_on:
            self._step_log = StepLog(tracking, self._recorder, self._complete_step)

    def _complete_step(self, metrics: dict[str, Any], step: int) -> str | None:
        """End the span of a step whose metrics are about to be logged; the step's line."""
        if not self._is_stepping:
            return None
        self._is_stepping = False
        now, began = self._recorder.now(), self._step_began
        metrics |= compute_step_metrics(
            self._step_spans,
            began,
            now,
            rollout_busy=self._gauges.take_busy_time().share if self._gauges else None,
            generated_at=[tag["generated_at"] for tag in self._batch_tags if "generated_at" in tag],
            tokens=sum(tag.get("response_len", 0) for tag in self._batch_tags),
        )
        self._recorder.add(Span(Pool.TRAINER, DRIVER, "step", began, now, step))
        self._step_spans, self._step_began = [], now
        self._clocks.sample_again()
        self._step_seconds = [*self._step_seconds, now - began][-_RECENT_STEPS:]
        last = self._find_last_step()
        mean = math.fsum(self._step_seconds) / len(self._step_seconds)
        return describe_step(step, last, now - began, metrics, mean * (last - step))


def _list_sessions(batch: KVBatchMeta) -> set[tuple[str, int]]:
    """Prompt and session of the rows that are no padding."""
    return {
        (parse_prompt(key), parse_session(key))
        for key, tag in zip(batch.keys, batch.tags, strict=True)
        if not tag.get("is_padding", False)
    }


def add_moments(
    recorder: Recorder,
    moment: Moment,
    sessions: set[tuple[str, int]],
    *,
    step: int,
    batch: int | None,
    reasons: Mapping[tuple[str, int], str],
) -> None:
    """Record what happens to trajectories, each a prompt and a session, in a step.

    Args:
        reasons: changed by nobody from now on.
    """
    now, told = recorder.now(), frozenset(sessions)

    def make_events() -> Iterator[TrajectoryEvent]:
        for prompt, session in sorted(told):
            reason = reasons.get((prompt, session))
            yield TrajectoryEvent(
                moment, now, prompt, session, batch=batch, step=step, reason=reason
            )

    recorder.add_many(TrajectoryEvent, make_events)


def record_trainer(trainer_class: Any) -> Any:
    """``trainer_class`` with what its driver does recorded, under the same name."""
    if issubclass(trainer_class, _RecordingTrainer):
        return trainer_class
    names = ("__module__", "__qualname__", "__doc__")
    kept = {name: getattr(trainer_class, name) for name in names}
    return type(trainer_class.__name__, (_RecordingTrainer, trainer_class), kept)
