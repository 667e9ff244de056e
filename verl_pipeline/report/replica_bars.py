"""Past the barrier: what each replica waits for, and where its trajectories changed their weights.

Invariant: both come from the accounting's view of the replicas, so the chart agrees with the bill.
"""

from collections.abc import Sequence

import numpy as np
from bokeh.models import ColumnDataSource
from bokeh.plotting import figure

from verl_pipeline.report.columns import read_categories, read_numbers
from verl_pipeline.report.lanes import LANE_HEIGHT, ROW_HEIGHT, Lane
from verl_pipeline.report.thinning import Bars, make_bars
from verl_pipeline.report.trajectory_rows import TrajectoryRows
from verl_pipeline.telemetry.records import Pool
from verl_pipeline.telemetry.run_folder import Run
from verl_pipeline.telemetry.states import STATES
from verl_pipeline.telemetry.timeline import make_timeline

# States of a replica that are drawn: loads are spans, and the rest is in the curve of requests.
WAITS = ("tail", "draining", "dispatch", "wait_trainer")
CHANGE_COLOUR = "#1d2733"


def list_waits(run: Run, lanes: Sequence[Lane], began: float) -> Bars:
    """Return a bar for each time that a replica waits; a bar's group is the lane's place times the
    number of :data:`WAITS`, plus the place of its name there."""
    timeline = make_timeline(run)
    places = {lane.name: place for place, lane in enumerate(lanes) if lane.pool == "rollout"}
    codes = [list(STATES[Pool.ROLLOUT]).index(name) for name in WAITS]
    parts = [np.zeros((3, 0))]
    for replica in timeline.replicas:
        if replica.lane not in places:
            continue
        first = np.flatnonzero(np.diff(replica.states, prepend=-1))
        edges = replica.edges[np.append(first, len(replica.states))] / 1e6
        states = replica.states[first]
        chosen = np.isin(states, codes)
        kinds = np.searchsorted(codes, states[chosen], sorter=np.argsort(codes))
        kinds = np.argsort(codes)[kinds]
        group = places[replica.lane] * len(WAITS) + kinds
        parts.append(np.array([group, edges[:-1][chosen], edges[1:][chosen]]))
    group, left, right = np.concatenate(parts, axis=1)
    shift = timeline.origin - began
    return make_bars(group.astype(int), left + shift, right + shift, np.full(len(left), np.nan))


def draw_changes(
    plot: figure,
    run: Run,
    rows: TrajectoryRows,
    drawn: np.ndarray,
    slots: np.ndarray,
    lanes: Sequence[Lane],
    began: float,
) -> None:
    """Mark in the bars of trajectories where their replica had loaded other weights.

    Args:
        drawn: places of the trajectories in ``rows``.
        slots: their rows in the lanes of their replicas.
    """
    names, owners = (read_categories(run.spans, column) for column in ("name", "lane"))
    is_load = names.select("load_weights")
    ends = read_numbers(run.spans, "end")
    times, tops = [np.zeros(0)], [np.zeros(0)]
    is_mixed = rows.last_version[drawn] > rows.first_version[drawn]
    for lane in lanes:
        if lane.pool != "rollout":
            continue
        loads = np.sort(ends[is_load & owners.select(lane.name)])
        own = np.flatnonzero(is_mixed & rows.replica.select(lane.name)[drawn])
        begins, stops = rows.started[drawn[own]], rows.stopped[drawn[own]]
        first, after = np.searchsorted(loads, begins, "right"), np.searchsorted(loads, stops)
        count = np.maximum(after - first, 0)
        which = np.repeat(np.arange(len(own)), count)
        nth = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        times.append(loads[first[which] + nth])
        tops.append(lane.top + LANE_HEIGHT + slots[own[which]] * ROW_HEIGHT)
    at, top = (np.concatenate(part) for part in (times, tops))
    if not len(at):
        return
    source = ColumnDataSource(
        {
            "t": (at - began) * 1e3,
            "top": (top + 0.5).astype(np.float32),
            "bottom": (top + ROW_HEIGHT - 0.5).astype(np.float32),
        },
        name="changes of weights",
    )
    plot.segment(
        "t",
        "top",
        "t",
        "bottom",
        source=source,
        line_color=CHANGE_COLOUR,
        line_width=1.5,
        legend_label="change of weights",
    )
