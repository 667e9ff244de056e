"""A plan as a whole: answer, table of schedules, costs and sensitivity; as text and as JSON."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from verl_pipeline.errors import escape_controls
from verl_pipeline.number_formats import format_decimal, format_interval, format_percent
from verl_pipeline.planner.answer import (
    Answer,
    choose_plan,
    compute_cost,
    make_answer,
    show_seconds,
)
from verl_pipeline.planner.estimate import Estimate
from verl_pipeline.planner.gain_map import Cell, map_gains
from verl_pipeline.planner.plan import Plan, Planner, find_plans
from verl_pipeline.planner.profile import Profile, check_profile
from verl_pipeline.planner.profile_reader import list_profiles, load_profile
from verl_pipeline.planner.schedules import OURS
from verl_pipeline.planner.sensitivity import Change, measure_sensitivity
from verl_pipeline.planner.splits import list_splits, read_split

# Every file of the command has it.
MARK = '"planner": "verl-pipeline plan"'


@dataclass(frozen=True)
class PlanReport:
    """What the command prints and writes.

    Attributes:
        sync: the baseline.
        plans: the best of each schedule.
        refined: the best of each of our modes with other slots, and of them all handed out longest
            first by a perfect predictor.
        changes: sensitivity of the plan of the answer.
        price: of a GPU-hour, or None.
        cells: the map around the profile, if it was asked for.
    """

    estimate: Estimate
    sync: Plan
    plans: list[Plan]
    refined: list[Plan]
    answer: Answer
    changes: list[Change]
    price: float | None
    cells: list[Cell]

    @property
    def profile(self) -> Profile:
        return self.estimate.profile

    def to_json(self) -> dict[str, Any]:
        """Everything, as it is; money in the unit of the price."""
        return {
            "planner": "verl-pipeline plan",
            "profile": self.profile.name,
            "gpus": self.profile.gpus,
            "notes": list(self.estimate.notes),
            "run": dataclasses.asdict(run) if (run := self.estimate.reproduction) else None,
            "answer": {
                "verdict": self.answer.verdict,
                "sentence": self.answer.sentence,
                "overrides": list(self.answer.overrides),
            },
            "plans": [
                plan.to_json() | {"per_100_steps": compute_cost(self.profile, plan, self.price)}
                for plan in (self.sync, *self.plans, *self.refined)
            ],
            "sensitivity": [dataclasses.asdict(change) for change in self.changes],
            "map": [dataclasses.asdict(cell) for cell in self.cells],
        }


def make_report(
    estimate: Estimate,
    *,
    gpus: int | None,
    split: str | None,
    price: float | None,
    seeds: int,
    show: Callable[[str], None],
    with_map: bool = False,
) -> PlanReport:
    """Simulate everything.

    Args:
        gpus: instead of the profile's.
        split: the only one to try, as ``4:12``.
        show: called with what is simulated next.
        with_map: also predict the map around the profile.

    Raises:
        ProfileError: the split is impossible, or the profile needs more GPUs.
    """
    profile = estimate.profile
    if gpus is not None:
        profile = dataclasses.replace(profile, gpus=gpus)
        check_profile(profile)
        estimate = dataclasses.replace(estimate, profile=profile)
    splits = [read_split(profile, split)] if split else list_splits(profile)
    planner = Planner(profile, seeds)
    show("sync")
    sync = planner.sync
    plans = find_plans(planner, splits, report=show)
    refined, changes = [], []
    if plans:
        show("slots and order")
        for kind in OURS:
            best = choose_plan([plan for plan in plans if plan.schedule.kind == kind])
            if best is not None and (better := planner.refine(best, False)) is not best:
                refined.append(better)
    answer = make_answer(profile, sync, [*plans, *refined])
    if answer.plan is not None:
        refined.append(planner.refine(answer.plan, longest_first=True))
        show("sensitivity")
        changes = measure_sensitivity(profile, answer.plan)
    cells = map_gains(profile, show) if with_map else []
    return PlanReport(estimate, sync, plans, refined, answer, changes, price, cells)


def describe_profiles() -> list[str]:
    """A line for each profile of the package."""
    return [f"{name}: {load_profile(Path(name)).description}" for name in list_profiles()]


def list_lines(report: PlanReport) -> list[str]:
    """The answer in words, above the table."""
    answer, best = report.answer, report.answer.plan
    lines = [answer.sentence, "", "Overrides:", *(f"  {line}" for line in answer.overrides), ""]
    if reproduction := report.estimate.reproduction:
        lines += [reproduction.describe(), ""]
    if report.estimate.notes:
        lines += [
            "Keep in mind:",
            *(f"  * {escape_controls(note)}" for note in report.estimate.notes),
            "",
        ]
    if best is not None and best.limit is not None and best.nearness is not None:
        limit = best.limit
        rewards = f", rewards {show_seconds(limit.reward)}" if limit.reward else ""
        lines.append(
            f"Limit of the best plan: {show_seconds(limit.step_s)} a step, by its {limit.cause} "
            f"(update {show_seconds(limit.update)}, work at full rate {show_seconds(limit.work)}"
            f"{rewards}, chain of the longest and the update {show_seconds(limit.chain)}); "
            f"reached: {format_percent(best.nearness)}."
        )
        lines.append(f"Where its GPU time goes: {_show_shares(best)}.")
    lines.append(f"Where that of sync goes: {_show_shares(report.sync)}.")
    if report.changes:
        changes = "; ".join(f"{c.name} {format_decimal(c.gain, 2)}" for c in report.changes)
        lines.append(f"Gain of the same plan with other work: {changes}.")
    lines += [_show_cost(report, "sync", report.sync)]
    if best is not None:
        lines.append(_show_cost(report, str(best.schedule), best))
    return [*lines, ""]


def make_table(report: PlanReport) -> Table:
    """One row for each schedule at its best split."""
    table = Table()
    for title in ("schedule", "split", "step", "gain", "of limit", "age", "today"):
        table.add_column(title, justify="left" if title == "schedule" else "right", no_wrap=True)
    for plan in (report.sync, *report.plans, *report.refined):
        first = ", longest first" if plan.layout.longest_first else ""
        slots = plan.layout.slots
        more = "" if slots == report.profile.sampling.slots else f", {slots} slots"
        table.add_row(
            f"{plan.schedule}{more}{first}",
            f"{plan.layout.rollout_gpus}:{plan.layout.trainer_gpus}" if plan.split else "all",
            show_seconds(plan.step_s),
            format_interval(plan.gain, min(plan.gains), max(plan.gains), 2),
            "-" if plan.nearness is None else format_percent(plan.nearness, 0),
            format_decimal(plan.mean_age, 1),
            "yes" if not plan.layout.longest_first else "not built",
        )
    return table


def _show_shares(plan: Plan) -> str:
    shares = sorted(plan.shares.items(), key=lambda item: -item[1])
    shown = [f"{cause} {format_percent(share, 0)}" for cause, share in shares if share >= 0.005]
    return ", ".join(name.replace("_", " ") for name in shown)


def _show_cost(report: PlanReport, name: str, plan: Plan) -> str:
    cost = compute_cost(report.profile, plan, report.price)
    money = f", at a price of {format_decimal(cost['money'], 2)}" if "money" in cost else ""
    return f"100 steps of {name}: {format_decimal(cost['gpu_hours'])} GPU-hours{money}."
