"""What a run is doing: one frame for a terminal, made from the run's folder alone.

Invariants:
* The folder is only read, and of a long run only the end of its files, so that a frame takes the
  same time whatever the run's length.
* "Now" is the time of the run's last record: no clock of another machine is compared with ours but
  to say how long ago that record was written.
* Texts of the run are shown with their control characters escaped, and never as markup.
"""

import time
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from verl_pipeline.errors import show_line
from verl_pipeline.number_formats import format_decimal, format_percent
from verl_pipeline.telemetry.accounting import Bill, bill_steps
from verl_pipeline.telemetry.demand import read_version
from verl_pipeline.telemetry.records import FOLDER, Pool
from verl_pipeline.telemetry.run_folder import Run, load_run

# Of each file: some ten thousand events.
LAST_BYTES = 4 << 20
# Names of the reward in verl's metrics; the first that a run has is shown.
REWARDS = ("critic/score/mean", "critic/rewards/mean")
_BARS = "▁▂▃▄▅▆▇█"
_CURVE_STEPS = 60
_WAITED_FOR = 5
# Steps whose mean is taken for the time that is left.
_ETA_STEPS = 10
# A run that has written nothing for so long has stopped, or its replicas have no statistics.
_SILENT_S = 60.0


def load_end(folder: Path) -> Run:
    """Return the end of a run; see :func:`.run_folder.load_run` for errors."""
    return load_run(folder, LAST_BYTES)


def make_frame(run: Run, age_s: float) -> RenderableType:
    """Return what a terminal shows of a run.

    Args:
        age_s: seconds since its last record was written.
    """
    bills = bill_steps(run)
    lines: list[RenderableType] = [_line(_describe_run(run, age_s), "bold")]
    lines += [_line(f"note: {problem}", "yellow") for problem in run.problems]
    lines += [_line(_describe_progress(run, bills)), _line(_describe_reward(run))]
    lines += [_line(_describe_pool(bills, pool)) for pool in Pool]
    lines += [_line(_describe_driver(run)), _make_replica_table(run)]
    return Group(*lines, *_list_waited_for(run))


def measure_age(folder: Path) -> float:
    """Return the seconds since a file of the run was last written."""
    telemetry = folder / FOLDER if (folder / FOLDER).is_dir() else folder
    times = [path.stat().st_mtime for path in telemetry.glob("*.jsonl*")]
    return max(time.time() - max(times, default=0.0), 0.0)


