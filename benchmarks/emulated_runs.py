"""Runs one mode on one emulated cluster, and puts the planner's prediction of the same run beside.

Invariant: prediction and run have the same lengths, rewards, layout and steps.
"""

import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.emulated_measure import MeasuredRun, measure_run
from benchmarks.emulated_modes import (
    SPARE_BATCHES,
    EmulatedMode,
    make_environment,
    make_overrides,
    write_inputs,
)
from verl_pipeline.emulated.cluster import EmulatedCluster
from verl_pipeline.emulated.trace import write_trace
from verl_pipeline.planner.limits import compute_limit
from verl_pipeline.planner.profile import Profile
from verl_pipeline.planner.schedules import IN_FLIGHT, Layout
from verl_pipeline.planner.simulation import simulate
from verl_pipeline.planner.splits import Split
from verl_pipeline.testing import runs

# With a larger share of the time in this machine's control plane, a result says little about the
# described engines.
MOST_CONTROL = 0.05
RUN_TIMEOUT_S = 1500.0
TRACE = "lengths.npy"


@dataclass(frozen=True)
class Case:
    """One run.

    Attributes:
        profile: name or file.
        mode: how it trains.
        split, slots: of the modes with two pools; the others have all GPUs and the profile's slots.
        steps: of the run; the first ``warm_up`` and the mode's cool-down are not measured.
        slow_replicas: by number, how many times slower they decode.
        lengths: where response lengths were recorded; empty: they are drawn.
    """

    profile: str
    mode: EmulatedMode
    split: Split
    slots: int
    seed: int
    steps: int
    warm_up: int
    time_scale: float
    control_scale: float
    token_factor: int
    slow_replicas: Mapping[int, float] = field(default_factory=dict)
    lengths: str = ""

    @property
    def name(self) -> str:
        return f"{Path(self.profile).stem}-{self.mode.name.replace(':', '-')}-{self.seed}"


def make_cluster(case: Case, profile: Profile, folder: Path) -> EmulatedCluster:
    """The cluster of a run in ``folder``."""
    layout = make_layout(case, profile)
    return EmulatedCluster(
        profile=case.profile,
        rollout_gpus=layout.rollout_gpus,
        trainer_gpus=layout.trainer_gpus,
        slots=layout.slots,
        batches=case.steps + SPARE_BATCHES,
        seed=case.seed,
        time_scale=case.time_scale,
        control_scale=case.control_scale,
        token_factor=case.token_factor,
        # Only a colocated baseline is described as computing rewards after it has sampled.
        streams_rewards=not case.mode.is_sync or profile.reward.streamed_in_sync,
        folder=str(folder),
        flows=case.mode.flows,
        freezes=case.mode.schedule is not None and case.mode.schedule.kind == IN_FLIGHT,
        staleness=case.mode.schedule.staleness if case.mode.schedule else 0,
        steps=case.steps,
        ahead=case.mode.ahead,
        is_bounded=case.mode.is_bounded,
        slow_replicas=dict(case.slow_replicas),
        trace=str(folder / TRACE) if case.lengths else "",
    )


def make_layout(case: Case, profile: Profile) -> Layout:
    """The layout of a run, as the planner has it."""
    if case.mode.is_colocated:
        return Layout(profile.gpus, profile.gpus, profile.sampling.slots)
    return Layout(case.split.rollout_gpus, case.split.trainer_gpus, case.slots)


def run_case(
    case: Case, profile: Profile, output: Path, lengths: np.ndarray | None = None
) -> dict[str, Any]:
    """Run, measure and predict; the run's folder goes once it is measured.

    Args:
        lengths: recorded response lengths, float64 [trajectories]; None: they are drawn.

    Raises:
        RuntimeError: the run failed; the message has the end of its log.
    """
    folder = output / "runs" / case.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if lengths is not None:
        write_trace(folder / TRACE, lengths)
    cluster = make_cluster(case, profile, folder)
    write_inputs(folder, cluster)
    environment: dict[str, Any] = make_environment(folder)
    began = time.time()
    run = runs.run_training(
        folder,
        make_overrides(folder, cluster, case.mode, case.steps),
        module=case.mode.module,
        timeout_s=RUN_TIMEOUT_S,
        **environment,
    )
    if run.returncode != 0 or len(run.metrics) < case.steps:
        tail = "\n".join(run.output.splitlines()[-25:])
        raise RuntimeError(
            f"{case.name}: exit code {run.returncode} after {len(run.metrics)} of {case.steps} "
            f"steps; the end of its log:\n{tail}"
        )
    recorded = folder / "run" if case.mode.is_recorded else None
    measured = measure_run(recorded, cluster, case.warm_up, case.mode.cool_down)
    shutil.rmtree(folder)
    return {
        "profile": case.profile,
        "mode": case.mode.name,
        "layout": asdict(make_layout(case, profile)),
        "seed": case.seed,
        "time_scale": case.time_scale,
        "control_scale": case.control_scale,
        "token_factor": case.token_factor,
        "slow_replicas": {str(number): factor for number, factor in case.slow_replicas.items()},
        "lengths": case.lengths,
        "first_step": case.warm_up + 1,
        "trajectories": profile.sampling.trajectories,
        "real_s": time.time() - began,
        "valid": measured.control_share <= MOST_CONTROL,
        **asdict(measured),
        **predict(case, profile, cluster, measured),
    }


def predict(
    case: Case, profile: Profile, cluster: EmulatedCluster, measured: MeasuredRun
) -> dict[str, Any]:
    """The planner's seconds of the measured steps, the schedule's limit, and the error.

    Returns:
        Nothing where the planner knows no such schedule, or not the cluster: its replicas are all
        equally fast.
    """
    if case.mode.schedule is None or case.slow_replicas:
        return {}
    layout = make_layout(case, profile)
    outcome = simulate(
        profile,
        case.mode.schedule,
        layout,
        steps=case.steps,
        warm_up=case.warm_up,
        workload=cluster.workload,
    )
    expected = np.diff(outcome.ends, prepend=0.0)[
        case.warm_up : case.steps - case.mode.cool_down
    ].tolist()
    found: dict[str, Any] = {
        "predicted_step_s": expected,
        "error": sum(expected) / sum(measured.step_s) - 1,
    }
    if not case.mode.is_colocated:
        trained = cluster.workload.select(case.warm_up, case.steps - case.mode.cool_down)
        limit = compute_limit(profile, trained, case.mode.schedule, layout)
        found |= {"limit_s": limit.step_s, "limit_cause": limit.cause}
    return found
