"""What the page shows of one run: the template's texts, tables and charts.

Invariant: what the records do not give is left out, not guessed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import yaml

from verl_pipeline.number_formats import format_decimal, format_percent
from verl_pipeline.report.batches import draw_batches
from verl_pipeline.report.bills import draw_run_bills, draw_step_bills
from verl_pipeline.report.curves import draw_curves
from verl_pipeline.report.ledger_table import show_ledger
from verl_pipeline.report.page import Charts
from verl_pipeline.report.rollouts import Rollouts, pack_rollouts
from verl_pipeline.report.run_state import format_duration
from verl_pipeline.report.run_view import (
    DEVICE_SECONDS,
    EFFICIENCY,
    FIRST_REWARD,
    IDEAL_S,
    LAST_REWARD,
    STEP_S,
    TOKENS_A_SECOND,
    WALL_S,
    RunView,
    format_figure,
)
from verl_pipeline.report.timeline import draw_timeline
from verl_pipeline.report.trajectory_rows import TrajectoryRows
from verl_pipeline.telemetry.accounting import Bill
from verl_pipeline.telemetry.records import Pool
from verl_pipeline.telemetry.run_folder import Run

MAX_TAIL = 8


def show_run(view: RunView, charts: Charts, runs: int) -> tuple[dict[str, Any], Rollouts]:
    """Return what the template shows of a run, and the trajectories of its viewer.

    Args:
        charts: to which the run's are added.
        runs: how many runs share the page.
    """
    run, rows = view.run, view.rows
    rollouts = pack_rollouts(run, rows, view.began, runs)
    timeline = draw_timeline(run, rows, rollouts.picked, view.began)
    pools = [str(bill.pool) for bill in view.pool_bills]
    curves = draw_curves({view.name: run.steps})
    context = {
        "name": view.name,
        "state": view.state.name,
        "kicker": _describe_pools(run),
        "advice": capitalize(view.advice.sentence),
        "end": view.state.sentence,
        "bill": charts.add(draw_run_bills(view.pool_bills, pools)),
        "tiles": _make_tiles(view),
        "problems": run.problems,
        "timeline": charts.add(timeline.chart),
        "timeline_notes": [*timeline.notes, *_note_first_tokens(rows)],
        "step_bills": _show_step_bills(view.step_bills, charts),
        "causes": _list_causes(view.bills),
        "tail": _list_tail(view),
        "curves": [{"title": title, "id": charts.add(chart)} for title, chart in curves],
        "batches": [{"title": t, "id": charts.add(chart)} for t, chart in draw_batches(rows)],
        "rollout_notes": rollouts.notes,
        **show_ledger(run),
        "facts": _list_facts(run),
        "settings": yaml.safe_dump(run.header.settings, sort_keys=False),
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


def capitalize(sentence: str) -> str:
    """Return a sentence with a capital at its start, as a heading has."""
    return sentence[:1].upper() + sentence[1:]


def _describe_pools(run: Run) -> str:
    header = run.header
    if header.shares_devices:
        devices = f"{header.trainer_devices} devices, shared by both pools"
    else:
        devices = f"{header.trainer_devices} devices train, {header.rollout_devices} sample"
    return f"{header.schedule}, {devices}"


def _make_tiles(view: RunView) -> list[dict[str, str]]:
    figures, header = view.figures, view.run.header

    def tile(label: str, value: str, note: str = "") -> dict[str, str]:
        return {"label": label, "value": value, "note": note}

    def show(name: str, note: str = "") -> dict[str, str]:
        return tile(name, format_figure(figures[name]), note)

    ideal, share = figures[IDEAL_S], figures[EFFICIENCY]
    known = np.isfinite(ideal) and np.isfinite(share)
    first = figures[FIRST_REWARD]
    return [
        show(
            STEP_S,
            f"{format_figure(ideal)} at best, so {format_figure(share)} % efficient" * bool(known),
        ),
        show(TOKENS_A_SECOND),
        show(DEVICE_SECONDS),
        show(LAST_REWARD, f"{format_figure(first)} in the first" * bool(np.isfinite(first))),
        tile("Steps", f"{len(view.run.steps):,} of {header.last_step:,}"),
        tile("Wall time", format_duration(figures[WALL_S])),
    ]


def _show_step_bills(bills: Sequence[Bill], charts: Charts) -> list[dict[str, Any]]:
    shown = []
    for pool in Pool:
        if any(bill.pool == pool for bill in bills):
            chart, note = draw_step_bills(bills, pool)
            title = "Rewards" if pool == Pool.REWARD else f"{pool.capitalize()} pool"
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
            "name": cause,
            "seconds": format_decimal(seconds, group=True),
            "share": format_percent(share),
        }
        for pool, cause, seconds, share in rows
        if share >= 0.0005
    ]


def _list_tail(view: RunView) -> list[dict[str, Any]]:
    """Return the trajectories that were waited for longest, with their place in the viewer."""
    rows, shown = view.rows, []
    for prompt in view.efficiency.tail_prompts[:MAX_TAIL]:
        own = rows.prompt.select(prompt.prompt) & (rows.session == prompt.session)
        own &= rows.step == (np.nan if prompt.step is None else prompt.step)
        places = np.flatnonzero(own)
        shown.append(
            {
                "prompt": prompt.prompt,
                "session": prompt.session + 1,
                "step": prompt.step,
                "id": int(places[0]) if len(places) else None,
                "replica": prompt.replica or "–",
                "tokens": "–" if prompt.response_tokens is None else f"{prompt.response_tokens:,}",
                "waited": format_decimal(prompt.waited_s),
                "tail": format_decimal(prompt.tail_s),
            }
        )
    return shown


def _list_facts(run: Run) -> list[tuple[str, str]]:
    header = run.header
    facts = {
        "Folder": run.folder,
        "Mode": header.mode,
        "New weights": header.weight_sync_mode,
        "Staleness": header.staleness,
        "Replicas": header.replicas,
        "Sequences at once, a replica": header.slots,
        "Batch": f"{header.batch_size} prompts, {header.group_size} trajectories each",
        "Driver": f"{header.host}, process {header.pid}",
        "Starts": len(run.headers) if len(run.headers) > 1 else None,
        "Clocks": _describe_clocks(run),
    } | header.versions
    return [(label, str(value)) for label, value in facts.items() if value is not None]


def _describe_clocks(run: Run) -> str | None:
    if not run.clocks:
        return None
    error = max(clock.error_s for clock in run.clocks)
    drift = max(clock.drift_s for clock in run.clocks)
    return (
        f"{len(run.clocks):,} process{'es' * (len(run.clocks) > 1)}, on the driver's clock to "
        f"within {format_decimal(error, 4)} s; largest drift {format_decimal(drift, 4)} s, "
        "corrected"
    )


def _note_first_tokens(rows: TrajectoryRows) -> list[str]:
    sampled = rows.response_tokens > 0
    if not sampled.any() or not np.isnan(rows.first_token[sampled]).all():
        return []
    return ["The rollout engine does not tell when a trajectory got its first token."]
