"""What an emulated run took: emulated time, and the control plane's own.

A step in real time is what the driver waited for that was emulated, and the rest: the control
plane. Time compression makes the rest ``time_scale`` times as large as it would be on the cluster,
so it is counted at its real size.

Invariants:
* The rest is measured on the driver: its spans less what the processes emulated meanwhile. What the
  control plane does beside an emulated wait costs no step anything and is not counted; but a delay
  between two emulated waits that the driver does not see is in the emulated time.
* Steps up to ``warm_up`` are not measured.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from verl_pipeline.emulated.cluster import EmulatedCluster
from verl_pipeline.emulated.journal import (
    REWARD_KINDS,
    ROLLOUT_KINDS,
    TRAINER_KINDS,
    WEIGHT_KINDS,
    read_journal,
)
from verl_pipeline.telemetry.accounting import bill_steps
from verl_pipeline.telemetry.records import Pool
from verl_pipeline.telemetry.run_folder import Run, load_run
from verl_pipeline.telemetry.states import WORK
from verl_pipeline.telemetry.timeline import make_timeline

# By span of the driver, what it may wait for in it.
AWAITED = {
    "wait_rollout": (*ROLLOUT_KINDS, *REWARD_KINDS),
    "update_actor": TRAINER_KINDS,
    "old_log_prob": TRAINER_KINDS,
    "update_weights": WEIGHT_KINDS,
    "pause_rollout": WEIGHT_KINDS,
}
Interval = tuple[float, float]


@dataclass(frozen=True)
class MeasuredRun:
    """One run; lists have an entry for each measured step.

    Attributes:
        step_s: emulated seconds, the control plane's at their real size.
        raw_step_s: all of a step's real time in emulated seconds.
        overhead_s: real seconds of the control plane.
        overhead_share: of the real time of all steps.
        tokens_per_s: emulated response tokens that were trained, in an emulated second.
        busy: by pool, share of the measured time.
        mean_age, largest_age: updates between the weights that sampled a token and those that
            trained on it; of first and last tokens, equally weighted.
        mixed_share: share of trained trajectories with more than one version.
    """

    step_s: list[float]
    raw_step_s: list[float]
    overhead_s: list[float]
    overhead_share: float
    tokens_per_s: float
    busy: dict[str, float]
    mean_age: float
    largest_age: int
    mixed_share: float


def measure_run(folder: Path, cluster: EmulatedCluster, warm_up: int) -> MeasuredRun:
    """Measure the run whose verl folder is ``folder``.

    Raises:
        RunFolderError: it left no records.
    """
    run = load_run(folder)
    timeline = make_timeline(run)
    windows = [
        (step, timeline.origin + start / 1e6, timeline.origin + end / 1e6)
        for step, start, end in timeline.windows
        if step > warm_up
    ]
    spans = _read_spans(run)
    emulated = defaultdict(list)
    for entry in read_journal(cluster.journal_folder):
        emulated[entry.kind].append((entry.start, entry.end))
    awaited = {
        name: merge([interval for kind in kinds for interval in emulated[kind]])
        for name, kinds in AWAITED.items()
    }
    raw, overheads = [], []
    for _step, start, end in windows:
        waited = 0.0
        for name, intervals in awaited.items():
            inside = intersect(merge(spans[name]), [(start, end)])
            waited += sum(b - a for a, b in intersect(inside, intervals))
        raw.append(end - start)
        overheads.append(end - start - waited)
    scale = cluster.time_scale
    seconds = [
        (length - overhead) * scale + overhead
        for length, overhead in zip(raw, overheads, strict=True)
    ]
    trained = _read_trained(run, {step for step, _, _ in windows})
    return MeasuredRun(
        seconds,
        [length * scale for length in raw],
        overheads,
        sum(overheads) / sum(raw),
        _count_tokens(cluster, trained) / sum(seconds),
        _measure_busy(run, warm_up),
        *_measure_ages(trained),
    )


def merge(intervals: Iterable[Interval]) -> list[Interval]:
    """The union, as intervals apart from each other, ascending."""
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((start, end))
    return merged


def intersect(left: list[Interval], right: list[Interval]) -> list[Interval]:
    """The intersection of two results of :func:`merge`."""
    found, a, b = [], 0, 0
    while a < len(left) and b < len(right):
        start, end = max(left[a][0], right[b][0]), min(left[a][1], right[b][1])
        if start < end:
            found.append((start, end))
        if left[a][1] < right[b][1]:
            a += 1
        else:
            b += 1
    return found


def _read_spans(run: Run) -> dict[str, list[Interval]]:
    spans = defaultdict(list)
    for span in run.spans.select(["lane", "name", "start", "end"]).to_pylist():
        if span["lane"] == "driver":
            spans[span["name"]].append((span["start"], span["end"]))
    return spans


def _read_trained(run: Run, steps: set[int]) -> list[dict[str, Any]]:
    names = ["step", "row", "first_version", "last_version", "trained", "is_validation"]
    rows = run.trajectories.select(names).to_pylist()
    return [row for row in rows if row["trained"] is not None and row["step"] in steps]


def _count_tokens(cluster: EmulatedCluster, trained: list[dict[str, Any]]) -> float:
    """Emulated response tokens; a prompt's samples count their mean."""
    sampling = cluster.cluster.sampling
    shape = (cluster.batches * sampling.prompts, sampling.samples)
    means = cluster.workload.responses.reshape(shape).mean(axis=1)
    return float(means[[row["row"] for row in trained]].sum())


def _measure_ages(trained: list[dict[str, Any]]) -> tuple[float, int, float]:
    first = np.array([row["step"] - 1 - row["first_version"] for row in trained])
    last = np.array([row["step"] - 1 - row["last_version"] for row in trained])
    return float((first + last).mean() / 2), int(first.max()), float((first != last).mean())


def _measure_busy(run: Run, warm_up: int) -> dict[str, float]:
    """Shares by the accounting of :mod:`verl_pipeline.telemetry.accounting`."""
    work = {Pool.TRAINER: WORK, Pool.ROLLOUT: ("generating", "tail"), Pool.REWARD: ("busy",)}
    busy: dict[Pool, float] = defaultdict(float)
    whole: dict[Pool, float] = defaultdict(float)
    for bill in bill_steps(run):
        if bill.step is not None and bill.step > warm_up:
            busy[bill.pool] += sum(bill.seconds[name] for name in work[bill.pool])
            whole[bill.pool] += bill.end - bill.start
    return {str(pool): busy[pool] / whole[pool] for pool in whole}
