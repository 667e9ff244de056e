"""Charts of what the batches were made of: staleness, weight versions, lengths, fates, verdicts.

Invariants:
* All of them count every trajectory of the run; only validations are left out.
* Of a long run, a point stands for some steps that follow one another.
"""

from collections.abc import Sequence

import numpy as np
from bokeh.models import ColumnDataSource
from bokeh.plotting import figure

from verl_pipeline.report.columns import Categories
from verl_pipeline.report.figures import add_hover, make_figure
from verl_pipeline.report.palette import FATES, RUNS, choose_colour
from verl_pipeline.report.trajectory_rows import TrajectoryRows

MAX_STEPS = 300
BINS = 60
# Of lengths; of texts in a chart, the rest of them being "others".
QUANTILES = (10, 50, 90, 100)
MAX_NAMES = 10


def draw_batches(rows: TrajectoryRows) -> list[tuple[str, figure]]:
    """Draw the charts for which the run has data, with title."""
    charts = []
    used = (rows.fates == "trained") & ~np.isnan(rows.step)
    if (~np.isnan(rows.first_version[used])).any():
        charts.append(("Staleness: steps since the weights of the first token", _draw_age(rows)))
        charts.append(("Weight versions within a trajectory", _draw_spans(rows)))
    if (~np.isnan(rows.response_tokens)).any():
        charts.append(("Response lengths of each step", _draw_quantiles(rows)))
        charts.append(("Lengths: trained, filtered, running", _draw_lengths(rows)))
    charts.append(("What became of the trajectories", draw_shares(rows, _read_fates(rows))))
    for title, texts in (("Verdicts", rows.verdict), ("Reasons", rows.reason)):
        if (texts.codes >= 0).any():
            charts.append((title, draw_shares(rows, texts)))
    return charts


