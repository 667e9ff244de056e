"""The Gantt chart: what the driver, each rank and each replica did at each moment.

:mod:`.lanes` places what is drawn. Below the lanes is an overview of the whole run, whose window
can be dragged.

Invariants:
* Time is seconds from the first moment of the run, drawn as an axis of clock times from 0.
* At most :data:`MAX_BARS` spans, and as many trajectories and lanes as :mod:`.lanes` allows, are
  drawn; the notes say what is joined or left out.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from bokeh.layouts import column
from bokeh.models import (
    ColumnDataSource,
    FixedTicker,
    Range1d,
    TapTool,
    UIElement,
)
from bokeh.plotting import figure

from verl_pipeline.report.columns import read_categories, read_numbers
from verl_pipeline.report.figures import add_hover, make_figure
from verl_pipeline.report.lanes import (
    LANE_HEIGHT,
    ROW_HEIGHT,
    Lane,
    list_lanes,
    pack_trajectories,
    place_spans,
    stack_lanes,
)
from verl_pipeline.report.palette import FATES, RUNS, choose_colour, label_name, sort_names
from verl_pipeline.report.replica_bars import WAITS, draw_changes, list_waits
from verl_pipeline.report.running import read_running
from verl_pipeline.report.thinning import Bars, make_bars, thin_bars, thin_curve
from verl_pipeline.report.time_axis import choose_window, draw_overview, make_clock
from verl_pipeline.report.trajectory_rows import TrajectoryRows
from verl_pipeline.telemetry.run_folder import Run

MAX_BARS = 30_000
MAX_POINTS = 4_000
MAX_LABEL = 22


@dataclass
class Timeline:
    """The chart and what it leaves out.

    Attributes:
        chart: of Bokeh.
        notes: plain sentences.
    """

    chart: UIElement
    notes: list[str] = field(default_factory=list)


def draw_timeline(
    run: Run, trajectories: TrajectoryRows, picked: np.ndarray, began: float
) -> Timeline:
    """Draw a run.

    Args:
        run: see :class:`Run`.
        trajectories: its trajectories.
        picked: places of those that can be opened on the page, among which the drawn ones are.
        began: the time that the axis begins with.
    """
    notes: list[str] = []
    lanes = list_lanes(run, notes)
    drawn, slots = pack_trajectories(trajectories, picked, lanes, notes)
    height = stack_lanes(lanes)
    last = max(run.last_time - began, 1e-3)
    window = choose_window(run, began, last)
    plot = make_figure(
        int(height) + 60,
        zoom="width",
        x_axis_type="datetime",
        x_range=Range1d(window[0] * 1e3, window[1] * 1e3, bounds=(0, last * 1e3)),
        y_range=Range1d(height, 0),
        name="timeline",
    )
    plot.xaxis.formatter = make_clock()
    plot.xaxis.axis_label = "time since the start (minutes:seconds, or hours:minutes)"
    plot.ygrid.visible = False
    plot.yaxis.ticker = FixedTicker(ticks=[lane.top + LANE_HEIGHT / 2 for lane in lanes])
    plot.yaxis.major_label_overrides = {
        lane.top + LANE_HEIGHT / 2: _cut_label(lane.name) for lane in lanes
    }
    plot.yaxis.major_tick_line_color = None
    plot.yaxis.axis_line_color = None
    sources = _draw_spans(plot, run, lanes, began, notes)
    _draw_running(plot, run, trajectories, lanes, began)
    _draw_trajectories(plot, trajectories, drawn, slots, lanes, began)
    if run.header.flows:
        draw_changes(plot, run, trajectories, drawn, slots, lanes, began)
    overview = draw_overview(plot, sources, lanes, last)
    return Timeline(column(plot, overview, sizing_mode="stretch_width"), notes)


def _cut_label(name: str) -> str:
    """A name of at most :data:`MAX_LABEL` characters, so that a narrow screen shows the chart."""
    return name if len(name) <= MAX_LABEL else f"{name[: MAX_LABEL - 1]}…"


def _draw_spans(
    plot: figure, run: Run, lanes: list[Lane], began: float, notes: list[str]
) -> dict[str, ColumnDataSource]:
    """Draw one set of bars a name; return their sources by name."""
    names = read_categories(run.spans, "name")
    place = place_spans(run, lanes)
    start, end = (read_numbers(run.spans, field) - began for field in ("start", "end"))
    shown = (place >= 0) & ~names.select("end")
    width = max(len(names.names), 1)
    group = place * width + names.codes
    bars, grain = thin_bars(
        make_bars(group[shown], start[shown], end[shown], read_numbers(run.spans, "step")[shown]),
        MAX_BARS,
    )
    if grain:
        notes.append(
            f"Spans shorter than {grain:.2g} s that follow one another are joined to one bar."
        )
    sources = {}
    for name in sort_names(set(names.names) - {"end"}):
        chosen = bars.group % width == names.names.index(name)
        if chosen.any():
            sources[name] = _draw_name(plot, name, bars, chosen, lanes, width)
    if run.header.flows:
        waits, _ = thin_bars(list_waits(run, lanes, began), MAX_BARS)
        for kind, name in enumerate(WAITS):
            chosen = waits.group % len(WAITS) == kind
            if chosen.any():
                _draw_name(plot, name, waits, chosen, lanes, len(WAITS))
    return sources


def _draw_name(
    plot: figure, name: str, bars: Bars, chosen: np.ndarray, lanes: list[Lane], width: int
) -> ColumnDataSource:
    owners = [lanes[index] for index in bars.group[chosen] // width]
    data: dict[str, Any] = {
        "left": bars.left[chosen] * 1e3,
        "right": bars.right[chosen] * 1e3,
        "top": _shorten_numbers([lane.top for lane in owners]),
        "bottom": _shorten_numbers([lane.top + LANE_HEIGHT for lane in owners]),
        "step": _shorten_numbers(bars.step[chosen]),
        "count": _shorten_numbers(bars.count[chosen]),
        "busy": _shorten_numbers(bars.busy[chosen]),
    }
    source = ColumnDataSource(data, name=f"spans {name}")
    is_step, is_wait = name == "step", name.startswith("wait") or name in WAITS
    bar = plot.quad(
        left="left",
        right="right",
        top="top",
        bottom="bottom",
        source=source,
        fill_color="#87909a" if is_step else choose_colour(name),
        fill_alpha=0.25 if is_step else 0.55 if is_wait else 0.92,
        line_color="#87909a" if is_step else None,
        **({} if is_step else {"legend_label": label_name(name)}),
    )
    tips = [("", label_name(name)), ("step", "@step"), ("seconds", "@busy{0,0.00}")]
    add_hover(plot, [*tips, ("spans", "@count")] if bars.count.max() > 1 else tips, [bar])
    return source


def _shorten_numbers(values: Any) -> np.ndarray:
    """Return float32 (n,): half the bytes, and more digits than a pixel or a tip can show."""
    return np.asarray(values, np.float32)


def _draw_running(
    plot: figure, run: Run, rows: TrajectoryRows, lanes: list[Lane], began: float
) -> None:
    """Draw the running requests of each replica in its lane, up to the most that any had."""
    curves = {
        lane.name: read_running(run, rows, lane.name) for lane in lanes if lane.pool == "rollout"
    }
    most = max((float(np.nanmax(n)) for _, n in curves.values() if len(n)), default=0.0)
    for lane in lanes:
        if lane.pool != "rollout" or not len(curves[lane.name][0]) or most <= 0:
            continue
        t, running = thin_curve(*curves[lane.name], MAX_POINTS)
        bottom = lane.top + LANE_HEIGHT
        source = ColumnDataSource(
            {
                "t": (t - began) * 1e3,
                "y": _shorten_numbers(bottom - np.nan_to_num(running) / most * (LANE_HEIGHT - 2)),
                "bottom": np.full(len(t), bottom, np.float32),
                "running": _shorten_numbers(running),
            }
        )
        plot.varea_step(
            "t", "bottom", "y", source=source, step_mode="after", fill_color=RUNS[0], fill_alpha=0.3
        )
        line = plot.step("t", "y", source=source, mode="after", line_color=RUNS[0])
        add_hover(plot, [("running requests", "@running{0}")], [line], point_policy="follow_mouse")


def _draw_trajectories(
    plot: figure,
    rows: TrajectoryRows,
    drawn: np.ndarray,
    slots: np.ndarray,
    lanes: list[Lane],
    began: float,
) -> None:
    """Draw the chosen trajectories; a tap selects one, which opens it in the viewer."""
    if not len(drawn):
        return
    by_name = {lane.name: lane for lane in lanes if lane.pool == "rollout"}
    owners = [by_name[rows.replica.names[code]] for code in rows.replica.codes[drawn]]
    top = np.array([lane.top + LANE_HEIGHT for lane in owners]) + slots * ROW_HEIGHT
    fates = rows.fates[drawn]
    for fate, colour in FATES.items():
        own = fates == fate
        if not own.any():
            continue
        chosen = drawn[own]
        source = ColumnDataSource(
            {
                "left": (rows.started[chosen] - began) * 1e3,
                "right": (rows.stopped[chosen] - began) * 1e3,
                "top": _shorten_numbers(top[own] + 0.5),
                "bottom": _shorten_numbers(top[own] + ROW_HEIGHT - 0.5),
                "step": _shorten_numbers(rows.step[chosen]),
                "seconds": _shorten_numbers(rows.stopped[chosen] - rows.started[chosen]),
                "tokens": _shorten_numbers(rows.response_tokens[chosen]),
                "reward": _shorten_numbers(rows.reward[chosen]),
                "first": _shorten_numbers(rows.first_version[chosen]),
                "last": _shorten_numbers(rows.last_version[chosen]),
                "id": chosen.astype(np.int32),
            },
            name=f"trajectories {fate}",
        )
        bar = plot.quad(
            left="left",
            right="right",
            top="top",
            bottom="bottom",
            source=source,
            fill_color=colour,
            fill_alpha=0.8,
            line_color=None,
            nonselection_fill_alpha=0.8,
            selection_line_color=colour,
            legend_label=f"trajectory, {fate}",
        )
        tips = [
            ("", f"trajectory, {fate}"),
            ("step", "@step"),
            ("seconds", "@seconds{0,0.0}"),
            ("tokens", "@tokens{0,0}"),
            ("reward", "@reward{0.00}"),
            ("weights", "v@first to v@last"),
            ("", "click to read it"),
        ]
        add_hover(plot, tips, [bar])
        plot.add_tools(TapTool(renderers=[bar]))