def draw_curve(values: list[float]) -> str:
    """Return numbers as a line of bars, each as high as its place between smallest and largest."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    scale = (len(_BARS) - 1) / (high - low) if 0 < high - low < float("inf") else 0.0
    return "".join(_BARS[round((value - low) * scale)] for value in values)


def _describe_run(run: Run, age_s: float) -> str:
    header = run.header
    state = "running"
    if run.has_ended:
        state = "ended"
    elif age_s > _SILENT_S:
        state = f"nothing written for {_show_time(age_s)}: killed, or stuck"
    devices = f"{header.trainer_devices} + {header.rollout_devices} devices"
    if header.shares_devices:
        devices = f"{header.trainer_devices} devices"
    return f"{header.run_name}: {header.schedule}, {devices}: {state}"


def _describe_progress(run: Run, bills: list[Bill]) -> str:
    step = run.steps[-1].step if run.steps else 0
    last = run.header.last_step
    text = f"step {step} of {last}"
    seconds = [bill.end - bill.start for bill in bills if bill.pool == Pool.TRAINER]
    if seconds:
        mean = float(np.mean(seconds[-_ETA_STEPS:]))
        text += f", {format_decimal(seconds[-1])} s the last one"
        if not run.has_ended and last > step:
            text += f", about {_show_time(mean * (last - step))} left"
    return text


def _describe_reward(run: Run) -> str:
    for name in REWARDS:
        values = [step.metrics[name] for step in run.steps if name in step.metrics]
        values = [float(value) for value in values if np.isfinite(value)]
        if values:
            recent = values[-_CURVE_STEPS:]
            return f"reward {draw_curve(recent)} {format_decimal(values[-1], 3)}"
    return "reward: no step yet"


def _describe_pool(bills: list[Bill], pool: Pool) -> str:
    """The shares of the last complete step."""
    own = [bill for bill in bills if bill.pool == pool]
    if not own:
        return f"{pool}: no complete step yet"
    bill = own[-1]
    length = bill.end - bill.start or 1.0
    shares = sorted(bill.seconds.items(), key=lambda item: -item[1])
    named = [f"{name} {format_percent(s / length, 0)}" for name, s in shares if s >= length / 100]
    return f"{pool} in step {bill.step}: {', '.join(named)}"


def _describe_driver(run: Run) -> str:
    """What the driver ended last: spans are written when they end."""
    spans = run.spans.filter(
        (pc.field("pool") == str(Pool.TRAINER)) & (pc.field("lane") == "driver")
    )
    if not spans.num_rows:
        return "driver: nothing ended yet"
    last = spans.take([int(np.argmax(spans["end"].to_numpy()))]).to_pylist()[0]
    since = _show_time(max(run.last_time - last["end"], 0.0))
    return f"driver: ended {last['name']} {since} before the last record"


def _make_replica_table(run: Run) -> RenderableType:
    if not run.gauges.num_rows:
        return _line("replicas: no statistics yet", "dim")
    table = Table("replica", box=None, pad_edge=False)
    versions = _find_versions(run)
    names = ("running", "waiting", "KV cache", "tokens/s", "preempted")
    for name in (*names, "weights") if run.header.flows else names:
        table.add_column(name, justify="right")
    for lane in sorted(run.gauges["lane"].unique().to_pylist()):
        own = run.gauges.filter(pc.field("lane") == lane)
        last_two = own.slice(max(own.num_rows - 2, 0)).to_pylist()
        before, last = last_two[0], last_two[-1]
        table.add_row(
            Text(show_line(lane)),
            _show_number(last["running"]),
            _show_number(last["waiting"]),
            "-" if last["kv_share"] is None else format_percent(last["kv_share"], 0),
            _show_number(_compute_rate(before, last)),
            _show_number(last["preemptions"]),
            *([versions.get(lane, "-")] if run.header.flows else []),
        )
    return table


def _list_waited_for(run: Run) -> list[RenderableType]:
    """The trajectories in flight that began first, and past the barrier what waits for a place."""
    table = run.trajectories
    is_open = table["started"].is_valid()
    for moment in ("generated", "failed", "filtered", "trained"):
        is_open = pc.and_(is_open, table[moment].is_null())
    table = table.filter(is_open)
    began, queued = "started", table.slice(0, 0)
    if run.header.flows:
        began, queued = "begun", table.filter(table["begun"].is_null())
        table = table.filter(table["begun"].is_valid())
    table = table.sort_by(began)
    lines: list[RenderableType] = []
    if queued.num_rows and not run.has_ended:
        first = pc.min(queued["batch"]).as_py()
        lines = [_line(f"waiting for a place: {queued.num_rows}, the first of batch {first}")]
    if run.has_ended or not table.num_rows:
        return [*lines, _line("in flight: none", "dim")]
    lines.append(_line(f"in flight: {table.num_rows}; the oldest:"))
    for row in table.slice(0, _WAITED_FOR).to_pylist():
        batch = "validation" if row["is_validation"] else f"batch {row['batch']}"
        since = _show_time(max(run.last_time - row[began], 0.0))
        lines.append(_line(f"  {row['prompt']} session {row['session']} ({batch}): since {since}"))
    return lines


def _find_versions(run: Run) -> dict[str, str]:
    """What each replica loaded last, by lane."""
    loads = run.spans.filter(pc.field("name") == "load_weights").sort_by("end")
    return {
        lane: f"v_{version}"
        for lane, detail in zip(loads["lane"].to_pylist(), loads["detail"].to_pylist(), strict=True)
        if (version := read_version(detail)) is not None
    }


def _compute_rate(before: dict, last: dict) -> float | None:
    """Tokens a second between two gauges of a replica."""
    seconds = last["t"] - before["t"]
    if seconds <= 0 or last["generated_tokens"] is None or before["generated_tokens"] is None:
        return None
    return max(last["generated_tokens"] - before["generated_tokens"], 0.0) / seconds


def _line(text: str, style: str = "") -> Text:
    """A line that shows a text as it is."""
    return Text(show_line(text), style=style, overflow="ellipsis", no_wrap=True)


def _show_number(value: float | None) -> str:
    return "-" if value is None else format_decimal(value, 0)


def _show_time(seconds: float) -> str:
    """A duration as ``42 s``, ``3 min 05 s`` or ``2 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min {int(seconds % 60):02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
