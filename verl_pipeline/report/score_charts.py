"""Charts of scores: beside one another, by samples and tokens, and by length of the response.

Invariants:
* A score is drawn with its interval where it has one; charts are in percent.
* Where scores of several lines have the same place, none covers another.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, FixedTicker, LabelSet, LogTicker, NumeralTickFormatter
from bokeh.plotting import figure

from verl_pipeline.number_formats import format_score
from verl_pipeline.report.figures import add_hover, make_figure
from verl_pipeline.report.palette import NOT_ACCEPTED, REFERENCE, RUNS, choose_colour

ROW_HEIGHT = 36
# Distance of dots that share a place, as a part of the axis: wider than a dot on a narrow screen.
SIDE_STEP = 0.045


@dataclass(frozen=True)
class Score:
    """A share with its interval.

    Attributes:
        name: for the tip.
        estimate: ``value``, ``low`` and ``high``, from 0 to 1; the last two may be None.
        x: its place: samples or tokens.
        references: of others, in percent, by what their tip says.
    """

    name: str
    estimate: Mapping[str, Any]
    x: float = 1.0
    references: Sequence[tuple[str, float]] = ()


def draw_intervals(scores: Sequence[Score]) -> figure:
    """Draw scores on a scale from 0 to 100 %, one below another."""
    plot = make_figure(
        70 + ROW_HEIGHT * len(scores),
        zoom="width",
        x_range=(-2, 102),
        y_range=(0.5 - len(scores), 0.8),
    )
    plot.xaxis.axis_label = "%"
    plot.yaxis.visible = False
    plot.min_border_left = 0
    rows = -np.arange(len(scores), dtype=float)
    plot.ygrid.ticker = FixedTicker(ticks=rows.tolist())
    source = _make_source(scores, rows)
    ours, others = (
        {"legend_label": text} if any(score.references for score in scores) else {}
        for text in ("this evaluation, with 95 %", "published by others")
    )
    plot.segment("low", "x", "high", "x", source=source, color=RUNS[0], line_width=3, alpha=0.5)
    dots = plot.scatter("value", "x", source=source, size=10, color=RUNS[0], **ours)
    add_hover(plot, [("", "@tip")], [dots])
    references = [
        (row, name, value)
        for row, score in zip(rows, scores, strict=True)
        for name, value in score.references
    ]
    if references:
        y, names, values = map(list, zip(*references, strict=True))
        published = ColumnDataSource({"x": values, "y": y, "tip": names})
        rings = plot.scatter(
            "x",
            "y",
            source=published,
            size=9,
            fill_alpha=0,
            line_color=REFERENCE,
            line_width=1.8,
            fill_color=REFERENCE,
            **others,
        )
        add_hover(plot, [("", "@tip")], [rings])
    # Above its row, since long names leave no room beside it on a narrow screen.
    names = ColumnDataSource(
        {"x": np.zeros(len(rows)), "y": rows, "text": [s.name for s in scores]}
    )
    plot.add_layout(
        LabelSet(x="x", y="y", text="text", source=names, y_offset=8, text_font_size="13px")
    )
    return plot


def draw_score_lines(
    lines: Mapping[str, Sequence[Score]], label: str, *, bands: bool
) -> figure | None:
    """Draw one line a name, on a logarithmic axis; None if all scores have one place.

    Scores at 0 have no place: preset answers have no tokens.

    Args:
        label: of the axis.
        bands: draw intervals as bands; else as bars, and what shares a place side by side.
    """
    known = {name: [score for score in line if score.x > 0] for name, line in lines.items()}
    lines = {name: line for name, line in known.items() if line}
    scores = [score for line in lines.values() for score in line]
    places = sorted({score.x for score in scores})
    if len(places) < 2:
        return None
    ratio = places[-1] / places[0]
    margin = ratio**0.1
    most = max(100 * (score.estimate["high"] or score.estimate["value"]) for score in scores)
    plot = make_figure(
        260,
        x_axis_type="log",
        x_range=(places[0] / margin, places[-1] * margin),
        y_range=(0, max(min(1.1 * most, 104), 5)),
    )
    plot.xaxis.axis_label, plot.yaxis.axis_label = label, "score (%)"
    plot.xaxis.ticker = LogTicker(base=2, mantissas=[1], desired_num_ticks=6)
    plot.xaxis.formatter = NumeralTickFormatter(format="0,0")
    sharing = Counter(score.x for score in scores)
    before: Counter[float] = Counter()
    for place, (name, line) in enumerate(lines.items()):
        x = []
        for score in line:
            steps = 0 if bands else before[score.x] - (sharing[score.x] - 1) / 2
            before[score.x] += 1
            x.append(score.x * ratio ** (SIDE_STEP * steps))
        style = {"source": _make_source(line, x), "color": RUNS[place % len(RUNS)]}
        if len(lines) > 1:
            style["legend_label"] = name
        if bands:
            plot.varea("x", "low", "high", fill_alpha=0.18, **style)
        else:
            plot.segment("x", "low", "x", "high", line_width=1.5, alpha=0.6, **style)
        plot.line("x", "value", line_width=1.8, **style)
        dots = plot.scatter("x", "value", size=8, **style)
        add_hover(plot, [("", "@tip")], [dots])
    return plot


def draw_lengths(bins: Sequence[Mapping[str, int]]) -> figure:
    """Draw how many responses have a length, and how many of these are accepted.

    Args:
        bins: ``low``, ``high`` in tokens, ``count``, ``accepted``.
    """
    plot = make_figure(260)
    plot.xaxis.axis_label, plot.yaxis.axis_label = "tokens in the response", "samples"
    columns = {name: np.array([one[name] for one in bins]) for name in bins[0]}
    source = ColumnDataSource(columns | {"none": np.zeros(len(bins))})
    parts = [
        ("accepted", "none", "accepted", choose_colour("accepted")),
        ("not accepted", "accepted", "count", NOT_ACCEPTED),
    ]
    bars = [
        plot.quad(
            "low",
            "high",
            top,
            bottom,
            source=source,
            color=colour,
            line_color=None,
            legend_label=label,
        )
        for label, bottom, top, colour in parts
    ]
    tips = [("tokens", "@low{0,0} to @high{0,0}"), ("samples", "@count{0,0}")]
    add_hover(plot, [*tips, ("accepted", "@accepted{0,0}")], bars)
    return plot


def _make_source(scores: Sequence[Score], x: Any) -> ColumnDataSource:
    """Return value, low and high in percent, NaN where there is no interval, with places."""
    bounds = {
        name: 100 * np.array([score.estimate[name] for score in scores], float)
        for name in ("value", "low", "high")
    }
    tips = [f"{score.name}: {format_score(score.estimate)}" for score in scores]
    return ColumnDataSource({"x": np.asarray(x, float), "tip": tips, **bounds})
