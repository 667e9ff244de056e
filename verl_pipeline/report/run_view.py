"""What page, terminal and comparison know of one run.

Invariant: what is computed here is computed once, from the run's own records; a figure that the
records do not give is left out, not guessed.
"""

from dataclasses import dataclass, field

import numpy as np

from verl_pipeline.number_formats import format_decimal
from verl_pipeline.report.columns import read_numbers
from verl_pipeline.report.run_state import RunState, read_state
from verl_pipeline.report.trajectory_rows import TrajectoryRows, read_trajectory_rows
from verl_pipeline.telemetry.accounting import (
    Bill,
    Efficiency,
    bill_run,
    bill_steps,
    measure_efficiency,
)
from verl_pipeline.telemetry.advice import Advice, advise
from verl_pipeline.telemetry.records import Pool
from verl_pipeline.telemetry.run_folder import Run

# Figures, as people read them.
STEP_S = "Seconds a step"
IDEAL_S = "Seconds a step, ideal schedule"
EFFICIENCY = "Efficiency (%)"
TOKENS_A_SECOND = "Trained response tokens a second"
DEVICE_SECONDS = "Device-seconds for 1,000 trained tokens"
LAST_REWARD = "Reward, last tenth of the steps"
FIRST_REWARD = "Reward, first step"
STEPS, WALL_S = "Complete steps", "Wall time (s)"
DEVICE_POOLS = (Pool.TRAINER, Pool.ROLLOUT)


@dataclass
class RunView:
    """A run, ready to be shown.

    Attributes:
        name: unique among the runs of a report.
        began: the time that is 0 in charts; seconds since the epoch.
        bills: of the whole run, one a pool.
        step_bills: of each step and pool.
        figures: of the whole run, by label: what runs are compared by; NaN if unknown.
    """

    name: str
    run: Run
    rows: TrajectoryRows
    began: float
    state: RunState
    advice: Advice
    bills: list[Bill]
    step_bills: list[Bill]
    efficiency: Efficiency
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def pool_bills(self) -> list[Bill]:
        """The bills of the two pools that have devices."""
        return [bill for bill in self.bills if bill.pool in DEVICE_POOLS]


def make_view(run: Run, name: str) -> RunView:
    """Compute what is shown of a run."""
    rows = read_trajectory_rows(run)
    starts = [header.started for header in run.headers]
    starts += read_numbers(run.spans, "start")[:1].tolist()
    began = min([*starts, float(np.nanmin(rows.started, initial=np.inf))])
    view = RunView(
        name,
        run,
        rows,
        began,
        state=read_state(run),
        advice=advise(run),
        bills=bill_run(run),
        step_bills=bill_steps(run),
        efficiency=measure_efficiency(run),
    )
    view.figures = _compute_figures(view)
    return view


def _compute_figures(view: RunView) -> dict[str, float]:
    """Return the figures that runs are compared by; NaN if unknown."""
    run, rows, efficiency = view.run, view.rows, view.efficiency
    steps = [bill for bill in view.step_bills if bill.pool == Pool.TRAINER]
    seconds = sum(bill.end - bill.start for bill in steps)
    is_trained = rows.fates == "trained"
    tokens = float(np.nansum(rows.response_tokens[is_trained]))
    rewards = [
        record.metrics.get("critic/score/mean", record.metrics.get("critic/rewards/mean", np.nan))
        for record in run.steps
    ]
    last = rewards[-max(len(rewards) // 10, 1) :]
    per_token = efficiency.gpu_seconds_per_trained_token
    return {
        STEP_S: _read(efficiency.step_s),
        IDEAL_S: _read(efficiency.ideal_step_s),
        EFFICIENCY: 100 * _read(efficiency.efficiency),
        TOKENS_A_SECOND: tokens / seconds if seconds else np.nan,
        DEVICE_SECONDS: 1000 * _read(per_token),
        LAST_REWARD: _average(np.array(last, float)),
        FIRST_REWARD: rewards[0] if rewards else np.nan,
        "Mean response (tokens)": _average(rows.response_tokens[is_trained]),
        "Trajectories trained": float(is_trained.sum()),
        STEPS: float(len(steps)),
        WALL_S: run.last_time - view.began,
    }


def _read(value: float | None) -> float:
    return float("nan") if value is None else value


def _average(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def format_figure(value: float) -> str:
    """Return a figure as people read it."""
    if not np.isfinite(value):
        return "–"
    digits = 0 if abs(value) >= 1000 or value == int(value) else 3 if abs(value) < 10 else 1
    return format_decimal(value, digits, group=True)
