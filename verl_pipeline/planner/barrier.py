"""Schedules with a barrier: `sync`, `one_step_off`, and `drained` at staleness 0 and 1.

A batch is sampled by an idle pool and nothing else is, so its times depend on nothing but itself,
and the steps follow by a recurrence.

Invariants:
* All trajectories of a batch are handed out at once, in turn, as verl's load balancer does; a
  replica serves its own in that order.
* Both pools wait while weights are sent.
"""

from dataclasses import dataclass

import numpy as np

from verl_pipeline.planner.outcome import CAUSES, Outcome
from verl_pipeline.planner.profile import Profile
from verl_pipeline.planner.replica import WATERMARK, Replica, Speed, make_speed
from verl_pipeline.planner.rewards import find_last_reward
from verl_pipeline.planner.schedules import Layout, Schedule
from verl_pipeline.planner.workload import Workload


@dataclass(frozen=True)
class SampledBatch:
    """Seconds after the submission of a batch to an idle pool.

    Attributes:
        drained: when the last trajectory ends.
        complete: when the last reward is there.
        sampling, tail: of a replica, on average.
    """

    drained: float
    complete: float
    sampling: float
    tail: float


def sample_share(
    speed: Speed, tokens: np.ndarray, prompts: np.ndarray
) -> tuple[np.ndarray, Replica]:
    """Let one replica serve its trajectories, all submitted at time 0.

    Args:
        tokens, prompts: of each, in order of submission, float64, [trajectories].

    Returns:
        When each ends, float64, [trajectories]; and the replica.
    """
    ends = np.zeros(len(tokens))
    replica, queue = Replica(speed), iter(range(len(tokens)))
    following = next(queue, None)
    while True:
        while following is not None and replica.has_room(prompts[following]):
            replica.begin(following, tokens[following], prompts[following])
            following = next(queue, None)
        if not replica.running:
            return ends, replica
        now = replica.find_next()
        ended = replica.take_event(now)
        if ended is not None:
            ends[ended] = now


def sample_at_once(
    speed: Speed, tokens: np.ndarray, prompts: np.ndarray
) -> tuple[np.ndarray, float]:
    """The same for trajectories that all have a slot, by sorting.

    Returns:
        When each ends, float64, [trajectories]; seconds with fewer than ``speed.thin`` running.
    """
    count = len(tokens)
    order = np.argsort(tokens, kind="stable")
    running = np.arange(count, 0, -1)
    gaps = np.diff(tokens[order], prepend=0.0) * np.array(speed.step_s)[running]
    # Summed as the events would: prefill freezes all of them first.
    times = prompts.sum() * speed.prefill_s + np.cumsum(gaps)
    ends = np.empty(count)
    ends[order] = times
    thin = int(np.searchsorted(-running, -speed.thin, side="right"))  # the first with fewer
    before = times[thin - 1] if thin else 0.0
    return ends, float(times[-1] - before)


def sample_batch(
    profile: Profile, speed: Speed, replicas: int, workload: Workload, batch: int, layout: Layout
) -> SampledBatch:
    """Sample one batch on an idle pool."""
    order = workload.order(batch, layout.longest_first)
    ends = np.empty(len(order))
    sampling = tail = 0.0
    for number in range(min(replicas, len(order))):
        own = order[number::replicas]
        tokens, prompts = workload.responses[batch, own], workload.prompts[batch, own]
        if len(own) <= speed.slots and (tokens + prompts).sum() < WATERMARK * speed.kv_tokens:
            ends[own], thin = sample_at_once(speed, tokens, prompts)
            sampling += ends[own].max() - thin
            tail += thin
        else:
            ends[own], replica = sample_share(speed, tokens, prompts)
            sampling += replica.seconds.sampling
            tail += replica.seconds.tail
    return SampledBatch(
        float(ends.max()),
        find_last_reward(ends, workload.rewards[batch], profile.reward.workers),
        float(sampling) / replicas,
        float(tail) / replicas,
    )


def sample_batches(
    profile: Profile, workload: Workload, layout: Layout, count: int
) -> list[SampledBatch]:
    """Sample the first ``count`` batches of a workload, each on an idle pool."""
    replicas = layout.rollout_gpus // profile.sampling.tensor_parallel
    speed = make_speed(profile.sampling, layout.slots, replicas)
    return [
        sample_batch(profile, speed, replicas, workload, batch, layout) for batch in range(count)
    ]


def measure_sampling(profile: Profile, workload: Workload) -> float:
    """Mean seconds in which `sync` samples a batch of the workload on all GPUs, without rewards."""
    layout = Layout(profile.gpus, profile.gpus, profile.sampling.slots)
    sampled = sample_batches(profile, workload, layout, len(workload.responses))
    return float(np.mean([batch.drained for batch in sampled]))


