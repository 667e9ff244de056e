"""Draws what trainer and replicas do over time in each mode, from runs on one emulated cluster.

``python -m benchmarks.schedule_pictures --runs DIR [--output docs]``, from the repository's folder;
two cores, about three minutes a mode that has no run in ``DIR`` yet.

The runs have the same lengths and GPUs. What is drawn is what they recorded (:mod:`verl_pipeline
.telemetry`), on the clock of the emulated cluster.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from benchmarks.emulated_cluster import choose_token_factor
from benchmarks.emulated_modes import (
    MODES,
    EmulatedMode,
    make_environment,
    make_overrides,
    write_inputs,
)
from benchmarks.emulated_runs import RUN_TIMEOUT_S, Case, make_cluster
from verl_pipeline.emulated.journal import read_journal
from verl_pipeline.outputs.files import replace_file
from verl_pipeline.path_options import path_option
from verl_pipeline.planner.profile import Profile
from verl_pipeline.planner.profile_reader import load_profile
from verl_pipeline.planner.splits import read_split
from verl_pipeline.telemetry.demand import read_version
from verl_pipeline.telemetry.in_flight import count_over, to_microseconds
from verl_pipeline.telemetry.run_folder import Run, load_run
from verl_pipeline.telemetry.timeline import make_timeline
from verl_pipeline.testing import runs

PROFILE, SPLIT = "deepcoder_code_8xa100", "4:4"
PICTURES = {
    "drained": "ours:drained",
    "rolling": "ours:rolling:2",
    "in_flight": "ours:in_flight:2",
}
STEPS = 9
# Emulated seconds in a real one: few enough for the control plane to be a small part of a step.
TIME_SCALE = 100.0
# Of the cluster; every picture shows as many.
SHOWN_S = 1500.0
VERSIONS = ("#2c9a6c", "#93cfb3", "#17624a")
TRAINING, WAIT, IDLE, LOAD, TEXT = "#3d7fc7", "#eba19f", "#f6dcda", "#a97a12", "#1d2733"
WORK = ("update_actor", "old_log_prob", "ref")


@dataclass(frozen=True)
class _Bar:
    start: float
    end: float
    text: str = ""


@dataclass(frozen=True)
class _Clock:
    """Emulated time by real time, from what the engines wrote down at the end of each activity.

    Attributes:
        real, emulated: seconds, float64 [entries], ascending; real ones since the epoch.
        origin: emulated seconds at which the picture begins.
    """

    real: np.ndarray
    emulated: np.ndarray
    origin: float

    @classmethod
    def read(cls, folder: Path, run: Run, begin: float) -> "_Clock":
        entries = sorted(read_journal(folder.parent / "journal"), key=lambda entry: entry.real)
        real = np.array([entry.real for entry in entries])
        emulated = np.maximum.accumulate([entry.end for entry in entries])
        updates = {entry.step: entry.real for entry in entries if entry.kind == "update"}
        ends = {
            span["step"]: span["end"]
            for span in run.spans.to_pylist()
            if span["name"] == "update_actor" and span["lane"] == "driver"
        }
        # The engine writes a moment before the driver hears of it.
        real += min(ends[step] - updates[step] for step in ends.keys() & updates.keys())
        return cls(real, emulated, float(np.interp(begin, real, emulated)))

    def read_seconds(self, times: np.ndarray) -> np.ndarray:
        """Emulated seconds since the picture's begin; ``times`` are real, since the epoch."""
        return np.interp(times, self.real, self.emulated) - self.origin


def draw_mode(folder: Path, path: Path) -> None:
    """Draw a recorded run, from the start of its second step on."""
    run = load_run(folder)
    timeline = make_timeline(run)
    begin = next(start for step, start, _ in timeline.windows if step == 2)
    tell = _Clock.read(folder, run, timeline.origin + begin / 1e6)
    replicas = [f"replica {rank}" for rank in range(run.header.replicas)]
    with matplotlib.rc_context({"font.size": 8.5}):
        figure = Figure(figsize=(9.6, 0.9 + 0.46 * (len(replicas) + 1)), layout="constrained")
        rows = figure.subplots(len(replicas) + 1, 1, sharex=True)
        _draw_trainer(rows[0], run, tell)
        most = max(int(_count_running(run, name)[1].max(initial=1)) for name in replicas)
        for axes, name in zip(rows[1:], replicas, strict=True):
            _draw_replica(axes, run, name, tell, most)
        for axes in rows:
            axes.set_xlim(0, SHOWN_S)
            axes.set_yticks([])
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.tick_params(bottom=axes is rows[-1])
        rows[-1].set_xlabel("seconds of the emulated cluster")
        title = f"{run.header.weight_sync_mode}, staleness {run.header.staleness}"
        rows[0].set_title(title, loc="left", fontweight="bold")
        figure.legend(
            handles=[Patch(color=colour, label=label) for colour, label in _list_entries()],
            loc="outside lower center",
            ncols=5,
            frameon=False,
        )
        with replace_file(path) as file:
            figure.savefig(file, format="png", dpi=160, metadata={"Software": None})


def _list_entries() -> list[tuple[str, str]]:
    return [
        (TRAINING, "training"),
        (WAIT, "waiting for its batch"),
        (LOAD, "weights sent, published or loaded"),
        (VERSIONS[0], "running requests, by version"),
        (IDLE, "idle"),
    ]