def group_steps(steps: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the steps that occur, the group of each value, and how many steps a group has.

    Args:
        steps: float64 (n,), without NaN.

    Returns:
        The first step of each group (m,), the group of each value (n,), and the width of a group.
    """
    if not len(steps):
        return np.zeros(0), np.zeros(0, int), 1
    first, last = steps.min(), steps.max()
    width = int(-(-(last - first + 1) // MAX_STEPS))
    return (
        np.arange(first, last + 1, width),
        ((steps - first) // width).astype(int),
        width,
    )


def _draw_age(rows: TrajectoryRows) -> figure:
    """Draw how old the weights of trained trajectories were: mean and extremes."""
    known = (rows.fates == "trained") & ~np.isnan(rows.step) & ~np.isnan(rows.first_version)
    # The weights that step k starts from are version k - 1.
    age = rows.step[known] - 1 - rows.first_version[known]
    return _draw_band(rows.step[known], age, "steps")


def _draw_spans(rows: TrajectoryRows) -> figure:
    known = (rows.fates == "trained") & ~np.isnan(rows.step)
    known &= ~np.isnan(rows.last_version) & ~np.isnan(rows.first_version)
    spans = rows.last_version[known] - rows.first_version[known] + 1
    return _draw_band(rows.step[known], spans, "versions")


def _draw_band(steps: np.ndarray, values: np.ndarray, label: str) -> figure:
    first, group, width = group_steps(steps)
    count = np.maximum(np.bincount(group, minlength=len(first)), 1)
    mean = np.bincount(group, values, len(first)) / count
    low, high = np.full(len(first), np.inf), np.full(len(first), -np.inf)
    np.minimum.at(low, group, values)
    np.maximum.at(high, group, values)
    empty = np.isinf(low)
    mean, low, high = (np.where(empty, np.nan, part) for part in (mean, low, high))
    plot = make_figure(220)
    plot.xaxis.axis_label, plot.yaxis.axis_label = "step", label
    source = ColumnDataSource({"step": first, "mean": mean, "low": low, "high": high})
    plot.varea("step", "low", "high", source=source, fill_color=RUNS[0], fill_alpha=0.18)
    line = plot.line("step", "mean", source=source, line_color=RUNS[0], line_width=1.8)
    if len(first) <= 60:
        plot.scatter("step", "mean", source=source, size=4, color=RUNS[0])
    tips = [("step", "@step"), ("mean", "@mean{0.00}"), ("range", "@low{0} to @high{0}")]
    add_hover(plot, tips, [line], mode="vline")
    if np.nanmax(high, initial=0.0) <= 1 and np.nanmin(low, initial=0.0) >= 0:
        plot.y_range.start, plot.y_range.end = -0.1, 1.6
    return plot


def _draw_quantiles(rows: TrajectoryRows) -> figure:
    known = (rows.fates != "validation") & ~np.isnan(rows.step) & ~np.isnan(rows.response_tokens)
    steps, lengths = rows.step[known], rows.response_tokens[known]
    first, group, _ = group_steps(steps)
    order = np.argsort(group, kind="stable")
    ends = np.cumsum(np.bincount(group, minlength=len(first)))[:-1]
    parts = np.split(lengths[order], ends) if len(first) else []
    table = np.array(
        [
            np.percentile(part, QUANTILES) if len(part) else [np.nan] * len(QUANTILES)
            for part in parts
        ]
    ).reshape(-1, len(QUANTILES))
    plot = make_figure(220)
    plot.xaxis.axis_label, plot.yaxis.axis_label = "step", "tokens"
    names = ["10 %", "median", "90 %", "longest"]
    source = ColumnDataSource({"step": first} | dict(zip(names, table.T, strict=True)))
    for place, (name, colour) in enumerate(zip(names, (RUNS[5], *RUNS[:3]), strict=True)):
        line = plot.line(
            "step", name, source=source, line_color=colour, line_width=1.8, legend_label=name
        )
        if len(first) <= 60:
            plot.scatter("step", name, source=source, size=4, color=colour, legend_label=name)
        if place == len(names) - 1:
            tips = [("step", "@step")] + [(n, "@{" + n + "}{0,0}") for n in reversed(names)]
            add_hover(plot, tips, [line], mode="vline")
    return plot


def _draw_lengths(rows: TrajectoryRows) -> figure:
    """Draw the share of trajectories by length, for each fate that has any."""
    known = ~np.isnan(rows.response_tokens)
    longest = max(rows.response_tokens[known].max(initial=1.0), 1.0)
    edges = np.linspace(0, longest, BINS + 1)
    plot = make_figure(220)
    plot.xaxis.axis_label, plot.yaxis.axis_label = "tokens", "% of these"
    for fate in ("trained", "filtered", "waiting", "running"):
        lengths = rows.response_tokens[known & (rows.fates == fate)]
        if not len(lengths):
            continue
        counts = np.histogram(lengths, edges)[0]
        source = ColumnDataSource(
            {
                "left": edges[:-1],
                "right": edges[1:],
                "share": 100 * counts / len(lengths),
                "count": counts,
            }
        )
        bar = plot.quad(
            left="left",
            right="right",
            bottom=0,
            top="share",
            source=source,
            fill_color=FATES[fate],
            fill_alpha=0.45,
            line_color=FATES[fate],
            legend_label=f"{fate} ({len(lengths):,})",
        )
        tips = [("", fate), ("tokens", "@left{0,0} to @right{0,0}"), ("number", "@count{0,0}")]
        add_hover(plot, tips, [bar])
    return plot


def _read_fates(rows: TrajectoryRows) -> Categories:
    names = list(FATES)
    codes = np.full(len(rows), -1, np.int32)
    for code, name in enumerate(names):
        codes[rows.fates == name] = code
    return Categories(names, codes)


def draw_shares(rows: TrajectoryRows, texts: Categories) -> figure:
    """Draw the shares of texts in the trajectories of each step, one colour a text."""
    known = (rows.fates != "validation") & ~np.isnan(rows.step) & (texts.codes >= 0)
    first, group, width = group_steps(rows.step[known])
    names, codes = _merge_rare(texts.names, texts.codes[known])
    counts = np.zeros((len(names), len(first)))
    np.add.at(counts, (codes, group), 1)
    total = np.maximum(counts.sum(axis=0), 1)
    plot = make_figure(240, zoom="width", y_range=(0, 100))
    plot.xaxis.axis_label, plot.yaxis.axis_label = "step", "% of trajectories"
    plot.xgrid.visible = False
    bottom = np.zeros(len(first))
    for place, name in enumerate(names):
        if not counts[place].any():
            continue
        share = 100 * counts[place] / total
        source = ColumnDataSource(
            {
                "step": first + (width - 1) / 2,
                "first": first,
                "bottom": bottom,
                "top": bottom + share,
                "share": share,
                "count": counts[place],
            }
        )
        bar = plot.vbar(
            x="step",
            bottom="bottom",
            top="top",
            width=0.9 * width,
            source=source,
            fill_color=FATES.get(name) or choose_colour(name),
            line_color=None,
            legend_label=_shorten(name),
        )
        tips = [
            ("", _shorten(name)),
            ("step", "@first"),
            ("share", "@share{0.0} %"),
            ("number", "@count{0,0}"),
        ]
        add_hover(plot, tips, [bar])
        bottom = bottom + share
    return plot


def _merge_rare(names: Sequence[str], codes: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Give all but the most frequent texts one name."""
    counts = np.bincount(codes, minlength=len(names))
    if (counts > 0).sum() <= MAX_NAMES:
        return list(names), codes
    kept = np.sort(np.argsort(-counts, kind="stable")[: MAX_NAMES - 1])
    renamed = np.full(len(names), len(kept))
    renamed[kept] = np.arange(len(kept))
    return [*(names[code] for code in kept), "others"], renamed[codes]


def _shorten(text: str) -> str:
    return text if len(text) <= 48 else text[:45] + "..."
