"""How many requests a replica runs over time.

Invariant: the engine's own statistics come first; where a run has none, the count follows from when
its trajectories started and stopped.
"""

import numpy as np

from verl_pipeline.report.columns import read_categories, read_numbers
from verl_pipeline.report.trajectory_rows import TrajectoryRows
from verl_pipeline.telemetry.run_folder import Run


def read_running(run: Run, rows: TrajectoryRows, lane: str) -> tuple[np.ndarray, np.ndarray]:
    """Return times (seconds since the epoch) and numbers of running requests; both float64 (n,)."""
    own = read_categories(run.gauges, "lane").select(lane)
    if own.any():
        running = read_numbers(run.gauges, "running")[own]
        known = ~np.isnan(running)
        if known.any():
            times = read_numbers(run.gauges, "t")[own][known]
            order = np.argsort(times, kind="stable")
            return times[order], running[known][order]
    return _count_running(rows, rows.replica.select(lane))


def _count_running(rows: TrajectoryRows, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    own = own & ~np.isnan(rows.started)
    times = np.concatenate([rows.started[own], rows.stopped[own]])
    change = np.concatenate([np.ones(own.sum()), -np.ones(own.sum())])
    order = np.argsort(times, kind="stable")
    return times[order], np.cumsum(change[order])
