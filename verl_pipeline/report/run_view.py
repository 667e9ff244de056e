"""Everything that page and terminal show of one run, as texts, tables and charts.

Invariant: what is computed here is computed once, from the run's own records; a figure that the
records do not give is left out, not guessed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from bokeh.models import UIElement
from omegaconf import OmegaConf

from verl_pipeline.number_formats import format_decimal, format_percent
from verl_pipeline.report.batches import draw_batches
from verl_pipeline.report.bills import draw_run_bills, draw_step_bills
from verl_pipeline.report.columns import read_numbers
from verl_pipeline.report.curves import draw_curves
from verl_pipeline.report.ledger_table import show_ledger
from verl_pipeline.report.palette import label_name
from verl_pipeline.report.rollouts import Rollouts, pack_rollouts
from verl_pipeline.report.run_state import RunState, format_duration, read_state
from verl_pipeline.report.timeline import draw_timeline
from verl_pipeline.report.trajectory_rows import TrajectoryRows, read_trajectory_rows
from verl_pipeline.telemetry.accounting import Bill, bill_run, bill_steps
from verl_pipeline.telemetry.advice import Advice, advise
from verl_pipeline.telemetry.run_folder import Run


@dataclass
class RunView:
    """A run, ready to be shown.

    Attributes:
        name: unique among the runs of a report.
        began: the time that is 0 in charts; seconds since the epoch.
        bills: of the whole run, one a pool.
        figures: of the whole run, by label: what runs are compared by; NaN if unknown.
    """

    name: str
    run: Run
    rows: TrajectoryRows
    began: float
    state: RunState
    advice: Advice
    bills: list[Bill]
    figures: dict[str, float] = field(default_factory=dict)


def make_view(run: Run, name: str) -> RunView:
    """Compute what is shown of a run."""
    rows = read_trajectory_rows(run)
    starts = [header.started for header in run.headers]
    starts += read_numbers(run.spans, "start")[:1].tolist()
    began = min([*starts, float(np.nanmin(rows.started, initial=np.inf))])
    view = RunView(name, run, rows, began, read_state(run), advise(run), bill_run(run))
    view.figures = _compute_figures(view)
    return view


def count_devices(run: Run) -> int:
    """Return the devices of a run, those that its pools share once."""
    header = run.header
    if header.shares_devices:
        return header.trainer_devices
    return header.trainer_devices + header.rollout_devices


def _compute_figures(view: RunView) -> dict[str, float]:
    """Return the figures that runs are compared by; NaN if unknown."""
    run, rows = view.run, view.rows
    steps = [bill for bill in bill_steps(run) if bill.pool == "trainer"]
    wall_s = sum(bill.end - bill.start for bill in steps)
    is_trained = rows.fates == "trained"
    tokens = float(np.nansum(rows.response_tokens[is_trained]))
    rewards = [
        record.metrics.get("critic/score/mean", record.metrics.get("critic/rewards/mean", np.nan))
        for record in run.steps
    ]
    count = len(steps)
    last = rewards[-max(len(rewards) // 10, 1) :]
    return {
        "Steps": float(count),
        "Wall time (s)": run.last_time - view.began,
        "Seconds a step": wall_s / count if count else np.nan,
        "Trained response tokens a second": tokens / wall_s if wall_s else np.nan,
        "Device-seconds for 1,000 trained tokens": (
            1000 * wall_s * count_devices(run) / tokens if tokens else np.nan
        ),
        "Trajectories trained": float(is_trained.sum()),
        "Mean response (tokens)": _average(rows.response_tokens[is_trained]),
        "Reward, first step": rewards[0] if rewards else np.nan,
        "Reward, last tenth of the steps": _average(np.array(last, float)),
    }


def _average(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def format_figure(label: str, value: float) -> str:
    """Return a figure as people read it."""
    if not np.isfinite(value):
        return "–"
    digits = 0 if abs(value) >= 1000 or value == int(value) else 3 if abs(value) < 10 else 1
    return format_decimal(value, digits, group=True)


@dataclass
class Charts:
    """The charts of a page, by the id that its template names."""

    items: dict[str, UIElement] = field(default_factory=dict)

    def add(self, chart: UIElement) -> str:
        """Add a chart, and return its id."""
        name = str(len(self.items))
        self.items[name] = chart
        return name


def show_run(view: RunView, charts: Charts, runs: int) -> tuple[dict[str, Any], Rollouts]:
    """Return what the template shows of a run, and the trajectories of its viewer.

    Args:
        charts: to which the run's are added.
        runs: how many runs share the page.
    """
    run, rows = view.run, view.rows
    rollouts = pack_rollouts(run, rows, view.began, runs)
    timeline = draw_timeline(run, rows, rollouts.picked, view.began)
    pools = [str(bill.pool) for bill in view.bills]
    curves = draw_curves({view.name: run.steps})
    context = {
        "name": view.name,
        "state": view.state.name,
        "kicker": _describe_pools(run),
        "advice": view.advice.sentence,
        "end": view.state.sentence,
        "bill": charts.add(draw_run_bills(view.bills, pools)),
        "tiles": _make_tiles(view),
        "problems": run.problems,
        "timeline": charts.add(timeline.chart),
        "timeline_notes": timeline.notes,
        "step_bills": _show_step_bills(run, pools, charts),
        "causes": _list_causes(view.bills),
        "curves": [{"title": title, "id": charts.add(chart)} for title, chart in curves],
        "batches": [{"title": t, "id": charts.add(chart)} for t, chart in draw_batches(rows)],
        "rollout_notes": rollouts.notes,
        **show_ledger(run),
        "facts": _list_facts(run),
        "settings": OmegaConf.to_yaml(OmegaConf.create(run.header.settings)),
    }
    labels = {
        "timeline": "Timeline",
        "steps": "Steps",
        "curves": "Learning",
        "batches": "Batches",
        "rollouts": "Rollouts",
        "ledger": "Ledger",
        "settings": "Configuration",
    }
    context["sections"] = [pair for pair in labels.items() if pair[0] != "curves" or curves]
    return context, rollouts


def _describe_pools(run: Run) -> str:
    header = run.header
    if header.shares_devices:
        devices = f"{header.trainer_devices} devices, shared by both pools"
    else:
        devices = f"{header.trainer_devices} devices train, {header.rollout_devices} sample"
    staleness = "" if header.staleness is None else f", staleness {header.staleness}"
    return f"{header.mode}{staleness}, {devices}"


def _make_tiles(view: RunView) -> list[dict[str, str]]:
    figures, header = view.figures, view.run.header
    reward = "Reward, last tenth of the steps"
    first = format_figure(reward, figures["Reward, first step"])
    tiles = [
        ("Steps", f"{figures['Steps']:.0f} of {header.last_step}", ""),
        ("Wall time", format_duration(figures["Wall time (s)"]), ""),
        ("Seconds a step", None, ""),
        ("Trained response tokens a second", None, ""),
        ("Device-seconds for 1,000 trained tokens", None, ""),
        (reward, None, f"{first} at first" if first != "–" else ""),
    ]
    return [
        {"label": label, "value": value or format_figure(label, figures[label]), "note": note}
        for label, value, note in tiles
    ]


def _show_step_bills(run: Run, pools: Sequence[str], charts: Charts) -> list[dict[str, Any]]:
    bills = bill_steps(run)
    shown = []
    for pool in pools:
        if any(bill.pool == pool for bill in bills):
            chart, note = draw_step_bills(bills, pool)
            title = f"{pool.capitalize()} pool"
            shown.append({"title": title, "id": charts.add(chart), "note": note})
    return shown


def _list_causes(bills: Sequence[Bill]) -> list[dict[str, str]]:
    rows = [
        (str(bill.pool), cause, seconds, seconds / max(bill.end - bill.start, 1e-9))
        for bill in bills
        for cause, seconds in sorted(bill.causes.items(), key=lambda pair: -pair[1])
    ]
    return [
        {
            "pool": pool,
            "name": label_name(cause),
            "seconds": format_decimal(seconds, group=True),
            "share": format_percent(share),
        }
        for pool, cause, seconds, share in rows
        if share >= 0.0005
    ]


def _list_facts(run: Run) -> list[tuple[str, str]]:
    header = run.header
    facts = {
        "Folder": run.folder,
        "Mode": header.mode,
        "Staleness": header.staleness,
        "Replicas": header.replicas,
        "Sequences at once, a replica": header.slots,
        "Batch": f"{header.batch_size} prompts, {header.group_size} trajectories each",
        "Driver": f"{header.host}, process {header.pid}",
        "Starts": len(run.headers) if len(run.headers) > 1 else None,
    } | header.versions
    return [(label, str(value)) for label, value in facts.items() if value is not None]
