"""The gain of one_off_pipeline over `sync` around a profile, as its work and cluster change.

Four axes: the share of sampling in a step of `sync`, how heavy the tail of the lengths is, the time
of a reward, and the number of GPUs. All else is the profile's.

Invariants:
* A cell is the best split of its GPUs, on one drawn workload, the same for all cells of a tail.
* A batch is sampled once for a tail, a number of GPUs and a split; the cells of all shares and
  reward times follow from it (:func:`.barrier.run_steps`).
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from verl_pipeline.planner.barrier import (
    SampledBatch,
    measure_sampling,
    run_steps,
    sample_batches,
)
from verl_pipeline.planner.distributions import Distribution
from verl_pipeline.planner.profile import Profile
from verl_pipeline.planner.schedules import SYNC, Layout, Schedule
from verl_pipeline.planner.splits import list_splits, thin_splits
from verl_pipeline.planner.workload import Workload, draw_workload


@dataclass(frozen=True)
class Axes:
    """The values of each axis.

    Attributes:
        shares: of sampling in sampling and training of `sync`.
        sigmas: standard deviations of the logarithm of the lengths.
        reward_shares: seconds in which `sync` waits for rewards after the last trajectory, over
            those in which it samples.
        gpu_factors: of the profile's GPUs.
    """

    shares: tuple[float, ...] = (0.2, 0.35, 0.5, 0.65, 0.8)
    sigmas: tuple[float, ...] = (0.1, 0.4, 0.7, 1.0, 1.3)
    reward_shares: tuple[float, ...] = (0.0, 0.25, 1.0)
    gpu_factors: tuple[float, ...] = (0.5, 1.0, 2.0)


AXES = Axes()
SCHEDULE = Schedule("drained", 1)
# Splits of a cell, thinned out evenly; trajectories of the whole map; steps of a cell.
MOST_SPLITS = 6
TRAJECTORIES = 1_500_000
FEWEST_STEPS, MOST_STEPS = 2, 12
# Batches by which sampling is measured.
BATCHES = 16


@dataclass(frozen=True)
class Place:
    """Where a profile lies on the map.

    Attributes:
        sampling_share: seconds of sampling over those of sampling and training, in `sync`.
        sigma: standard deviation of the logarithm of the response lengths.
        reward_share: seconds in which `sync` waits for rewards after the last trajectory, over
            those of sampling.
        gpus: of the cluster.
    """

    sampling_share: float
    sigma: float
    reward_share: float
    gpus: int


@dataclass(frozen=True)
class Cell:
    """The best split at one place of the map.

    Attributes:
        gain: a step of `sync` over one of the split.
        rollout_gpus, trainer_gpus: of the split.
        sync_s, step_s: seconds of the two steps.
    """

    place: Place
    gain: float
    rollout_gpus: int
    trainer_gpus: int
    sync_s: float
    step_s: float


def find_place(profile: Profile) -> Place:
    """Where the profile itself lies."""
    workload = draw_workload(profile, BATCHES, 0)
    layout = Layout(profile.gpus, profile.gpus, profile.sampling.slots)
    sampled = sample_batches(profile, workload, layout, BATCHES)
    shares = run_steps(profile, workload, SYNC, layout, sampled, 0).shares
    sampling = shares["sampling"] + shares["tail"] + shares["rollout_idle"]
    return Place(
        sampling / (sampling + shares["update"]),
        float(np.log(workload.responses).std()),
        shares["reward"] / sampling,
        profile.gpus,
    )


def set_sampling_share(profile: Profile, share: float, sampling_s: float | None = None) -> Profile:
    """Let an update on all GPUs take so long that sampling has ``share`` of the two in `sync`.

    Args:
        share: above 0, at most 1.
        sampling_s: seconds of sampling; measured if None.
    """
    if sampling_s is None:
        sampling_s = measure_sampling(profile, draw_workload(profile, BATCHES, 0))
    training = dataclasses.replace(
        profile.training,
        gpus=profile.gpus,
        update_s=sampling_s * (1 - share) / share,
        log_prob_s=0.0,
        parameters=0.0,
    )
    return dataclasses.replace(profile, training=training)


def map_gains(
    profile: Profile, show: Callable[[str], None] = lambda _name: None, axes: Axes = AXES
) -> list[Cell]:
    """Predict every cell; numbers of GPUs that have no split are left out.

    Args:
        show: called with how far it is.
    """
    counts = [max(1, round(profile.gpus * factor)) for factor in axes.gpu_factors]
    changed = [
        (sigma, dataclasses.replace(profile, gpus=gpus))
        for sigma in axes.sigmas
        for gpus in dict.fromkeys(counts)
    ]
    possible = [(sigma, other) for sigma, other in changed if list_splits(other)]
    cells: list[Cell] = []
    for number, (sigma, other) in enumerate(possible):
        show(f"map, {number} of {len(possible)}")
        cells += _map_cluster(_set_tail(other, sigma), axes, sigma, len(possible))
    return cells


def _map_cluster(profile: Profile, axes: Axes, sigma: float, clusters: int) -> Iterator[Cell]:
    """The cells of a tail and a number of GPUs."""
    splits = thin_splits(list_splits(profile), MOST_SPLITS)
    simulated = clusters * (len(splits) + 1) * profile.sampling.trajectories
    steps = max(FEWEST_STEPS, min(MOST_STEPS, TRAJECTORIES // simulated))
    workload = draw_workload(profile, steps + 1, 0)
    slots, gpus = profile.sampling.slots, profile.gpus
    layout = Layout(gpus, gpus, slots)
    at_once = sample_batches(profile, workload, layout, steps)
    layouts = [Layout(split.rollout_gpus, split.trainer_gpus, slots) for split in splits]
    apart = [(other, sample_batches(profile, workload, other, steps + 1)) for other in layouts]
    sampling_s = float(np.mean([batch.drained for batch in at_once]))
    for share in axes.shares:
        cell = set_sampling_share(profile, share, sampling_s)
        for reward_share in axes.reward_shares:
            reward_s = reward_share * sampling_s
            sync_s = _run(cell, workload, SYNC, layout, at_once, reward_s)
            best_s, best = min(
                (
                    (_run(cell, workload, SCHEDULE, other, batches, reward_s), other)
                    for other, batches in apart
                ),
                key=lambda pair: pair[0],
            )
            yield Cell(
                Place(share, sigma, reward_share, gpus),
                sync_s / best_s,
                best.rollout_gpus,
                best.trainer_gpus,
                sync_s,
                best_s,
            )


def _run(
    profile: Profile,
    workload: Workload,
    schedule: Schedule,
    layout: Layout,
    sampled: list[SampledBatch],
    reward_s: float,
) -> float:
    """Mean seconds of a step after the first.

    Args:
        reward_s: that rewards take after the last trajectory. Where `sync` computes them only then,
            two pools compute them beside the sampling.
    """
    beside = schedule is not SYNC and not profile.reward.streamed_in_sync
    graded = [
        dataclasses.replace(
            batch,
            complete=max(batch.drained, reward_s) if beside else batch.drained + reward_s,
        )
        for batch in sampled
    ]
    # `complete` says when the rewards are there; the workload's own are not asked.
    streamed = dataclasses.replace(profile.reward, streamed_in_sync=True)
    profile = dataclasses.replace(profile, reward=streamed)
    return run_steps(profile, workload, schedule, layout, graded, 1).step_s


def _set_tail(profile: Profile, sigma: float) -> Profile:
    """Lognormal lengths of the profile's mean and limit."""
    lengths = profile.sampling.response_tokens
    mean = lengths.mean if lengths.kind == "lognormal" else lengths.expectation
    changed = Distribution("lognormal", mean=mean, sigma=sigma, cap=lengths.largest)
    sampling = dataclasses.replace(profile.sampling, response_tokens=changed)
    return dataclasses.replace(profile, sampling=sampling)
