"""The bill of a run: what every second of each pool went to, and what it would have cost at best.

Invariants:
* Every second of a pool in a window has exactly one name of :data:`.states.STATES`; the seconds sum
  to the window, to the microsecond. Past the barrier those of the rollout pool are the mean of its
  replicas'.
* Every second without work of the pool's own has exactly one cause.
* A figure that cannot be known is None.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow.compute as pc

from verl_pipeline.telemetry.flow_limits import measure_limits
from verl_pipeline.telemetry.parts import BALANCED, Parts, divide_whole, sum_codes
from verl_pipeline.telemetry.records import Pool
from verl_pipeline.telemetry.run_folder import Run
from verl_pipeline.telemetry.states import CAUSES, OWN_WORK, STATES, WORK, code
from verl_pipeline.telemetry.tails import TailPrompt, find_tail_prompts
from verl_pipeline.telemetry.timeline import Timeline, make_timeline

# States of the trainer that nothing overlaps.
SERIAL = ("weight_sync", "switch", "checkpoint", "validate")


@dataclass(frozen=True)
class Bill:
    """What the seconds of one pool went to in one window.

    Attributes:
        step: None: of the whole run.
        start, end: seconds since the epoch.
        seconds: by name (:data:`.states.STATES`), all names of the pool, in their order.
        causes: seconds without work of its own, by cause (:data:`.states.CAUSES`), without zeros.
            Empty for the rewards.
    """

    pool: Pool
    step: int | None
    start: float
    end: float
    seconds: dict[str, float]
    causes: dict[str, float]


@dataclass(frozen=True)
class Efficiency:
    """The step that was measured beside the one of an ideal schedule.

    Attributes:
        steps: how many steps the means are of (see :func:`list_steady_steps`).
        step_s: mean.
        ideal_step_s: mean; see :func:`compute_ideal_step` and, past the barrier,
            :mod:`.flow_limits`.
        efficiency: ``ideal_step_s / step_s``, 0 to 1.
        gpu_seconds_per_trained_token: devices of both pools times the seconds of all steps, over
            the response tokens that were trained; None if there are none.
        bound: ``rollout``, ``training``, ``reward``, ``balanced`` or, past the barrier,
            ``longest``; None without a step.
        tail_prompts: those that were waited for longest, at most :data:`.tails.TAIL_PROMPTS`.
    """

    steps: int
    step_s: float | None
    ideal_step_s: float | None
    efficiency: float | None
    gpu_seconds_per_trained_token: float | None
    bound: str | None
    tail_prompts: list[TailPrompt]


def bill_steps(run: Run) -> list[Bill]:
    """Return a bill of each pool for each complete step, in the order of the steps."""
    timeline = make_timeline(run)
    steps = len(timeline.windows)
    sums = {pool: _sum_by_step(_list_shares(timeline, pool), steps, pool) for pool in Pool}
    return [
        _make_bill(timeline, pool, window, *(part[index] for part in sums[pool]))
        for index, window in enumerate(timeline.windows)
        for pool in Pool
    ]


def bill_run(run: Run) -> list[Bill]:
    """Return a bill of each pool from the run's first start to its end, or its last record."""
    timeline = make_timeline(run)
    window = (None, 0, int(timeline.edges[-1]))
    bills = []
    for pool in Pool:
        shares = [replace(share, steps=share.steps * 0) for share in _list_shares(timeline, pool)]
        seconds, causes = _sum_by_step(shares, 1, pool)
        bills.append(_make_bill(timeline, pool, window, seconds[0], causes[0]))
    return bills


