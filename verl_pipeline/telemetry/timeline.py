"""Gives every moment of each pool its state: the part of the accounting that looks at records.

Invariants:
* The edges cut the run's window into parts within which no state changes; each part has one state
  of each pool, and one cause or none.
* The trainer's states come from the driver's spans, the rollout pool's and the rewards' from the
  trajectories; past the barrier each replica has states of its own (:mod:`.replica_states`).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow.compute as pc

from verl_pipeline.telemetry.causes import find_causes
from verl_pipeline.telemetry.in_flight import (
    Intervals,
    Lives,
    count_over,
    find_peaks,
    list_lives,
    to_microseconds,
)
from verl_pipeline.telemetry.records import Pool
from verl_pipeline.telemetry.replica_states import Background, ReplicaTime, find_replica_times
from verl_pipeline.telemetry.run_folder import Run
from verl_pipeline.telemetry.states import STATES, WORK, code
from verl_pipeline.telemetry.trainer_states import DriverSpans, find_trainer_states, slice_parts

# More places than any pool has, and few enough for an array's integers.
_MANY = 1 << 40


@dataclass(frozen=True)
class Timeline:
    """States over time; arrays are [parts].

    Attributes:
        origin: seconds since the epoch of the first edge.
        edges: int64 us [parts + 1].
        steps: int64, index of the step's window, or -1.
        windows: (step, start us, end us), ascending in time.
        states: by pool, int64 codes. Past the barrier those of the rollout pool say what it does
            as a whole; its bill is made of ``replicas``.
        causes: of the trainer and the rollout pool, int64 codes, -1 where the pool works.
        lives: the trajectories.
        replicas: past the barrier, what each replica does; else empty.
    """

    origin: float
    edges: np.ndarray
    steps: np.ndarray
    windows: list[tuple[int, int, int]]
    states: dict[Pool, np.ndarray]
    causes: dict[Pool, np.ndarray]
    lives: Lives
    replicas: list[ReplicaTime]

    @property
    def lengths(self) -> np.ndarray:
        """Of the parts; int64 us."""
        return np.diff(self.edges)


@lru_cache(maxsize=2)
def make_timeline(run: Run) -> Timeline:
    """Return the states of all pools from the run's first start to its end, or its last record."""
    periods = list_periods(run)
    origin, last = periods[0][0], periods[-1][1]
    bounds = to_microseconds(np.array(periods), origin)
    flows = run.header.flows
    lives = list_lives(run.trajectories, periods, flows)
    driver = DriverSpans.read(run, origin, last)
    windows = _list_windows(run, periods)
    grading = _list_grading(run, lives, origin, last)
    cuts = [lives.starts, lives.ends, driver.starts, driver.ends, bounds.ravel(), *grading]
    cuts += [np.array([edge for _, *pair in windows for edge in pair], np.int64)]
    submitted = _list_submissions(run, origin, last)
    edges = np.unique(np.concatenate([*cuts, submitted]))
    steps = np.full(len(edges) - 1, -1)
    for index, (_, start, end) in enumerate(windows):
        steps[slice_parts(edges, start, end)] = index
    trainer, waits = find_trainer_states(edges, driver, bounds, windows, lives, flows)
    is_grading = count_over(edges, *grading) > 0
    rollout, is_slow = _find_rollout_states(run, edges, lives, trainer, submitted)
    # Whatever batch it is for: nothing is being generated, and something is being graded.
    is_waiting = trainer == code(Pool.TRAINER, "wait_rollout")
    is_waiting &= np.isin(rollout, [code(Pool.ROLLOUT, name) for name in ("wait_trainer", "idle")])
    is_waiting &= not flows  # where it waits for its own batch, whatever the others do
    trainer[is_waiting & is_grading] = code(Pool.TRAINER, "wait_reward")
    for (_, end), (begin, _) in zip(bounds[:-1], bounds[1:], strict=True):
        down = slice_parts(edges, end, begin)
        trainer[down], rollout[down] = code(Pool.TRAINER, "down"), code(Pool.ROLLOUT, "down")
        is_grading[down] = False
    states = {
        Pool.TRAINER: trainer,
        Pool.ROLLOUT: rollout,
        Pool.REWARD: np.where(is_grading, code(Pool.REWARD, "busy"), code(Pool.REWARD, "idle")),
    }
    causes = find_causes(trainer, rollout, is_slow, is_grading, waits if flows else None)
    replicas = []
    if flows:
        background = Background(edges, steps, trainer, causes[Pool.TRAINER])
        replicas = find_replica_times(run, origin, bounds, lives, background)
    return Timeline(origin, edges, steps, windows, states, causes, lives, replicas)


