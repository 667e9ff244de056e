"""Bars from 0 to 100 %, one colour a part, which a legend names.

Invariant: the parts of a bar stand in the order given, each where the one before it ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from bokeh.models import ColumnDataSource
from bokeh.plotting import figure

from verl_pipeline.report.figures import add_hover, make_figure


@dataclass(frozen=True)
class Part:
    """What one colour stands for.

    Attributes:
        amounts: what the shares are of, a value a bar, in any unit (n,).
        shares: in percent (n,).
    """

    label: str
    colour: str
    amounts: np.ndarray
    shares: np.ndarray


def draw_share_bars(
    bars: Sequence[str], parts: Sequence[Part], whole: str, kind: str, amount: tuple[str, str]
) -> figure:
    """Draw one bar a label.

    Args:
        bars: their labels, from above.
        parts: from the left.
        whole: what 100 % are, for the axis.
        kind: what a bar is, for the tip.
        amount: unit of the amounts and Bokeh's format of them, for the tip.
    """
    plot = make_figure(56 + 44 * len(bars), x_range=(0, 100), y_range=list(reversed(bars)))
    plot.toolbar_location = None
    plot.xaxis.axis_label = f"% of {whole}"
    plot.ygrid.visible = False
    plot.yaxis.axis_line_color = plot.yaxis.major_tick_line_color = None
    lefts = np.zeros(len(bars))
    for part in parts:
        source = ColumnDataSource(
            {
                "label": list(bars),
                "left": lefts,
                "right": lefts + part.shares,
                "middle": lefts + part.shares / 2,
                "share": part.shares,
                "amount": part.amounts,
                # Where the number fits into its part, on the narrowest screen.
                "text": [f"{share:.0f} %" if share >= 9 else "" for share in part.shares],
            }
        )
        bar = plot.hbar(
            y="label",
            left="left",
            right="right",
            height=0.72,
            source=source,
            fill_color=part.colour,
            line_color=None,
            legend_label=part.label,
        )
        plot.text(
            x="middle",
            y="label",
            text="text",
            source=source,
            text_align="center",
            text_baseline="middle",
            text_color="white",
            text_font_size="12px",
            text_font_style="bold",
        )
        unit, digits = amount
        tips = [(kind, "@label"), ("share", "@share{0.0} %"), (unit, "@amount{" + digits + "}")]
        add_hover(plot, [("", part.label), *tips], [bar])
        lefts = lefts + part.shares
    return plot