def measure_parts(run: Run) -> list[Parts]:
    """Return what each complete step is made of, in the order of the steps."""
    timeline = make_timeline(run)
    trainer, rollout = timeline.states[Pool.TRAINER], timeline.states[Pool.ROLLOUT]

    def is_in(states: np.ndarray, pool: Pool, *names: str) -> np.ndarray:
        return np.isin(states, [code(pool, name) for name in names])

    trains = is_in(trainer, Pool.TRAINER, *WORK)
    generates = is_in(rollout, Pool.ROLLOUT, "generating", "tail")
    grades = is_in(trainer, Pool.TRAINER, "wait_reward") & ~generates
    serial = is_in(trainer, Pool.TRAINER, *SERIAL) & ~generates
    flags = [
        trains,
        generates,
        is_in(rollout, Pool.ROLLOUT, "tail"),
        grades,
        serial,
        trains | generates | grades | serial,
    ]
    steps = len(timeline.windows)
    sums = [sum_codes(timeline.steps, flag, timeline.lengths, steps, 2)[:, 1] for flag in flags]
    parts = [
        Parts(step, (end - start) / 1e6, *(float(column[index]) / 1e6 for column in sums))
        for index, (step, start, end) in enumerate(timeline.windows)
    ]
    if not run.header.flows:
        return parts
    bills = {(bill.step, bill.pool): bill.seconds for bill in bill_steps(run)}
    return [
        _measure_flow(part, bills[part.step, Pool.TRAINER], bills[part.step, Pool.ROLLOUT])
        for part in parts
    ]


def _measure_flow(part: Parts, trainer: dict[str, float], rollout: dict[str, float]) -> Parts:
    tail = rollout["tail"] + rollout["draining"]
    return replace(
        part,
        generate_s=rollout["generating"] + tail,
        tail_s=tail,
        reward_s=trainer["wait_reward"],
        serial_s=sum(trainer[name] for name in SERIAL if name != "weight_sync"),
        publish_s=trainer["weight_sync"],
    )


def list_steady_steps(run: Run) -> list[Parts]:
    """Return the parts of the steps in which the pipeline is full.

    Left out are the first step of each start of the run (nothing was sampled ahead), past the
    barrier the steps of all batches that it began with, and, where batches are sampled ahead, the
    run's last ones (nothing is left to submit). If no step remains, all are returned.
    """
    parts = measure_parts(run)
    left_out = {
        header.first_step + ahead
        for header in run.headers
        for ahead in range(1 + header.flows * (header.staleness or 0))
    }
    if is_overlapped(run):
        last = run.header.last_step
        left_out |= set(range(last, last - (run.header.staleness or 1), -1))
    return [part for part in parts if part.step not in left_out] or parts


def is_overlapped(run: Run) -> bool:
    """Whether the run's schedule trains on a batch while it generates another."""
    if run.header.mode == "one_off_pipeline":
        return bool(run.header.staleness)
    return not run.header.shares_devices


def compute_ideal_step(part: Parts, is_overlapped: bool) -> float:
    """Return the seconds that a step of the same parts takes if nobody waits without need.

    Overlapped (staleness 1, or verl's ``separate_async``): ``serial + max(train, generate +
    reward)``. Training on a batch needs it generated and graded, and the next batch is generated
    meanwhile; nothing overlaps a weight sync, a checkpoint or a validation. Otherwise (staleness 0,
    ``sync``, ``colocate_async``): the parts one after another, less what did overlap. Source: the
    events of ``trainer/schedule.py`` and of verl's trainers (``docs/schedule/modes.md``).

    It never exceeds ``step_s``: the parts of one pool exclude each other.
    """
    if is_overlapped:
        return part.serial_s + max(part.train_s, part.generate_s + part.reward_s)
    return part.busy_s


def find_bound(parts: list[Parts], is_overlapped: bool) -> str:
    """Return what a step's length hangs on: ``rollout``, ``training``, ``reward``, ``balanced``.

    Overlapped: ``balanced`` if training and generating with grading differ by less than
    :data:`BALANCED` of the longer one; ``training`` if that is longer; otherwise ``reward`` if the
    trainer waits longer for rewards than for generation, else ``rollout``. Otherwise, the longest
    of the three parts, or ``balanced`` if the two longest differ by less than :data:`BALANCED`.
    """
    train, generate, reward = (
        float(np.mean([getattr(part, name) for part in parts]))
        for name in ("train_s", "generate_s", "reward_s")
    )
    if not is_overlapped:
        named = [(train, "training"), (generate, "rollout"), (reward, "reward")]
        (second, _), (longest, name) = sorted(named)[1:]
        return "balanced" if longest - second <= BALANCED * longest else name
    ahead = generate + reward
    if abs(train - ahead) <= BALANCED * max(train, ahead):
        return "balanced"
    if train > ahead:
        return "training"
    return "reward" if reward > max(generate - train, 0.0) else "rollout"