def _draw_trainer(axes: Axes, run: Run, tell: _Clock) -> None:
    axes.set_ylabel("trainer", rotation=0, ha="right", va="center")
    axes.set_ylim(0, 1)
    for bar in _list_bars(run, "driver", ("wait_rollout",), tell):
        _fill(axes, bar, WAIT)
    for bar in _list_bars(run, "driver", WORK, tell):
        _fill(axes, bar, TRAINING, bar.text)
    for bar in _list_bars(run, "driver", ("update_weights",), tell):
        _fill(axes, bar, LOAD)


def _draw_replica(axes: Axes, run: Run, name: str, tell: _Clock, most: int) -> None:
    axes.set_ylabel(name, rotation=0, ha="right", va="center")
    axes.set_ylim(0, most * 1.08)
    edges, running = _count_running(run, name)
    times = tell.read_seconds(edges / 1e6 + make_timeline(run).origin)
    for place in np.flatnonzero(running == 0):
        _fill(axes, _Bar(times[place], times[place + 1]), IDLE)
    loads = _list_bars(run, name, ("load_weights", "update_weights"), tell)
    for load, following in zip(loads, [*loads[1:], _Bar(np.inf, np.inf)], strict=True):
        version = int(load.text.removeprefix("v"))
        held = (times[:-1] >= load.end - 1e-3) & (times[:-1] < following.end - 1e-3)
        heights = np.append(np.where(held, running, 0), 0)
        colour = VERSIONS[version % len(VERSIONS)]
        axes.fill_between(times, 0, heights, step="post", color=colour, lw=0)
        if 0 <= load.end < 0.97 * SHOWN_S:
            axes.text(
                load.end + SHOWN_S / 250, most, load.text, va="top", color=TEXT, fontsize="small"
            )
    for load in loads:
        _fill(axes, load, LOAD)


def _fill(axes: Axes, bar: _Bar, colour: str, text: str = "") -> None:
    axes.axvspan(bar.start, bar.end, color=colour, lw=0)
    begin, end = max(bar.start, 0), min(bar.end, SHOWN_S)
    if end - begin > SHOWN_S / 14:
        axes.text((begin + end) / 2, 0.5, text, ha="center", va="center", color="white")


def _list_bars(run: Run, lane: str, names: Sequence[str], tell: _Clock) -> list[_Bar]:
    """Spans of a lane in seconds of the cluster: of weights with the version, of updates with
    their batch."""
    bars = []
    for span in run.spans.to_pylist():
        if span["lane"] != lane or span["name"] not in names:
            continue
        version = read_version(span["detail"])
        text = f"update {span['step']}" if version is None else f"v{version}"
        start, end = tell.read_seconds(np.array([span["start"], span["end"]])).tolist()
        bars.append(_Bar(start, end, text))
    return sorted(bars, key=lambda bar: bar.end)


def _count_running(run: Run, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Edges (int64 us since the run's start) and how many trajectories the replica runs between."""
    timeline = make_timeline(run)
    lives = timeline.lives
    names = run.trajectories["replica"].take(pa.array(lives.rows)).to_numpy(zero_copy_only=False)
    own = names == name
    starts, ends = lives.starts[own], lives.ends[own]
    shared = run.spans.filter(pc.field("name").isin(["load_weights", "update_weights"]))["end"]
    changes = to_microseconds(shared.to_numpy(), timeline.origin)
    changes = np.clip(changes, 0, timeline.edges[-1])
    edges = np.unique(np.concatenate([timeline.edges[[0, -1]], starts, ends, changes]))
    return edges, count_over(edges, starts, ends)


def run_mode(
    mode: EmulatedMode, profile: Profile, folder: Path, timeout_s: float = RUN_TIMEOUT_S
) -> None:
    """Run a mode on the emulated cluster; its records are in ``folder / "run"``.

    Raises:
        RuntimeError: it failed; the message has the end of its log.
    """
    case = Case(
        PROFILE,
        mode,
        read_split(profile, SPLIT),
        slots=profile.sampling.slots,
        seed=0,
        steps=STEPS,
        warm_up=1,
        time_scale=TIME_SCALE,
        control_scale=1.0,
        token_factor=choose_token_factor(profile, 0),
    )
    folder.mkdir(parents=True)
    cluster = make_cluster(case, profile, folder)
    write_inputs(folder, cluster)
    overrides = make_overrides(folder, cluster, mode, STEPS)
    environment: dict[str, Any] = make_environment(folder)
    run = runs.run_training(
        folder, overrides, module=mode.module, timeout_s=timeout_s, **environment
    )
    if run.returncode != 0:
        raise RuntimeError("\n".join(run.output.splitlines()[-25:]))


def main(
    directory: Annotated[Path, path_option("--runs", help="Folder of the runs.")],
    output: Annotated[Path, path_option(help="Folder of the pictures.")] = Path("docs"),
) -> None:
    """Run what is missing, and draw schedule-<mode>.png of each mode."""
    profile = load_profile(Path(PROFILE))
    for name, mode in PICTURES.items():
        folder = directory.resolve() / mode.replace(":", "-")
        if not folder.exists():
            run_mode(MODES[mode], profile, folder)
        draw_mode(folder / "run", output.resolve() / f"schedule-{name}.png")


if __name__ == "__main__":
    typer.run(main)
