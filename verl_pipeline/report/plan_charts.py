"""Charts of a plan: gains with their range, shares of GPU time, limits, sensitivity.

Invariant: every number drawn is one of the plan's; nothing is simulated here.
"""

from collections.abc import Sequence

import numpy as np
from bokeh.models import ColumnDataSource, Span
from bokeh.plotting import figure

from verl_pipeline.planner.outcome import CAUSES
from verl_pipeline.planner.plan import Plan
from verl_pipeline.planner.sensitivity import Change
from verl_pipeline.report.figures import add_hover, make_figure
from verl_pipeline.report.palette import choose_colour
from verl_pipeline.report.share_bars import Part, draw_share_bars

# By cause, what people read and the name of the report that has its colour. One that is missing
# shares the entry of another: who loads and who sends weights is one thing to a reader.
LABELS = {
    "sampling": ("sampling", "generating"),
    "tail": ("tail of sampling", "tail"),
    "update": ("update", "update"),
    "rollout_weights": ("weights", "weight_sync"),
    "switch": ("switching the devices", "switch"),
    "reward": ("rewards", "reward"),
    "validation": ("validation", "validate"),
    "rollout_idle": ("rollout pool waits", "wait_trainer"),
    "trainer_wait": ("trainer waits", "wait_reward"),
}
TOGETHER = {"trainer_weights": "rollout_weights"}
BOUNDS = {
    "update": ("update", "update"),
    "work": ("sampling at full rate", "generating"),
    "reward": ("rewards", "reward"),
    "chain": ("longest trajectory and update", "tail"),
}
ROW, AXIS = 30, 60
LEAST_SHARE = 1e-4


def name_plan(plan: Plan, slots: int) -> str:
    """Return a plan's label, in two lines; slots are told where they are not the profile's."""
    if plan.split is None:
        return str(plan.schedule)
    layout = plan.layout
    more = f", {layout.slots} slots" if layout.slots != slots else ""
    more += ", longest first" if layout.longest_first else ""
    return f"{plan.schedule}\n{layout.rollout_gpus}:{layout.trainer_gpus}{more}"


def draw_gains(plans: Sequence[Plan], labels: Sequence[str]) -> figure:
    """Draw a bar a plan from 1, and a line over its seeds."""
    plot = _make_rows(labels, 1.25)
    plot.name = "gains"
    source = ColumnDataSource(
        {
            "label": list(labels),
            "gain": [plan.gain for plan in plans],
            "low": [min(plan.gains) for plan in plans],
            "high": [max(plan.gains) for plan in plans],
            "step": [plan.step_s for plan in plans],
            "colour": [choose_colour("update" if p.gain >= 1 else "wait_trainer") for p in plans],
            "alpha": [0.9 if _is_built(plan) else 0.15 for plan in plans],
        }
    )
    style = {"line_color": "colour", "fill_color": "colour", "fill_alpha": "alpha"}
    bar = plot.hbar(y="label", left=1.0, right="gain", height=0.6, source=source, **style)
    plot.segment(x0="low", x1="high", y0="label", y1="label", source=source, line_width=3,
                 line_color="#87909a")  # fmt: skip
    plot.add_layout(Span(location=1.0, dimension="height", line_color="#87909a"))
    plot.xaxis.axis_label = "step of sync over step of the plan"
    tips = [("", "@label"), ("gain", "@gain{0.00} (@low{0.00} to @high{0.00})")]
    add_hover(plot, [*tips, ("step", "@step{0,0.0} s")], [bar])
    return plot


def draw_shares(plans: Sequence[Plan], labels: Sequence[str]) -> figure:
    """Draw where each plan's GPU time goes, from 0 to 100 %."""
    parts = []
    for cause, (label, colour) in LABELS.items():
        names = [cause, *(other for other in CAUSES if TOGETHER.get(other) == cause)]
        shares = np.array([sum(plan.shares[name] for name in names) for plan in plans])
        if shares.max() >= LEAST_SHARE:
            seconds = shares * [plan.step_s for plan in plans]
            parts.append(Part(label, choose_colour(colour), seconds, 100 * shares))
    plot = draw_share_bars(labels, parts, "GPU time", "plan", ("seconds a step", "0,0.0"))
    plot.name = "shares"
    return plot


def draw_limits(plans: Sequence[Plan], labels: Sequence[str]) -> figure:
    """Draw each plan's step, and the bounds that it cannot be shorter than."""
    plot = _make_rows(labels, 1.25)
    plot.name = "limits"
    steps = {"label": list(labels), "step": [plan.step_s for plan in plans]}
    steps["near"] = [100 * (plan.nearness or 0.0) for plan in plans]
    bar = plot.hbar(
        y="label",
        right="step",
        height=0.6,
        source=ColumnDataSource(steps),
        fill_color="#87909a",
        fill_alpha=0.35,
        line_color=None,
    )
    tips = [("", "@label"), ("step", "@step{0,0.0} s"), ("limit over step", "@near{0} %")]
    add_hover(plot, tips, [bar])
    for name, (label, colour) in BOUNDS.items():
        values = [getattr(plan.limit, name) for plan in plans]
        mark = plot.scatter(
            x="seconds",
            y="label",
            source=ColumnDataSource({"label": list(labels), "seconds": values}),
            marker="dash",
            angle=np.pi / 2,
            size=24,
            line_width=4,
            color=choose_colour(colour),
            legend_label=label,
        )
        add_hover(plot, [("", "@label"), (label, "@seconds{0,0.0} s")], [mark])
    plot.x_range.start = 0.0
    plot.xaxis.axis_label = "seconds a step"
    return plot


def draw_changes(changes: Sequence[Change], gain: float) -> figure:
    """Draw the gain of a plan, and the one after each change of the work."""
    changes = [Change("as in the profile", gain), *changes]
    plot = _make_rows([change.name for change in changes], 1.0)
    plot.name = "changes"
    source = ColumnDataSource(
        {
            "label": [change.name for change in changes],
            "gain": [change.gain for change in changes],
            "colour": [choose_colour("update" if c.gain >= 1 else "wait_trainer") for c in changes],
        }
    )
    bar = plot.hbar(
        y="label",
        left=1.0,
        right="gain",
        height=0.6,
        source=source,
        fill_color="colour",
        line_color=None,
    )
    plot.add_layout(Span(location=1.0, dimension="height", line_color="#87909a"))
    plot.xaxis.axis_label = "step of sync over step of the plan"
    add_hover(plot, [("", "@label"), ("gain", "@gain{0.00}")], [bar])
    return plot


def _make_rows(labels: Sequence[str], lines: float) -> figure:
    """An empty figure with a row a label, from above."""
    plot = make_figure(AXIS + round(ROW * lines * len(labels)), y_range=list(reversed(labels)))
    plot.toolbar_location = None
    plot.ygrid.visible = False
    plot.yaxis.axis_line_color = plot.yaxis.major_tick_line_color = None
    return plot


def _is_built(plan: Plan) -> bool:
    return not plan.layout.longest_first