def run_with_barrier(
    profile: Profile,
    workload: Workload,
    schedule: Schedule,
    layout: Layout,
    steps: int,
    warm_up: int,
) -> Outcome:
    """Simulate ``steps`` steps; those after ``warm_up`` are measured."""
    sampled = sample_batches(profile, workload, layout, steps + schedule.staleness)
    return run_steps(profile, workload, schedule, layout, sampled, warm_up)


def run_steps(
    profile: Profile,
    workload: Workload,
    schedule: Schedule,
    layout: Layout,
    sampled: list[SampledBatch],
    warm_up: int,
) -> Outcome:
    """Let the steps follow from the batches, which cost most of a simulation.

    Args:
        sampled: the workload's first batches on this layout; ``schedule.staleness`` more than
            steps are simulated.
    """
    ahead = schedule.staleness
    steps = len(sampled) - ahead
    updates = [
        profile.training.compute_seconds(tokens, profile.sampling.mean_tokens, layout.trainer_gpus)
        for tokens in workload.tokens[:steps].tolist()
    ]
    if schedule.kind == "sync":
        ends, spent = _run_sync(profile, sampled, updates, warm_up, workload)
    else:
        ends, spent = _run_pools(profile, sampled, updates, warm_up, ahead, layout)
    versions = np.maximum(np.arange(steps) - ahead, 0)
    versions = np.repeat(versions[:, None], workload.responses.shape[1], axis=1)
    start = ends[warm_up - 1] if warm_up else 0.0
    all_time = sum(spent.values())
    return Outcome(
        (ends[-1] - start) / (steps - warm_up),
        ends[-1],
        np.array(ends),
        {cause: spent.get(cause, 0.0) / all_time for cause in CAUSES},
        versions,
        versions,
    )


def _run_sync(
    profile: Profile,
    sampled: list[SampledBatch],
    updates: list[float],
    warm_up: int,
    workload: Workload,
) -> tuple[list[float], dict[str, float]]:
    """All GPUs sample, then all train; returns the ends of the updates and GPU-seconds by cause."""
    now, ends = 0.0, []
    spent = dict.fromkeys(CAUSES, 0.0)
    for step, update in enumerate(updates):
        batch = sampled[step]
        complete = batch.complete
        if not profile.reward.streamed_in_sync:
            rewards = workload.rewards[step]
            ended = np.full(len(rewards), batch.drained)
            complete = find_last_reward(ended, rewards, profile.reward.workers)
        validation, switch = profile.validation.seconds_per_step, profile.weights.switch_s
        now += complete + switch + update + validation
        ends.append(now)
        if step >= warm_up:
            spent["sampling"] += batch.sampling
            spent["tail"] += batch.tail
            spent["rollout_idle"] += batch.drained - batch.sampling - batch.tail
            spent["reward"] += complete - batch.drained
            spent["switch"] += switch
            spent["update"] += update
            spent["validation"] += validation
    return ends, spent


def _run_pools(
    profile: Profile,
    sampled: list[SampledBatch],
    updates: list[float],
    warm_up: int,
    ahead: int,
    layout: Layout,
) -> tuple[list[float], dict[str, float]]:
    """Two pools that meet at each step; returns the same as :func:`_run_sync`."""
    sending = profile.weights.publish_s + profile.weights.load_s
    validation = profile.validation.seconds_per_step
    # When the batches that are submitted ahead are complete.
    complete = [sampled[batch].complete for batch in range(ahead)]
    # Of steps: the submission of a batch; of updates.
    starts: list[float] = []
    ends: list[float] = []
    for step in range(len(updates) + 1):
        # The pool holds v_0 already. A validation goes before the sending, with both pools idle.
        before = sending + validation if step else 0.0
        starts.append(max([*ends[-1:], *complete[step : step + ahead], 0.0]) + before)
        if step == len(updates):
            break
        complete.append(starts[-1] + sampled[step + ahead].complete)
        training = starts[-1] if ahead else complete[step]
        ends.append(training + updates[step])
    spent = dict.fromkeys(CAUSES, 0.0)
    rollout, trainer = layout.rollout_gpus, layout.trainer_gpus
    for step in range(warm_up, len(updates)):
        # From one submission to the next, in which all of a batch's sampling and an update lie.
        period, batch = starts[step + 1] - starts[step], sampled[step + ahead]
        others = sending + validation
        spent["sampling"] += rollout * batch.sampling
        spent["tail"] += rollout * batch.tail
        spent["rollout_idle"] += rollout * (period - batch.sampling - batch.tail - others)
        spent["update"] += trainer * updates[step]
        spent["trainer_wait"] += trainer * (period - updates[step] - others)
        spent["rollout_weights"] += rollout * sending
        spent["trainer_weights"] += trainer * sending
        spent["validation"] += (rollout + trainer) * validation
    return [end + validation for end in ends], spent
