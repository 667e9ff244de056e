"""The time axis of the timeline: its labels, the window at first, and the overview below it.

Invariant: the window lies within the run.
"""

import numpy as np
from bokeh.models import ColumnDataSource, DatetimeTickFormatter, Range1d, RangeTool
from bokeh.plotting import figure

from verl_pipeline.report.columns import read_categories, read_numbers
from verl_pipeline.report.lanes import LANE_HEIGHT, Lane
from verl_pipeline.report.palette import RUNS, choose_colour
from verl_pipeline.telemetry.run_folder import Run

# Steps in the window at first, and the most that are all shown at first.
FIRST_STEPS, ALL_STEPS = 6, 12
# Not the doing of a lane: the step is a lane of its own, the end has no length.
FRAMES = ("step", "end")


def make_clock() -> DatetimeTickFormatter:
    """Return labels of times since the start."""
    return DatetimeTickFormatter(
        milliseconds="%S.%3N s",
        seconds="%M:%S",
        minsec="%M:%S",
        minutes="%H:%M",
        hourmin="%H:%M",
        hours="%H:%M",
        days="day %d %H:%M",
        boundary_scaling=False,
    )


def choose_window(run: Run, began: float, last: float) -> tuple[float, float]:
    """All of a short run; of a long one some steps of its middle."""
    is_step = read_categories(run.spans, "name").select("step")
    starts = np.sort(read_numbers(run.spans, "start")[is_step]) - began
    if len(starts) <= ALL_STEPS:
        return 0.0, last
    middle = len(starts) // 2
    return float(starts[middle]), float(starts[min(middle + FIRST_STEPS, len(starts) - 1)])


def draw_overview(
    plot: figure, sources: dict[str, ColumnDataSource], lanes: list[Lane], last: float
) -> figure:
    """Draw the driver's lane of the whole run, with the window that the chart above shows."""
    overview = figure(
        height=64,
        sizing_mode="stretch_width",
        min_width=160,
        tools="",
        toolbar_location=None,
        x_axis_type="datetime",
        x_range=Range1d(0, last * 1e3),
        y_range=Range1d(lanes[1].top + LANE_HEIGHT, lanes[1].top) if len(lanes) > 1 else (1, 0),
        name="overview",
        min_border_left=plot.min_border_left,
        outline_line_color=None,
        border_line_color=None,
    )
    overview.xaxis.formatter = make_clock()
    overview.yaxis.visible = overview.grid.visible = False
    for name, source in sources.items():
        if name not in FRAMES:
            overview.quad(
                left="left",
                right="right",
                top="top",
                bottom="bottom",
                source=source,
                fill_color=choose_colour(name),
                line_color=None,
            )
    tool = RangeTool(x_range=plot.x_range)
    tool.overlay.fill_color = RUNS[0]
    tool.overlay.fill_alpha = 0.2
    overview.add_tools(tool)
    return overview
