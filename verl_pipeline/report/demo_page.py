"""The page of ``verl-pipeline demo``: the schedules below each other on one time axis."""

from collections.abc import Sequence
from pathlib import Path

from verl_pipeline.emulated.schedule_runs import SYNC, ScheduleRun
from verl_pipeline.number_formats import format_decimal, format_percent
from verl_pipeline.outputs.files import prepare_target, refuse_foreign_text
from verl_pipeline.planner.profile import Profile
from verl_pipeline.report.page import Charts, write_page
from verl_pipeline.report.schedule_charts import MAX_REPLICAS, draw_schedules

MARK = "verl-pipeline demo"
# Steps of sync that the charts show.
SHOWN_STEPS = 2.0
COLUMNS = [
    ("Schedule", "schedule", ""),
    ("GPUs", "split", "number"),
    ("Step", "step", "number"),
    ("Gain", "gain", "number"),
    ("Updating", "trainer", "number"),
    ("Oldest token", "age", "number"),
]
SENTENCES = {
    "sync": "All GPUs sample, then all train. While the last long responses are sampled, most of "
    "the cluster waits.",
    "drained": "Two pools. While update k runs, batch k+1 is sampled. Both still wait for the "
    "longest response of every batch.",
    "rolling": "A replica takes new weights whenever it runs empty, and begins the next batch. "
    "Each response is sampled with one version.",
    "in_flight": "A replica takes new weights at once, with its requests frozen, and goes on. A "
    "response may have several versions; the bound holds for each of its tokens.",
}


def describe_schedule(run: ScheduleRun) -> dict[str, str]:
    """A row of the table."""
    layout, age = run.layout, run.schedule.staleness
    split = f"{layout.rollout_gpus} + {layout.trainer_gpus}"
    return {
        "schedule": str(run.schedule),
        "split": f"all {layout.rollout_gpus}" if run.schedule == SYNC else split,
        "step": f"{format_decimal(run.step_s, 0)} s",
        "gain": format_decimal(run.gain, 2),
        "trainer": format_percent(run.trainer_share, 0),
        "age": f"{age} update{'' if age == 1 else 's'}",
    }


def make_sentence(runs: Sequence[ScheduleRun]) -> str:
    """What the runs show; the first is `sync`."""
    sync, *others = runs
    best = max(others, key=lambda run: run.gain)
    seconds = f"{format_decimal(best.step_s, 0)} s a step, sync {format_decimal(sync.step_s, 0)} s"
    if best.gain > 1:
        return f"{best.schedule} takes {seconds}: {format_decimal(best.gain, 2)} times as fast."
    return f"Stay with sync here: the best of the others, {best.schedule}, takes {seconds}."


def refuse_other_file(path: Path) -> None:
    """Look at the file before anything is run.

    Raises:
        OutputError: it holds something else, or cannot be written.
    """
    refuse_foreign_text(path, MARK, "a page of verl-pipeline demo")
    prepare_target(path)


def write_demo_page(path: Path, profile: Profile, runs: Sequence[ScheduleRun]) -> int:
    """Write the page.

    Args:
        runs: the first is `sync`.

    Returns:
        Its size in bytes.

    Raises:
        OutputError: the system refuses.
    """
    charts = Charts()
    rows = [describe_schedule(run) for run in runs]
    titles = [
        str(run.schedule)
        if run.schedule == SYNC
        else f"{row['schedule']}: {row['gain']} times as fast"
        for row, run in zip(rows, runs, strict=True)
    ]
    context = {
        "mark": MARK,
        "title": "The schedules side by side",
        "profile": profile.name,
        "description": profile.description,
        "sentence": make_sentence(runs),
        "trajectories": profile.sampling.trajectories,
        "columns": COLUMNS,
        "rows": rows,
        "sentences": [
            (row["schedule"], SENTENCES[run.schedule.kind])
            for row, run in zip(rows, runs, strict=True)
        ],
        "chart_id": charts.add(draw_schedules(runs, titles, SHOWN_STEPS * runs[0].step_s)),
        "hidden": _describe_hidden(runs),
    }
    return write_page(path, "demo.html.jinja", context, charts, {})


def _describe_hidden(runs: Sequence[ScheduleRun]) -> str:
    most = max(len(run.world.replicas) for run in runs)
    return (
        f"Of more than {MAX_REPLICAS} replicas, the first {MAX_REPLICAS} are drawn."
        if most > MAX_REPLICAS
        else ""
    )
