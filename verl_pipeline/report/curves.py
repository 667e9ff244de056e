"""Curves of what the trackers got: reward, loss, entropy, KL, importance weights, lengths, speed.

Invariant: a curve that no run has is not drawn; a step without the metric is a gap, not a zero.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from bokeh.models import ColumnDataSource
from bokeh.plotting import figure

from verl_pipeline.report.figures import add_hover, make_figure
from verl_pipeline.report.palette import RUNS
from verl_pipeline.report.thinning import thin_curve
from verl_pipeline.telemetry.records import StepRecord

MAX_POINTS = 1_000
DASHES = ("solid", "dashed", "dotted")


@dataclass(frozen=True)
class CurveChart:
    """A chart of metrics.

    Attributes:
        title: what people read.
        metrics: names in verl's trackers by label; of the first that a run has any of, unless
            ``together``.
        together: draw all of them.
    """

    title: str
    metrics: Mapping[str, str]
    together: bool = False


CHARTS = (
    CurveChart("Reward", {"": "critic/score/mean", " ": "critic/rewards/mean"}),
    CurveChart("Policy loss", {"": "actor/pg_loss", " ": "actor/loss"}),
    CurveChart("Entropy (nats)", {"": "actor/entropy", " ": "actor/entropy_loss"}),
    CurveChart(
        "KL (nats)",
        {
            "during the update": "actor/ppo_kl",
            "sampler to trainer": "rollout_corr/kl",
            "to the reference": "actor/kl_loss",
        },
        together=True,
    ),
    CurveChart(
        "Importance weights",
        {
            "mean": "rollout_corr/rollout_is_mean",
            "largest": "rollout_corr/rollout_is_max",
            "effective share": "rollout_corr/rollout_is_eff_sample_size",
        },
        together=True,
    ),
    CurveChart("Gradient norm", {"": "actor/grad_norm"}),
    CurveChart("Mean response (tokens)", {"": "response_length/mean"}),
    CurveChart("Seconds a step", {"": "timing_s/step"}),
    CurveChart("Tokens a second and device", {"": "perf/throughput"}),
)


def draw_curves(runs: Mapping[str, Sequence[StepRecord]]) -> list[tuple[str, figure]]:
    """Draw the charts that any run has, with title.

    Args:
        runs: the runs' steps by name; each run has a colour.
    """
    drawn = ((chart.title, _draw_chart(chart, runs)) for chart in CHARTS)
    return [(title, plot) for title, plot in drawn if plot is not None]


def _draw_chart(chart: CurveChart, runs: Mapping[str, Sequence[StepRecord]]) -> figure | None:
    lines = []
    for place, (run, steps) in enumerate(runs.items()):
        found = [
            (label, metric)
            for label, metric in chart.metrics.items()
            if any(metric in record.metrics for record in steps)
        ]
        for number, (label, metric) in enumerate(found if chart.together else found[:1]):
            colour = RUNS[(place if len(runs) > 1 else number) % len(RUNS)]
            dash = DASHES[number % len(DASHES)] if len(runs) > 1 else DASHES[0]
            lines.append((run, label.strip(), metric, steps, colour, dash))
    if not lines:
        return None
    plot = make_figure(230, zoom="both")
    plot.xaxis.axis_label = "step"
    for run, label, metric, steps, colour, dash in lines:
        step = np.array([record.step for record in steps], float)
        value = np.array([record.metrics.get(metric, np.nan) for record in steps], float)
        # JSON has no infinity, and a scale that holds one shows nothing else.
        value[~np.isfinite(value)] = np.nan
        step, value = thin_curve(step, value, MAX_POINTS)
        source = ColumnDataSource({"step": step, "value": value})
        texts = ([run] if len(runs) > 1 else []) + ([label] if label and chart.together else [])
        legend = {"legend_label": ", ".join(texts)} if texts else {}
        style = {"line_color": colour, "line_dash": dash, "line_width": 1.8}
        line = plot.line("step", "value", source=source, **style, **legend)
        if len(step) <= 60:
            dots = {"size": 4, "color": colour}
            plot.scatter("step", "value", source=source, **dots, **legend)
        tips = [("", run), (metric, "@value{0.0000}"), ("step", "@step")]
        add_hover(plot, tips[len(runs) == 1 :], [line], mode="vline", line_policy="nearest")
    return plot
