"""Horizontal bars of seconds in groups, one below the other on one scale, as SVG.

Invariants:
* The same data give the same file: it has no date and no random names.
* Texts stay texts, for those who search, and for tests.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from verl_pipeline.outputs.files import write_text

# Inches: of a bar with its gap, of a group's title, of legend and axis, of the page.
BAR, TITLE, MARGIN, WIDTH = 0.36, 0.42, 1.0, 9.6
# Of the longest bar: room for the texts behind the bars.
ROOM = 1.25
STYLE = {"svg.hashsalt": "bars", "svg.fonttype": "none", "font.size": 9.0}


@dataclass(frozen=True)
class Bar:
    """A bar of stacked parts.

    Attributes:
        label: in front of it.
        parts: seconds by name, in the order of the legend.
        text: behind it.
        line: seconds of a thin line below it, or None.
    """

    label: str
    parts: Mapping[str, float]
    text: str
    line: float | None = None


def write_bars(
    groups: Mapping[str, Sequence[Bar]],
    colours: Mapping[str, str],
    line: tuple[str, str],
    path: Path,
) -> None:
    """Write the groups' bars, none of which is empty.

    Args:
        colours: of each part, in the order of the legend.
        line: name and colour of the lines.
    """
    counts = [len(bars) for bars in groups.values()]
    with matplotlib.rc_context(STYLE):
        height = BAR * sum(counts) + TITLE * len(counts) + MARGIN
        ratios = [count + 1 for count in counts]
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        rows = figure.subplots(len(counts), 1, sharex=True, squeeze=False, height_ratios=ratios)
        for (title, bars), axes in zip(groups.items(), rows[:, 0], strict=True):
            places = range(len(bars))
            starts = [0.0] * len(bars)
            for name, colour in colours.items():
                widths = [max(bar.parts.get(name, 0.0), 0.0) for bar in bars]
                drawn = axes.barh(places, widths, 0.6, starts, color=colour)
                starts = [sum(pair) for pair in zip(starts, widths, strict=True)]
            axes.bar_label(drawn, [bar.text for bar in bars], padding=4)
            for place, bar in enumerate(bars):
                if bar.line is not None:
                    axes.plot([0, bar.line], [place + 0.38] * 2, color=line[1], linewidth=2.5)
            axes.set_yticks(places, [bar.label for bar in bars])
            axes.set_title(title, loc="left", fontweight="bold", fontsize="medium")
            axes.invert_yaxis()
            axes.spines[["top", "right"]].set_visible(False)
        longest = max(sum(bar.parts.values()) for bars in groups.values() for bar in bars)
        rows[-1, 0].set_xlim(0, ROOM * longest)
        rows[-1, 0].set_xlabel("seconds")
        names = {**colours, line[0]: line[1]}
        figure.legend(
            handles=[Patch(color=colour, label=name) for name, colour in names.items()],
            loc="outside lower center",
            ncols=len(names),
            frameon=False,
        )
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    # Paths end lines with a space, which checks of a repository refuse.
    lines = [line.rstrip() for line in buffer.getvalue().splitlines()]
    write_text(path, "\n".join(lines) + "\n")
