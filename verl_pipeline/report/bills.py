"""Charts of where each pool's seconds went: of the run, and of each step.

Invariant: the shares of a bar are those of the bill, so they sum to the whole of its time, but for
names below :data:`MINIMUM_SHARE` of it, which nobody could see.
"""

from collections.abc import Sequence

import numpy as np
from bokeh.models import ColumnDataSource
from bokeh.plotting import figure

from verl_pipeline.report.figures import add_hover, make_figure
from verl_pipeline.report.palette import choose_colour, label_name, sort_names
from verl_pipeline.report.share_bars import Part, draw_share_bars
from verl_pipeline.telemetry.accounting import Bill

MAX_STEPS = 400
MINIMUM_SHARE = 1e-4


def draw_run_bills(bills: Sequence[Bill], labels: Sequence[str]) -> figure:
    """Draw one bar a bill, from 0 to 100 %.

    Args:
        bills: of runs.
        labels: of the bars, from above.
    """
    lengths = np.array([max(bill.end - bill.start, 1e-9) for bill in bills])
    parts = []
    for name in _list_names(bills):
        seconds = np.array([bill.seconds.get(name, 0.0) for bill in bills])
        shares = 100 * seconds / lengths
        parts.append(Part(label_name(name), choose_colour(name), seconds, shares))
    plot = draw_share_bars(labels, parts, "wall time", "pool", ("seconds", "0,0.0"))
    plot.name = "bill"
    return plot


def draw_step_bills(bills: Sequence[Bill], pool: str) -> tuple[figure, str | None]:
    """Draw a bar a step of one pool; of a long run, a bar is the mean of some steps.

    Returns:
        The chart, and a sentence if steps are joined.
    """
    own = [bill for bill in bills if bill.pool == pool and bill.step is not None]
    stride = -(-len(own) // MAX_STEPS) or 1
    groups = [own[i : i + stride] for i in range(0, len(own), stride)]
    plot = make_figure(240, zoom="width", name=f"steps {pool}")
    plot.yaxis.axis_label = "seconds"
    plot.xaxis.axis_label = "step"
    plot.xgrid.visible = False
    bottoms = np.zeros(len(groups))
    steps = np.array([group[0].step for group in groups], float)
    for name in _list_names(own):
        seconds = np.array([_average_share(group, name) for group in groups])
        length = np.array([sum(b.end - b.start for b in group) / len(group) for group in groups])
        source = ColumnDataSource(
            {
                "step": steps + (stride - 1) / 2,
                "first": steps,
                "bottom": bottoms,
                "top": bottoms + seconds,
                "seconds": seconds,
                "share": 100 * seconds / np.maximum(length, 1e-9),
            }
        )
        bar = plot.vbar(
            x="step",
            bottom="bottom",
            top="top",
            width=0.9 * stride,
            source=source,
            fill_color=choose_colour(name),
            line_color=None,
            legend_label=label_name(name),
        )
        add_hover(
            plot,
            [
                ("", label_name(name)),
                ("step", "@first"),
                ("seconds", "@seconds{0,0.00}"),
                ("share", "@share{0.0} %"),
            ],
            [bar],
        )
        bottoms = bottoms + seconds
    note = f"A bar is the mean of {stride} steps." if stride > 1 else None
    return plot, note


def _average_share(group: Sequence[Bill], name: str) -> float:
    return sum(bill.seconds.get(name, 0.0) for bill in group) / len(group)


def _list_names(bills: Sequence[Bill]) -> list[str]:
    total = sum(bill.end - bill.start for bill in bills) or 1.0
    sums: dict[str, float] = {}
    for bill in bills:
        for name, seconds in bill.seconds.items():
            sums[name] = sums.get(name, 0.0) + seconds
    return sort_names({name for name, s in sums.items() if s / total > MINIMUM_SHARE})