def list_periods(run: Run) -> list[tuple[float, float]]:
    """Return (begin, end) of each start of the run; a start ends with its last record."""
    starts = [header.started for header in run.headers]
    moments = ("submitted", "started", "begun", "generated", "graded", "trained")
    columns = [run.spans["end"], run.gauges["t"], *(run.trajectories[m] for m in moments)]
    times = np.concatenate([pc.drop_null(column).to_numpy() for column in columns])
    periods = []
    for start, following in zip(starts, [*starts[1:], np.inf], strict=True):
        inside = times[(times >= start) & (times < following)]
        periods.append((start, float(inside.max(initial=start))))
    begin = periods[-1][0]
    ends = run.spans.filter(pc.field("name") == "end")["end"].to_numpy()
    last = float(ends[ends >= begin].max(initial=0.0)) if run.has_ended else run.last_time
    # An empty window would have no shares.
    periods[-1] = (begin, max(last, begin + 1e-6))
    return periods


def _list_windows(run: Run, periods: list[tuple[float, float]]) -> list[tuple[int, int, int]]:
    """Return (step, start us, end us) of each step's last attempt, from its start to that of the
    step after it; the last one of a start of the run ends with what the driver did in it."""
    spans = run.spans.filter(
        (pc.field("pool") == str(Pool.TRAINER)) & (pc.field("lane") == "driver")
    )
    spans = spans.filter(spans["step"].is_valid())
    origin = periods[0][0]
    steps, starts = spans["step"].to_numpy(), spans["start"].to_numpy()
    ends, is_step = spans["end"].to_numpy(), pc.equal(spans["name"], "step").to_numpy()
    found: dict[int, tuple[int, int, int]] = {}
    for begin, finish in periods:
        chosen = np.flatnonzero(is_step & (starts >= begin) & (starts <= finish))
        following = [*starts[chosen].tolist(), None][1:]
        for place, next_start in zip(chosen.tolist(), following, strict=True):
            step, start = int(steps[place]), float(starts[place])
            if next_start is None:
                inside = (steps == step) & (starts >= start) & (starts <= finish)
                next_start = float(ends[inside].max())
            bounds = to_microseconds(np.array([start, min(next_start, finish)]), origin)
            found[step] = (step, int(bounds[0]), int(bounds[1]))
    return sorted(found.values(), key=lambda window: window[1])


def _list_submissions(run: Run, origin: float, last: float) -> np.ndarray:
    """When prompts of the training were submitted; int64 us, ascending, each time once."""
    column = run.trajectories.filter(pc.invert(run.trajectories["is_validation"]))["submitted"]
    times = pc.drop_null(column).to_numpy()
    return np.unique(to_microseconds(np.clip(times, origin, last), origin))


def _list_grading(run: Run, lives: Lives, origin: float, last: float) -> Intervals:
    """Return starts and ends (int64 us) of grading: a trajectory's, and the reward workers'."""
    spans = run.spans.filter(pc.field("pool") == str(Pool.REWARD))
    starts, ends = (np.clip(spans[name].to_numpy(), origin, last) for name in ("start", "end"))
    return (
        np.concatenate([lives.ends, to_microseconds(starts, origin)]),
        np.concatenate([lives.graded, to_microseconds(ends, origin)]),
    )


def _find_rollout_states(
    run: Run, edges: np.ndarray, lives: Lives, trainer: np.ndarray, submitted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rollout pool's states, and where all that is in flight is on a slow replica."""
    header = run.header
    training = ~lives.is_validation
    counts = count_over(edges, lives.starts[training], lives.ends[training])
    slow = training & lives.is_slow
    on_slow = count_over(edges, lives.starts[slow], lives.ends[slow])
    validating = count_over(edges, lives.starts[~training], lives.ends[~training])
    is_slow = (on_slow > 0) & (on_slow == counts)
    is_fresh = (counts == 0) | np.isin(edges[:-1], submitted)
    places = find_peaks(counts, is_fresh)
    if header.slots:
        places = np.minimum(places, min(header.slots * max(header.replicas, 1), _MANY))
    is_tail = (2 * counts < places) | is_slow
    named = {name: code(Pool.ROLLOUT, name) for name in STATES[Pool.ROLLOUT]}
    is_sync = (trainer == code(Pool.TRAINER, "weight_sync")) & (not header.flows)
    works = np.isin(trainer, [code(Pool.TRAINER, name) for name in WORK])
    is_start = trainer == code(Pool.TRAINER, "start")
    last_end = lives.ends.max(initial=0) if run.has_ended else edges[-1]
    states = np.select(
        [
            is_sync,
            works & header.shares_devices,
            (counts > 0) & is_tail,
            counts > 0,
            validating > 0,
            is_start,
            edges[:-1] >= last_end,
        ],
        [
            named["weight_sync"],
            named["wait_trainer"],
            named["tail"],
            named["generating"],
            named["validate"],
            named["start"],
            named["idle"],
        ],
        named["wait_trainer"],
    )
    return states, is_slow
