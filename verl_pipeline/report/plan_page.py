"""The page of a plan: ``verl-pipeline plan --html``.

Invariant: what the page says is what the command prints and its JSON holds; nothing is simulated
here but where the profile lies on its map.
"""

from pathlib import Path
from typing import Any

from verl_pipeline.number_formats import format_decimal, format_interval, format_percent
from verl_pipeline.planner.answer import SLOWER, STAY, USE, compute_cost, show_seconds
from verl_pipeline.planner.gain_map import find_place
from verl_pipeline.planner.plan import Plan
from verl_pipeline.planner.plan_report import PlanReport
from verl_pipeline.planner.profile import Profile
from verl_pipeline.planner.profile_reader import list_fields
from verl_pipeline.report.gain_maps import draw_maps
from verl_pipeline.report.page import Charts, write_page
from verl_pipeline.report.plan_charts import (
    draw_changes,
    draw_gains,
    draw_limits,
    draw_shares,
    name_plan,
)

# Every page has it near its beginning (``generator`` in the template).
MARK = "verl-pipeline plan"
PAGE_MARK = f'<meta name="generator" content="{MARK}">'
VERDICTS = {USE: "use two pools", STAY: "stay with sync", SLOWER: "stay with sync"}
# By verdict, the class that gives its colour.
STATES = {USE: "ended", STAY: "running", SLOWER: "died"}
COLUMNS = [
    ("Schedule", "schedule", ""),
    ("Split", "split", "number"),
    ("Slots", "slots", "number"),
    ("Step", "step", "number"),
    ("Gain", "gain", "number"),
    ("Of the limit", "near", "number"),
    ("Age", "age", "number"),
    ("GPU-hours, 100 steps", "hours", "number"),
    ("Today", "today", ""),
]
MAX_FACT = 300


def write_plan_page(path: Path, report: PlanReport) -> int:
    """Write the page.

    Args:
        path: of the file, which is replaced.

    Returns:
        Its size in bytes.

    Raises:
        OutputError: the system refuses.
    """
    charts = Charts()
    profile, best = report.profile, report.answer.plan
    two_pools = [*report.plans, *report.refined]
    every = [report.sync, *two_pools]
    names = {id(plan): name_plan(plan, profile.sampling.slots) for plan in every}
    labels = [names[id(plan)] for plan in two_pools]
    limits = changes = gains = None
    if two_pools:
        gains = charts.add(draw_gains(two_pools, labels))
        limits = charts.add(draw_limits(two_pools, labels))
    if best is not None and report.changes:
        changes = charts.add(draw_changes(report.changes, best.gain))
    maps, place = _show_maps(report, charts)
    context: dict[str, Any] = {
        "mark": MARK,
        "title": f"{profile.name}: plan",
        "name": profile.name,
        "kicker": f"{profile.gpus} GPUs{f', {profile.gpu}' if profile.gpu else ''}",
        "state": STATES[report.answer.verdict],
        "verdict": VERDICTS[report.answer.verdict],
        "sentence": report.answer.sentence,
        "sentences": _list_sentences(report),
        "tiles": _make_tiles(report),
        "notes": report.estimate.notes,
        "overrides": " \\\n".join(report.answer.overrides),
        "seeds": len(report.sync.gains),
        "columns": COLUMNS,
        "rows": [_show_plan(report, plan) for plan in every],
        "gains": gains,
        "shares": charts.add(draw_shares(every, [names[id(plan)] for plan in every])),
        "limits": limits,
        "changes": changes,
        "maps": maps,
        "place": place,
        "facts": _list_facts(profile),
        "sections": [
            ("overrides", "Settings"),
            ("plans", "Plans"),
            ("loss", "GPU time"),
            *([("limit", "Limit")] if limits else []),
            *([("work", "Other work")] if changes else []),
            *([("map", "Map")] if maps else []),
            ("profile", "Profile"),
        ],
    }
    return write_page(path, "plan.html.jinja", context, charts, {})


def _list_sentences(report: PlanReport) -> list[str]:
    run = report.estimate.reproduction
    return [run.describe()] if run else []


def _make_tiles(report: PlanReport) -> list[dict[str, str]]:
    best = report.answer.plan
    tiles = [_make_tile("A step of sync", show_seconds(report.sync.step_s))]
    if best is None:
        return tiles
    gain = format_interval(best.gain, min(best.gains), max(best.gains), 2)
    tiles += [
        _make_tile("A step of the best plan", show_seconds(best.step_s)),
        _make_tile("Gain", gain, "mean and range over the seeds"),
    ]
    if best.limit is not None and best.nearness is not None:
        note = f"of {show_seconds(best.limit.step_s)}, set by its {best.limit.cause}"
        tiles.append(_make_tile("Nearness to its limit", format_percent(best.nearness, 0), note))
    saved = compute_cost(report.profile, report.sync, report.price)
    spent = compute_cost(report.profile, best, report.price)
    hours = saved["gpu_hours"] - spent["gpu_hours"]
    tiles.append(_make_tile("GPU-hours saved in 100 steps", format_decimal(hours)))
    if "money" in saved:
        money = format_decimal(saved["money"] - spent["money"], 2)
        tiles.append(_make_tile("Money saved in 100 steps", money, "in the unit of the price"))
    return tiles


def _make_tile(label: str, value: str, note: str = "") -> dict[str, str]:
    return {"label": label, "value": value, "note": note}


def _show_plan(report: PlanReport, plan: Plan) -> dict[str, str]:
    layout = plan.layout
    built = not layout.longest_first
    first = ", longest first" if layout.longest_first else ""
    return {
        "schedule": f"{plan.schedule}{first}",
        "split": f"{layout.rollout_gpus}:{layout.trainer_gpus}" if plan.split else "all",
        "slots": str(layout.slots),
        "step": show_seconds(plan.step_s),
        "gain": format_interval(plan.gain, min(plan.gains), max(plan.gains), 2),
        "near": "" if plan.nearness is None else format_percent(plan.nearness, 0),
        "age": format_decimal(plan.mean_age),
        "hours": format_decimal(compute_cost(report.profile, plan, None)["gpu_hours"]),
        "today": "yes" if built else "not built",
    }


def _show_maps(report: PlanReport, charts: Charts) -> tuple[list[dict[str, Any]], str]:
    """The rows of heat maps, and where the profile lies on them."""
    if not report.cells:
        return [], ""
    place = find_place(report.profile)
    rows = [
        {
            "title": row.title,
            "charts": [{"id": charts.add(plot), "title": title} for title, plot in row.maps],
        }
        for row in draw_maps(report.cells, place, report.profile.reward.streamed_in_sync)
    ]
    sentence = (
        f"The circle is this profile: sampling {format_percent(place.sampling_share, 0)}, "
        f"sigma {format_decimal(place.sigma, 2)}, on the map nearest to its rewards "
        f"({format_percent(place.reward_share, 0)})."
    )
    return rows, sentence


def _list_facts(profile: Profile) -> list[tuple[str, str]]:
    """Fields of the profile with value, unit and source, but for those left at nothing."""
    facts = []
    for name, declared in list_fields():
        value: Any = profile
        for part in name.split("."):
            value = getattr(value, part)
        source = profile.sources.get(name, "")
        if name == "sources" or not (value or source):
            continue
        value = f"{value:g}" if isinstance(value, float) else value
        unit = f" {declared['unit']}" if declared.get("unit") else ""
        facts.append((name, f"{value}{unit}{f' ({source})' if source else ''}"[:MAX_FACT]))
    return facts