def measure_efficiency(run: Run) -> Efficiency:
    """Return the run's efficiency against the ideal schedule of the same mode and devices."""
    steady, overlaps = list_steady_steps(run), is_overlapped(run)
    header = run.header
    trained = run.trajectories.filter(run.trajectories["trained"].is_valid())
    tokens = pc.sum(trained["response_tokens"]).as_py() or 0
    devices = header.trainer_devices
    devices += 0 if header.shares_devices else header.rollout_devices
    seconds = sum(part.step_s for part in measure_parts(run))
    step_s = float(np.mean([part.step_s for part in steady])) if steady else None
    ideal_s = bound = None
    if steady and step_s is not None and header.flows:
        limits = measure_limits(run, steady)
        ideal_s, bound = min(limits.step_s, step_s), limits.bound
    elif steady:
        ideal_s = float(np.mean([compute_ideal_step(part, overlaps) for part in steady]))
        bound = find_bound(steady, overlaps)
    return Efficiency(
        steps=len(steady),
        step_s=step_s,
        ideal_step_s=ideal_s,
        efficiency=ideal_s / step_s if step_s and ideal_s is not None else None,
        gpu_seconds_per_trained_token=devices * seconds / tokens if tokens > 0 else None,
        bound=bound,
        tail_prompts=find_tail_prompts(run),
    )


@dataclass(frozen=True)
class _Share:
    """Codes of states and causes of the whole pool, or of one of its replicas; int64 [parts]."""

    steps: np.ndarray
    lengths: np.ndarray
    states: np.ndarray
    causes: np.ndarray | None


def _list_shares(timeline: Timeline, pool: Pool) -> list[_Share]:
    if pool == Pool.ROLLOUT and timeline.replicas:
        return [
            _Share(replica.steps, replica.lengths, replica.states, replica.causes)
            for replica in timeline.replicas
        ]
    states, causes = timeline.states[pool], timeline.causes.get(pool)
    return [_Share(timeline.steps, timeline.lengths, states, causes)]


def _sum_by_step(shares: list[_Share], steps: int, pool: Pool) -> tuple[np.ndarray, np.ndarray]:
    """Return microseconds of the states [steps, states] and causes [steps, causes]; of several
    shares the mean, rounded such that both sums stay whole."""
    names = list(STATES[pool])

    def add(column: str, size: int) -> np.ndarray:
        parts = ((share.steps, getattr(share, column), share.lengths) for share in shares)
        return sum(sum_codes(*part, steps, size) for part in parts)  # type: ignore[return-value]

    states = add("states", len(names))
    whole = states.sum(axis=1) // len(shares)
    seconds = divide_whole(states, len(shares), whole)
    if shares[0].causes is None:
        return seconds, np.zeros((steps, 0))
    work = [names.index(name) for name in OWN_WORK[pool]]
    lost = whole - seconds[:, work].sum(axis=1)
    return seconds, divide_whole(add("causes", len(CAUSES)), len(shares), lost)


def _make_bill(
    timeline: Timeline,
    pool: Pool,
    window: tuple[int | None, int, int],
    sums: np.ndarray,
    causes: np.ndarray,
) -> Bill:
    step, start, end = window
    return Bill(
        pool=pool,
        step=step,
        start=timeline.origin + start / 1e6,
        end=timeline.origin + end / 1e6,
        seconds=dict(zip(STATES[pool], (sums / 1e6).tolist(), strict=True)),
        causes={
            name: us / 1e6 for name, us in zip(CAUSES, causes.tolist(), strict=False) if us > 0
        },
    )
