"""What an emulated run took, on the emulated clock.

Emulated time has all that the engines took and, at its real size, what the control plane took on
the way from one to the next (:mod:`verl_pipeline.emulated.clock`). How much the latter was follows
from real time: what of it the emulated seconds do not explain.

Invariant: a step is from the end of one update to the end of the next, as in the planner.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from verl_pipeline.emulated.cluster import EmulatedCluster
from verl_pipeline.emulated.journal import Entry, read_journal
from verl_pipeline.telemetry.run_folder import Run, load_run

TRAINER_KINDS = ("update", "log_prob")
Interval = tuple[float, float]


@dataclass(frozen=True)
class MeasuredRun:
    """One run; lists have an entry for each measured step.

    Attributes:
        step_s: emulated seconds.
        control_s: real seconds of the control plane in which the emulated engines waited.
        control_share: of the emulated time, as much of it as counts.
        busy: by pool, share of the measured emulated time in which it worked; of the rollout pool,
            the mean of its replicas.
        tokens_per_s: emulated response tokens that were trained, in an emulated second.
        mean_age, largest_age: updates between the weights that sampled a token and those that
            trained on it; of first and last tokens, equally weighted.
        mixed_share: share of trained trajectories with more than one version.

    The last four are None of a run that our telemetry does not see.
    """

    step_s: list[float]
    control_s: list[float]
    control_share: float
    busy: dict[str, float]
    tokens_per_s: float | None = None
    mean_age: float | None = None
    largest_age: int | None = None
    mixed_share: float | None = None


def measure_run(
    folder: Path | None, cluster: EmulatedCluster, warm_up: int, cool_down: int = 0
) -> MeasuredRun:
    """Measure the steps after the first ``warm_up`` and before the last ``cool_down``.

    Args:
        folder: verl's folder of the run; None: our telemetry has not seen it.

    Raises:
        RunFolderError: it left no records.
    """
    entries = read_journal(cluster.journal)
    ends = {entry.step: entry for entry in entries if entry.kind == "update"}
    last = max(ends) - cool_down
    steps = range(warm_up + 1, last + 1)
    seconds = [ends[step].end - ends[step - 1].end for step in steps]
    real = [ends[step].real - ends[step - 1].real for step in steps]
    # A real step is E / scale + C, an emulated one E + control_scale * C.
    scale, part = cluster.time_scale, cluster.control_scale
    control = [
        max(length * scale - emulated, 0.0) / (scale - part)
        for length, emulated in zip(real, seconds, strict=True)
    ]
    window = ends[warm_up].end, ends[last].end
    measured = MeasuredRun(
        seconds,
        control,
        part * sum(control) / sum(seconds),
        measure_busy(entries, cluster.replicas, window),
    )
    if folder is None:
        return measured
    trained = _read_trained(load_run(folder), set(steps))
    oldest = np.array([row["step"] - 1 - row["first_version"] for row in trained])
    newest = np.array([row["step"] - 1 - row["last_version"] for row in trained])
    return replace(
        measured,
        tokens_per_s=_count_tokens(cluster, trained) / sum(seconds),
        mean_age=float((oldest + newest).mean() / 2),
        largest_age=int(oldest.max()),
        mixed_share=float((oldest != newest).mean()),
    )


def measure_busy(entries: list[Entry], replicas: int, window: Interval) -> dict[str, float]:
    """Share of the window in which each pool worked."""
    length = window[1] - window[0]
    lanes: dict[str, dict[str, list[Interval]]] = defaultdict(lambda: defaultdict(list))
    for entry in entries:
        pool = {"sampling": "rollout", "reward": "reward"}.get(entry.kind)
        if entry.kind in TRAINER_KINDS:
            pool = "trainer"
        if pool:
            lanes[pool][entry.lane].append((entry.start, entry.end))
    counts = {"rollout": replicas, "trainer": 1, "reward": 1}
    return {
        pool: sum(measure_inside(intervals, window) for intervals in lanes[pool].values())
        / length
        / count
        for pool, count in counts.items()
    }


def measure_inside(intervals: Iterable[Interval], window: Interval) -> float:
    """Length of the part of ``window`` that at least one of the intervals covers."""
    covered, reached = 0.0, window[0]
    for start, end in sorted(intervals):
        begin, finish = max(start, reached), min(end, window[1])
        if finish > begin:
            covered += finish - begin
            reached = finish
    return covered


def _read_trained(run: Run, steps: set[int]) -> list[dict[str, Any]]:
    names = ["step", "row", "first_version", "last_version", "trained"]
    rows = run.trajectories.select(names).to_pylist()
    return [row for row in rows if row["trained"] is not None and row["step"] in steps]


def _count_tokens(cluster: EmulatedCluster, trained: list[dict[str, Any]]) -> float:
    """Emulated response tokens; a prompt's samples count their mean."""
    sampling = cluster.cluster.sampling
    shape = (cluster.batches * sampling.prompts, sampling.samples)
    means = cluster.workload.responses.reshape(shape).mean(axis=1)
    return float(means[[row["row"] for row in trained]].sum())
