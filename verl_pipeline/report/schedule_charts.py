"""What trainer and replicas of each schedule do over time, on one time axis.

Invariant: the curve of a replica is the mean of what it runs over each :data:`PIECES` of the
window; spans are drawn as they are.
"""

from collections.abc import Sequence

import numpy as np
from bokeh.layouts import column
from bokeh.models import Column, ColumnDataSource, FixedTicker, Range1d
from bokeh.plotting import figure

from verl_pipeline.emulated.schedule_runs import ScheduleRun
from verl_pipeline.report.figures import add_hover, make_figure
from verl_pipeline.report.palette import VERSIONS, choose_colour

# Of the window, in which a curve has one value each.
PIECES = 500
MAX_REPLICAS = 8
ROW, AXIS = 26, 56
# By span of the trainer, the name of the report that has its colour.
COLOURS = {"update": "update", "weights": "weight_sync", "rewards": "wait_reward"}
# A span with room for its number, as a share of the window.
LABELLED = 1 / 22


def draw_schedules(runs: Sequence[ScheduleRun], titles: Sequence[str], seconds: float) -> Column:
    """Draw so many seconds of each schedule, from its first step that counts; all zoom together."""
    window = Range1d(0, seconds)
    plots = [_draw_schedule(run, title, window) for run, title in zip(runs, titles, strict=True)]
    plots[-1].xaxis.axis_label = "seconds of the cluster"
    return column(plots, sizing_mode="stretch_width", name="schedules")


def _draw_schedule(run: ScheduleRun, title: str, window: Range1d) -> figure:
    shown = min(len(run.world.replicas), MAX_REPLICAS)
    plot = make_figure(
        AXIS + ROW * (shown + 1), zoom="width", x_range=window, y_range=Range1d(shown + 1, 0)
    )
    plot.title.text = title
    # Beside the title: within the frame, the tools would cover the trainer's row.
    plot.toolbar_inner = False
    plot.grid.visible = False
    middles = [0.5 + place for place in range(shown + 1)]
    plot.yaxis.ticker = FixedTicker(ticks=middles)
    names = ["trainer", *(f"replica {place}" for place in range(shown))]
    plot.yaxis.major_label_overrides = dict(zip(middles, names, strict=True))
    end = float(window.end)
    most = max(count for curve in run.world.running for _, count in curve)
    for place in range(shown):
        _draw_replica(plot, run, place, end, most)
    _draw_trainer(plot, run, end)
    return plot


def _draw_trainer(plot: figure, run: ScheduleRun, end: float) -> None:
    spans = [
        (span.name, span.number, max(span.start - run.begin, 0.0), min(span.end - run.begin, end))
        for span in run.world.trainer
        if span.end > run.begin and span.start < run.begin + end
    ]
    source = ColumnDataSource(
        {
            "left": [start for _, _, start, _ in spans],
            "right": [stop for *_, stop in spans],
            "label": [f"{name} {number or ''}" for name, number, *_ in spans],
            "seconds": [stop - start for *_, start, stop in spans],
            "colour": [choose_colour(COLOURS[name]) for name, *_ in spans],
        }
    )
    bars = plot.quad(
        left="left",
        right="right",
        top=0.06,
        bottom=0.94,
        source=source,
        fill_color="colour",
        line_color=None,
    )
    add_hover(plot, [("trainer", "@label"), ("seconds", "@seconds{0}")], [bars])
    wide = [
        (str(number), (start + stop) / 2)
        for name, number, start, stop in spans
        if name == "update" and stop - start > end * LABELLED
    ]
    plot.text(
        x=[x for _, x in wide],
        y=0.5,
        text=[text for text, _ in wide],
        text_color="white",
        text_font_size="11px",
        text_align="center",
        text_baseline="middle",
    )


def _draw_replica(plot: figure, run: ScheduleRun, place: int, end: float, most: int) -> None:
    """The requests that it runs, in the colour of the weights that it holds."""
    edges = np.linspace(0.0, end, PIECES + 1)
    running = _average(run.world.running[place], edges + run.begin) / most
    loads = run.world.loads[place]
    held = [(0, -np.inf), *((load.number, load.end - run.begin) for load in loads)]
    foot = place + 1.97
    for (version, since), (_, until) in zip(held, [*held[1:], (0, np.inf)], strict=True):
        own = np.flatnonzero((edges[1:] > since) & (edges[:-1] < until))
        if not len(own):
            continue
        left, right = edges[own], edges[own + 1]
        # Steps: each piece has one height.
        x = np.clip(np.ravel(np.column_stack([left, right])), since, until)
        height = np.repeat(running[own], 2)
        plot.varea(
            x=x, y1=foot - 0.92 * height, y2=foot, fill_color=VERSIONS[version % len(VERSIONS)]
        )
    shown = [load for load in loads if load.end > run.begin and load.start < run.begin + end]
    source = ColumnDataSource(
        {
            "left": [max(load.start - run.begin, 0.0) for load in shown],
            "right": [min(load.end - run.begin, end) for load in shown],
            "label": [f"v{load.number}" for load in shown],
        }
    )
    bars = plot.quad(
        left="left",
        right="right",
        top=place + 1.03,
        bottom=foot,
        source=source,
        fill_color=choose_colour("load_weights"),
        line_color=choose_colour("load_weights"),
    )
    add_hover(plot, [("loads weights", "@label")], [bars])


def _average(curve: list[tuple[float, int]], edges: np.ndarray) -> np.ndarray:
    """The mean of a curve of steps between the edges, float64 [edges - 1]."""
    times = np.array([moment for moment, _ in curve])
    counts = np.array([count for _, count in curve], float)
    areas = np.concatenate([[0.0], np.cumsum(np.diff(times) * counts[:-1])])
    place = np.searchsorted(times, edges, side="right") - 1
    area = areas[place] + (edges - times[place]) * counts[place]
    return np.diff(area) / np.diff(edges)
