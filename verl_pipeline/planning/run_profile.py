"""A profile of what a run recorded: ``verl-pipeline plan --run``.

Invariants:
* What a run cannot tell is assumed in the way that makes two pools look no better than they are,
  or is said in a note; every note travels with the answer.
* The run's own step, measured, stands beside the one that is simulated for its schedule.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from verl_pipeline.number_formats import format_percent
from verl_pipeline.planner.estimate import Estimate, Reproduction
from verl_pipeline.planner.measurements import Measurements, make_profile_from_measurements
from verl_pipeline.planner.plan import Planner
from verl_pipeline.planner.profile import Profile
from verl_pipeline.planner.profile_error import ProfileError
from verl_pipeline.planner.schedules import DRAINED, SYNC, Layout, Schedule, list_schedules
from verl_pipeline.planning.decoding import measure_decoding
from verl_pipeline.planning.recorded_steps import LARGEST_COUNT, RecordedSteps
from verl_pipeline.planning.training_scaling import Scaling, fit_scaling
from verl_pipeline.telemetry.in_flight import count_over
from verl_pipeline.telemetry.records import Header
from verl_pipeline.telemetry.timeline import make_timeline

FEW_STEPS = 10
# Lengths and reward times are drawn from this many of the run's own, evenly by size.
MOST_VALUES = 20_000
# Of a node, where a run does not say otherwise.
NODE = 8
# Unexplained time of the driver above this share of a step is worth a word.
WORTH_A_WORD = 0.05
SEEDS = 3


def make_run_estimate(folder: Path, scaling_runs: Sequence[Path] = ()) -> Estimate:
    """Read a run of any mode.

    Args:
        scaling_runs: of other numbers of training devices; without any, training is taken to speed
            up in proportion to them.

    Raises:
        RunFolderError: one is no run's folder, or of another version, or cannot be read.
        ProfileError: one has recorded too little, or what nobody can plan with, or trains on as
            many devices as the run.
    """
    steps = RecordedSteps.read(folder)
    scaling = None
    if scaling_runs:
        scaling = fit_scaling(steps, [RecordedSteps.read(path) for path in scaling_runs])
    try:
        measured, notes = _measure(steps, scaling)
        profile = make_profile_from_measurements(measured)
    except ProfileError as error:
        raise ProfileError(f"{folder}: {error}") from error
    reproduction = Reproduction(
        steps.header.mode,
        len(steps.numbers),
        steps.step_s,
        _simulate_own_schedule(profile, steps.header),
    )
    return Estimate(profile, tuple(notes), reproduction)


def _measure(recorded: RecordedSteps, scaling: Scaling | None) -> tuple[Measurements, list[str]]:
    """Return the run's numbers, and what they leave open."""
    header, lengths = recorded.header, recorded.lengths
    gpus = header.trainer_devices + (0 if header.shares_devices else header.rollout_devices)
    trajectories = header.batch_size * header.group_size
    notes = _describe_assumptions(recorded, scaling)
    if header.slots is None:
        notes.append("The run does not say how many sequences a replica may run; no limit is set.")
    slots = min(header.slots or trajectories, LARGEST_COUNT)
    a_replica = trajectories / header.replicas
    decoding = measure_decoding(
        recorded.run, recorded.numbers, slots, a_replica * float(lengths.prompts.mean())
    )
    notes += decoding.notes
    rewards, workers = _measure_rewards(recorded)
    if not len(rewards):
        notes.append("The run recorded no rewards; they count as taking no time.")
    others = float(np.mean(recorded.sum_trainer("other", "wait_data")))
    if others > WORTH_A_WORD * recorded.step_s:
        notes.append(
            f"{format_percent(others / recorded.step_s, 0)} of a step is the driver's own "
            "(balancing, logging, waiting for data); it counts as a part of the update."
        )
    sending = recorded.sum_trainer("weight_sync")
    switching = recorded.sum_trainer("weight_sync", "switch")
    return (
        Measurements(
            name=header.run_name or recorded.run.folder.name or "run",
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
            update_s=recorded.measure_update().tolist(),
            log_prob_s=recorded.sum_trainer("old_log_prob", "ref", "values").tolist(),
            publish_s=(sending / 2).tolist(),
            load_s=(sending / 2).tolist(),
            switch_s=float(np.mean(switching if header.shares_devices else sending)),
            scaling=1.0 if scaling is None else scaling.exponent,
            pause_s=recorded.sum_trainer("validate", "checkpoint").tolist(),
        ),
        notes,
    )


def _describe_assumptions(recorded: RecordedSteps, scaling: Scaling | None) -> list[str]:
    """What no run can tell, and what this one cannot."""
    run, header, steps = recorded.run, recorded.header, len(recorded.numbers)
    fewest = header.trainer_devices
    if scaling is None:
        notes = [
            "Training is taken to speed up in proportion to its GPUs, which one run cannot tell; "
            "if it does not, two pools gain more. A run on another number of training devices "
            "tells (--scaling-run).",
        ]
    else:
        notes, fewest = scaling.describe(), min(pace.devices for pace in scaling.paces)
    if fewest > 1:
        notes.append(
            f"That the trainer also fits on fewer than {fewest} GPUs is not known from the run"
            f"{'s' if scaling else ''}."
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
            f"{steps} steps with {len(recorded.lengths.responses)} responses are few; the gain may "
            "differ with others."
        )
    preemptions = run.gauges["preemptions"].to_numpy()
    if np.nanmax(preemptions, initial=0.0) > 0:
        notes.append(
            "The engines preempted requests: their KV cache was full. The simulation has no such "
            "limit; fewer replicas would preempt more."
        )
    notes += [f"The run's records: {problem}." for problem in run.problems]
    return notes


def _measure_rewards(recorded: RecordedSteps) -> tuple[np.ndarray, int]:
    """Seconds from a response's end to its reward, and the most that were graded at a time."""
    lives = make_timeline(recorded.run).lives
    graded = recorded.run.trajectories["graded"].is_valid().to_numpy()[lives.rows]
    chosen = graded & np.isin(lives.keys, list(recorded.numbers)) & ~lives.is_validation
    starts, ends = lives.ends[chosen], lives.graded[chosen]
    if not len(starts):
        return np.zeros(0), 1
    edges = np.unique(np.concatenate([starts, ends, [ends.max() + 1]]))
    return (ends - starts) / 1e6, max(1, int(count_over(edges, starts, ends).max()))


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


def find_own_schedule(header: Header) -> Schedule | None:
    """The planner's schedule that a run's start names; None if it knows none like it."""
    if header.mode in ("sync", "sync_filtered"):
        return SYNC
    if header.mode != "one_off_pipeline" or header.staleness is None:
        return None
    named = Schedule(header.weight_sync_mode or DRAINED, header.staleness)
    return named if named in list_schedules() else None


def _simulate_own_schedule(profile: Profile, header: Header) -> float | None:
    """Mean step of the run's own schedule, on its own pools."""
    schedule = find_own_schedule(header)
    if schedule is None:
        return None
    slots = profile.sampling.slots
    layout = Layout(header.rollout_devices, header.trainer_devices, slots)
    if schedule == SYNC:
        layout = Layout(profile.gpus, profile.gpus, slots)
    planner = Planner(profile, SEEDS)
    return float(np.mean([planner.run(schedule, layout, seed).step_s for seed in range(SEEDS)]))
