"""What a run writes down about itself, one JSON object a line, appended as the run goes.

    RUN/telemetry/run-<process>.jsonl            Header, then one ClockSample now and then
    RUN/telemetry/spans-<process>.jsonl          Span
    RUN/telemetry/gauges-<process>.jsonl         Gauge
    RUN/telemetry/trajectories-<process>.jsonl   TrajectoryEvent
    RUN/telemetry/steps-<process>.jsonl          StepRecord
    RUN/telemetry/texts-<process>.jsonl.gz       Text, one gzip member an append
    RUN/telemetry/problems-<process>.jsonl       Problem

``<process>`` is ``<role>-<host>-<pid>-<start in ms>``, so that no two processes, nor two starts of
a run, write into one file.

Invariants:
* A line is whole or it is the last one of its file: writers append whole lines; readers leave out
  a broken one and count it.
* Times are seconds since the epoch on the clock of the process that wrote them, which moves with
  the monotonic clock from one reading of the wall clock: a wall clock that jumps moves nothing.
  ``ClockSample.offset_s`` brings them onto the driver's clock.
* A field that is not known is null or left out, never a number that stands for it. Lines leave out
  null and empty fields.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from verl_pipeline.trainer.schedule import DRAINED, IN_FLIGHT, ROLLING

FORMAT = 1
FOLDER = "telemetry"


class Pool(StrEnum):
    """Who spends time."""

    TRAINER = "trainer"
    ROLLOUT = "rollout"
    REWARD = "reward"


@dataclass(frozen=True)
class Header:
    """What the files of one process belong to.

    Attributes:
        format: :data:`FORMAT`.
        role: ``driver``, ``trainer``, ``agent_loop``, ``reward`` or ``dispatcher``.
        started: see the module's times.
        mode: ``trainer.v1.trainer_mode``.
        staleness: of ours; None in verl's modes.
        trainer_devices, rollout_devices: sizes of the pools; equal to each other where they share
            their devices.
        shares_devices: whether they do (verl's ``sync`` and ``colocate_async``).
        replicas: number of rollout replicas.
        slots: sequences that a replica runs at once (``max_num_seqs``); past the barrier the
            trajectories that it may have open.
        group_size: ``rollout.n``.
        batch_size: prompts a step.
        last_step: the step that the run ends with.
        first_step: the first one of this start of the run.
        versions: of verl, verl-pipeline, vllm, torch, ray, python.
        settings: verl's configuration, resolved.
        weight_sync_mode: of ours; None in verl's modes, and in runs from before there were others
            than ``drained``.
        auto_staleness: whether the run chooses between steps, up to ``staleness``.
    """

    format: int
    role: str
    host: str
    pid: int
    started: float
    run_name: str
    mode: str
    staleness: int | None
    trainer_devices: int
    rollout_devices: int
    shares_devices: bool
    replicas: int
    slots: int | None
    group_size: int
    batch_size: int
    first_step: int
    last_step: int
    versions: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    weight_sync_mode: str | None = None
    auto_staleness: bool = False

    @property
    def flows(self) -> bool:
        """Whether each replica begins and loads by itself: no barrier before new weights."""
        return self.weight_sync_mode in (ROLLING, IN_FLIGHT) and bool(self.staleness)

    @property
    def schedule(self) -> str:
        """What the run's schedule is called, as ``one_off_pipeline, rolling, staleness 2``."""
        if self.staleness is None:
            return self.mode
        auto = "auto, at most " if self.auto_staleness else ""
        return f"{self.mode}, {self.weight_sync_mode or DRAINED}, staleness {auto}{self.staleness}"


@dataclass(frozen=True)
class ClockSample:
    """This process's clock against the driver's.

    Attributes:
        t: when, on this process's clock.
        offset_s: to be added to this process's times.
        error_s: half of the round trip, by which the offset may be wrong.
    """

    t: float
    offset_s: float
    error_s: float


@dataclass(frozen=True)
class Span:
    """Something that took time.

    Attributes:
        pool: see :class:`Pool`.
        lane: ``driver``, ``rank 0``, ``critic rank 0``, ``replica 1``, ``reward worker 3``.
        name: what, in the names that verl's ``timing_s`` has (``old_log_prob``, ``ref``,
            ``values``, ``adv``, ``update_critic``, ``update_actor``, ``update_weights``,
            ``save_checkpoint``, ``testing``, ``reward``), and ours: ``wait_rollout`` (for
            generation and rewards), ``pause_rollout`` (replicas stop, or sleep, before an update on
            their devices), ``wait_data``, ``start`` (until the first step), ``step`` (they follow
            each other without a gap), ``end`` (empty; ``detail.error`` if the run failed).
            Past the barrier ``update_weights`` is the trainer's publication, and ``load_weights``,
            on a replica's lane, a replica's load (``detail.version`` of both); ``lost`` (empty) is
            there where the replica was taken out (``detail.seen``, ``detail.trajectories``).
        start, end: spans of a lane lie inside one another or apart.
        step: the step that the driver was in; None before the first.
        batch: the batch it is about, if it is about one.
        detail: what else is to be shown.
    """

    pool: Pool
    lane: str
    name: str
    start: float
    end: float
    step: int | None = None
    batch: int | None = None
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Gauge:
    """A replica's own statistics at one moment; totals count from the engine's start.

    Attributes:
        lane: ``replica 0``.
        running, waiting: requests.
        kv_share: of the KV cache that is in use, 0 to 1.
        generated_tokens, prompt_tokens, preemptions, prefix_hits, prefix_queries: totals.
    """

    lane: str
    t: float
    running: float | None = None
    waiting: float | None = None
    kv_share: float | None = None
    generated_tokens: float | None = None
    prompt_tokens: float | None = None
    preemptions: float | None = None
    prefix_hits: float | None = None
    prefix_queries: float | None = None


class Moment(StrEnum):
    """Moments in the life of a prompt and of its trajectories, in this order."""

    SUBMITTED = "submitted"  # the prompt, to the agent loops
    STARTED = "started"  # an agent loop has the trajectory; past the barrier it asks for a place
    BEGUN = "begun"  # past the barrier: it has its place on a replica
    GENERATED = "generated"
    GRADED = "graded"
    FAILED = "failed"  # by infrastructure
    FILTERED = "filtered"  # left the batch
    TRAINED = "trained"


@dataclass(frozen=True)
class TrajectoryEvent:
    """A moment in the life of a trajectory, or of a prompt (``session`` is null).

    Attributes:
        moment: see :class:`Moment`.
        t: when.
        prompt: the prompt's uid.
        session: the trajectory's place in its group, from 0.
        batch: the batch (= the step) that it is for; None in a validation or where the mode has no
            batches beforehand.
        step: the step that trained or filtered it.
        is_validation: it is part of a validation.
        replica: lane of the replica that sampled it (the last one).
        reward_worker: lane of the reward worker that graded it (the last one).
        first_version, last_version: weight versions of its oldest and its newest token.
        version_spans: tokens by weight version, in their order, as ``3:120 4:55``, where there are
            several versions (:mod:`verl_pipeline.telemetry.span_text`).
        prompt_tokens, response_tokens: lengths.
        first_token: time of the first token; None if the engine does not tell it.
        limit: tokens that the response was allowed.
        reward: None where grading failed.
        verdict, reason: of the grader; of the failure; of the filter.
        row: place of the prompt in the data set.
    """

    moment: Moment
    t: float
    prompt: str
    session: int | None = None
    batch: int | None = None
    step: int | None = None
    is_validation: bool = False
    replica: str | None = None
    first_version: int | None = None
    last_version: int | None = None
    prompt_tokens: int | None = None
    response_tokens: int | None = None
    first_token: float | None = None
    limit: int | None = None
    reward: float | None = None
    verdict: str | None = None
    reason: str | None = None
    row: int | None = None
    version_spans: str | None = None
    reward_worker: str | None = None


@dataclass(frozen=True)
class StepRecord:
    """What the trackers got at the end of a step.

    Attributes:
        metrics: by name, numbers only.
    """

    t: float
    step: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Text:
    """What a trajectory said.

    Attributes:
        token_versions: ``[[version, tokens], ...]`` in the order of the response.
    """

    prompt: str
    session: int
    step: int
    prompt_text: str
    response_text: str
    ground_truth: str | None = None
    token_versions: list[list[int]] | None = None


@dataclass(frozen=True)
class Problem:
    """Why records are missing.

    Attributes:
        text: a sentence without its full stop.
    """

    t: float
    text: str
