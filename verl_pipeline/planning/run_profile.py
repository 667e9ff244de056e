"""A profile of what a run recorded: ``verl-pipeline plan --run``.

Invariants:
* What a run cannot tell is assumed in the way that makes two pools look no better than they are,
  or is said in a note; every note travels with the answer.
* The run's own step, measured, stands beside the one that is simulated for its schedule.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from verl_pipeline.number_formats import format_percent
from verl_pipeline.planner.estimate import Estimate, Reproduction
from verl_pipeline.planner.measurements import Measurements, make_profile_from_measurements
from verl_pipeline.planner.plan import Planner
from verl_pipeline.planner.profile import Profile
from verl_pipeline.planner.profile_error import ProfileError
from verl_pipeline.planner.schedules import SYNC, Layout, Schedule
from verl_pipeline.planning.decoding import measure_decoding
from verl_pipeline.telemetry.accounting import Bill, bill_steps, list_steady_steps
from verl_pipeline.telemetry.in_flight import count_over
from verl_pipeline.telemetry.records import Header, Pool
from verl_pipeline.telemetry.run_folder import Run, load_run
from verl_pipeline.telemetry.timeline import make_timeline

# Steps in which the pipeline is full; of fewer, nothing is a mean.
FEWEST_STEPS, FEW_STEPS = 3, 10
# Lengths and reward times are drawn from this many of the run's own, evenly by size.
MOST_VALUES = 20_000
# Of a node, where a run does not say otherwise.
NODE = 8
# Unexplained time of the driver above this share of a step is worth a word.
WORTH_A_WORD = 0.05
SEEDS = 3
LARGEST_COUNT = 65_536


def make_run_estimate(folder: Path) -> Estimate:
    """Read a run of any mode.

    Raises:
        RunFolderError: it is no run's folder, or of another version, or cannot be read.
        ProfileError: it has recorded too little, or what nobody can plan with.
    """
    run = load_run(folder)
    _check_header(run)
    steady = list_steady_steps(run)
    steps = {part.step for part in steady}
    if len(steps) < FEWEST_STEPS:
        raise ProfileError(
            f"{folder}: {len(steps)} complete steps are no mean; give a run of at least "
            f"{FEWEST_STEPS + 2} steps"
        )
    bills = [bill for bill in bill_steps(run) if bill.step in steps]
    try:
        measured, notes = _measure(run, bills, steps)
        profile = make_profile_from_measurements(measured)
    except ProfileError as error:
        raise ProfileError(f"{folder}: {error}") from error
    reproduction = Reproduction(
        run.header.mode,
        len(steps),
        float(np.mean([part.step_s for part in steady])),
        _simulate_own_schedule(profile, run.header),
    )
    return Estimate(profile, tuple(notes), reproduction)


def _check_header(run: Run) -> None:
    header = run.header
    for name in ("batch_size", "group_size", "replicas", "trainer_devices", "rollout_devices"):
        value = getattr(header, name)
        if not 1 <= value <= LARGEST_COUNT:
            raise ProfileError(
                f"{run.folder}: the run's record of its start has {name}={value}, which no run "
                "has; give another run"
            )


def _measure(run: Run, bills: Sequence[Bill], steps: set[int]) -> tuple[Measurements, list[str]]:
    """Return the run's numbers, and what they leave open."""
    header = run.header
    gpus = header.trainer_devices + (0 if header.shares_devices else header.rollout_devices)
    lengths = _Lengths.read(run, steps)
    trajectories = header.batch_size * header.group_size
    notes = _describe_assumptions(run, len(steps), len(lengths.responses))
    if header.slots is None:
        notes.append("The run does not say how many sequences a replica may run; no limit is set.")
    slots = min(header.slots or trajectories, LARGEST_COUNT)
    a_replica = trajectories / header.replicas
    decoding = measure_decoding(run, steps, slots, a_replica * float(lengths.prompts.mean()))
    notes += decoding.notes
    rewards, workers = _measure_rewards(run, steps)
    if not len(rewards):
        notes.append("The run recorded no rewards; they count as taking no time.")
    trainer = [bill for bill in bills if bill.pool == Pool.TRAINER]
    step_s = float(np.mean([bill.end - bill.start for bill in trainer]))
    others = _sum(trainer, "other", "wait_data")
    if float(np.mean(others)) > WORTH_A_WORD * step_s:
        notes.append(
            f"{format_percent(float(np.mean(others)) / step_s, 0)} of a step is the driver's own "
            "(balancing, logging, waiting for data); it counts as a part of the update."
        )
    sending = _sum(trainer, "weight_sync")
    switching = _sum(trainer, "weight_sync", "switch")
    return (
        Measurements(
            name=header.run_name or run.folder.name or "run",
            gpus=gpus,
            gpus_per_node=_find_node(header, gpus),
            prompts=header.batch_size,
            samples=header.group_size,
            response_tokens=_thin(lengths.responses),
            prompt_tokens=_thin(lengths.prompts),
            reward_s=_thin(rewards) if len(rewards) else (0.0,),
            reward_workers=workers,
            slots=slots,
            tensor_parallel=max(1, header.rollout_devices // header.replicas),
            running=decoding.running,
            token_s=decoding.token_s,
            prefill_tokens_per_s=decoding.prefill_tokens_per_s,
            trainer_gpus=header.trainer_devices,
            update_s=(_sum(trainer, "update", "advantage") + others).tolist(),
            log_prob_s=_sum(trainer, "old_log_prob", "ref", "values").tolist(),
            publish_s=(sending / 2).tolist(),
            load_s=(sending / 2).tolist(),
            switch_s=float(np.mean(switching if header.shares_devices else sending)),
            pause_s=_sum(trainer, "validate", "checkpoint").tolist(),
        ),
        notes,
    )


def _describe_assumptions(run: Run, steps: int, responses: int) -> list[str]:
    """What no run can tell, and what this one cannot."""
    header = run.header
    notes = [
        "Training is taken to speed up in proportion to its GPUs, which one run cannot tell; if it "
        "does not, two pools gain more.",
    ]
    if header.trainer_devices > 1:
        notes.append(
            f"That the trainer also fits on fewer than {header.trainer_devices} GPUs is not known "
            "from the run."
        )
    if header.shares_devices:
        notes.append(
            "What sending weights to a second pool takes is not known from the run; as much as its "
            "own weight sync is assumed."
        )
    else:
        notes.append(
            "What sync pays to switch its GPUs between sampling and training is not known from the "
            "run; as much as its weight sync is assumed."
        )
    if steps < FEW_STEPS:
        notes.append(
            f"{steps} steps with {responses} responses are few; the gain may differ with others."
        )
    preemptions = run.gauges["preemptions"].to_numpy()
    if np.nanmax(preemptions, initial=0.0) > 0:
        notes.append(
            "The engines preempted requests: their KV cache was full. The simulation has no such "
            "limit; fewer replicas would preempt more."
        )
    notes += [f"The run's records: {problem}." for problem in run.problems]
    return notes


@dataclass(frozen=True, eq=False)
class _Lengths:
    """Tokens of the responses and prompts that the steps trained or filtered, [trajectories]."""

    responses: np.ndarray
    prompts: np.ndarray

    @classmethod
    def read(cls, run: Run, steps: set[int]) -> "_Lengths":
        lives = make_timeline(run).lives
        chosen = np.isin(lives.keys, list(steps)) & ~lives.is_validation
        table = run.trajectories.take(pa.array(lives.rows[chosen]))
        responses, prompts = (
            table[name].cast("float64").to_numpy() for name in ("response_tokens", "prompt_tokens")
        )
        # NaN compares as False: what has no length is left out.
        known = (responses >= 1) & (prompts >= 1)
        if not known.any():
            raise ProfileError(
                "no trajectory of its complete steps has a length; give a run whose telemetry was "
                "on"
            )
        return cls(responses[known], prompts[known])


def _measure_rewards(run: Run, steps: set[int]) -> tuple[np.ndarray, int]:
    """Seconds from a response's end to its reward, and the most that were graded at a time."""
    lives = make_timeline(run).lives
    graded = run.trajectories["graded"].is_valid().to_numpy()[lives.rows]
    chosen = graded & np.isin(lives.keys, list(steps)) & ~lives.is_validation
    starts, ends = lives.ends[chosen], lives.graded[chosen]
    if not len(starts):
        return np.zeros(0), 1
    edges = np.unique(np.concatenate([starts, ends, [ends.max() + 1]]))
    return (ends - starts) / 1e6, max(1, int(count_over(edges, starts, ends).max()))


def _sum(bills: Sequence[Bill], *names: str) -> np.ndarray:
    """Seconds of some names in each step's bill, float64 [steps]."""
    return np.array([sum(bill.seconds[name] for name in names) for bill in bills])


def _thin(values: np.ndarray) -> tuple[float, ...]:
    """At most :data:`MOST_VALUES` of the values, evenly by size, the smallest and largest too."""
    if len(values) > MOST_VALUES:
        values = np.quantile(values, np.linspace(0, 1, MOST_VALUES))
    return tuple(values.tolist())


def _find_node(header: Header, gpus: int) -> int:
    """GPUs of a node: of the run's pools, or all of a cluster that fits into one node."""
    if gpus <= NODE:
        return gpus
    trainer = _read_setting(header, "trainer", "n_gpus_per_node")
    rollout = _read_setting(header, "actor_rollout_ref", "rollout", "n_gpus_per_node")
    found = trainer if header.shares_devices else max(trainer, rollout)
    return min(found or NODE, 1024)


def _read_setting(header: Header, *names: str) -> int:
    """A whole number among verl's settings; 0 if there is none."""
    value: Any = header.settings
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _simulate_own_schedule(profile: Profile, header: Header) -> float | None:
    """Mean step of the run's own schedule, on its own pools."""
    slots = profile.sampling.slots
    if header.mode == "sync":
        schedule, layout = SYNC, Layout(profile.gpus, profile.gpus, slots)
    elif header.mode == "one_off_pipeline" and header.staleness in (0, 1):
        schedule = Schedule("drained", header.staleness)
        layout = Layout(header.rollout_devices, header.trainer_devices, slots)
    else:
        return None
    planner = Planner(profile, SEEDS)
    return float(np.mean([planner.run(schedule, layout, seed).step_s for seed in range(SEEDS)]))
