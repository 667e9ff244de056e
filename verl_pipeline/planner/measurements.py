"""Profiles from measurements: a run's plain numbers, or a published time of sampling.

Invariant: the result has passed :func:`check_profile`; nothing is assumed that is not an argument.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from verl_pipeline.planner.barrier import measure_sampling
from verl_pipeline.planner.distributions import Distribution
from verl_pipeline.planner.profile import (
    Profile,
    Reward,
    Sampling,
    Training,
    Validation,
    Weights,
    check_profile,
)
from verl_pipeline.planner.profile_error import ProfileError
from verl_pipeline.planner.workload import draw_workload

# Batches, and rounds of a fit; each round removes what prefill leaves of the error.
FIT_BATCHES, FIT_ROUNDS = 16, 8


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """What a run measured.

    Attributes:
        name: of the profile.
        gpus, gpus_per_node: of the cluster to plan for.
        prompts, samples: prompts of a batch, and trajectories of each.
        response_tokens, prompt_tokens: lengths of the run's trajectories; drawn from as they are.
        reward_s, reward_workers: seconds of each reward, and how many were computed at a time.
        slots, tensor_parallel: of a replica.
        running, token_s: pairs of sequences that ran on a replica and seconds of a decoding step
            (one token of each); a line is fitted, with no negative part.
        prefill_tokens_per_s: of a replica.
        trainer_gpus: on which the update was measured.
        update_s, log_prob_s, publish_s, load_s: seconds of each step; their means count.
        switch_s: seconds a step that colocation costs; of a run without it, an estimate.
        scaling: exponent of the trainer's speed in its GPUs; one run cannot tell it.
        fewest_trainer_gpus: that hold the trainer.
        pause_s: seconds of each step in which all GPUs wait: validations, checkpoints.
    """

    name: str
    gpus: int
    gpus_per_node: int
    prompts: int
    samples: int
    response_tokens: Sequence[float]
    prompt_tokens: Sequence[float]
    reward_s: Sequence[float]
    reward_workers: int
    slots: int
    tensor_parallel: int
    running: Sequence[float]
    token_s: Sequence[float]
    prefill_tokens_per_s: float
    trainer_gpus: int
    update_s: Sequence[float]
    log_prob_s: Sequence[float]
    publish_s: Sequence[float]
    load_s: Sequence[float]
    switch_s: float
    scaling: float = 1.0
    fewest_trainer_gpus: int = 1
    pause_s: Sequence[float] = (0.0,)


def make_profile_from_measurements(measured: Measurements) -> Profile:
    """Make a profile of what a run measured.

    Raises:
        ProfileError: something is empty, not finite or negative, or contradicts the rest.
    """
    base, slope = fit_decoding_line(measured.running, measured.token_s)
    profile = Profile(
        name=measured.name,
        gpus=measured.gpus,
        gpus_per_node=measured.gpus_per_node,
        sampling=Sampling(
            prompts=measured.prompts,
            samples=measured.samples,
            response_tokens=_collect("response_tokens", measured.response_tokens, 1.0),
            prompt_tokens=_collect("prompt_tokens", measured.prompt_tokens, 1.0),
            slots=measured.slots,
            decode_base_s=base,
            decode_per_sequence_s=slope,
            prefill_tokens_per_s=_check(
                "prefill_tokens_per_s", [measured.prefill_tokens_per_s], 1e-9
            ),
            tensor_parallel=measured.tensor_parallel,
        ),
        training=Training(
            gpus=measured.trainer_gpus,
            update_s=_check("update_s", measured.update_s, 1e-9),
            log_prob_s=_check("log_prob_s", measured.log_prob_s),
            scaling=_check("scaling", [measured.scaling]),
            fewest_gpus=measured.fewest_trainer_gpus,
        ),
        weights=Weights(
            publish_s=_check("publish_s", measured.publish_s),
            load_s=_check("load_s", measured.load_s),
            switch_s=_check("switch_s", [measured.switch_s]),
        ),
        reward=Reward(
            seconds=_collect("reward_s", measured.reward_s, 0.0), workers=measured.reward_workers
        ),
        validation=Validation(every_steps=1, seconds=_check("pause_s", measured.pause_s)),
    )
    check_profile(profile)
    return profile


def fit_decoding_line(running: Sequence[float], token_s: Sequence[float]) -> tuple[float, float]:
    """Fit seconds of a decoding step = base + slope x running by least squares.

    Returns:
        Base and slope in seconds; neither is negative: where the best line has a negative part,
        the best one without it.

    Raises:
        ProfileError: no pairs, or values that no measurement gives.
    """
    _check("running", running, 1.0)
    mean = _check("token_s", token_s, 1e-9)
    if len(running) != len(token_s):
        raise ProfileError(
            f"token_s: {len(token_s)} values for {len(running)} of running; give one each"
        )
    x, y = np.asarray(running, float), np.asarray(token_s, float)
    spread = ((x - x.mean()) ** 2).sum()
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / spread) if spread > 0 else 0.0
    base = mean - slope * float(x.mean())
    if slope < 0:
        return mean, 0.0
    if base <= 0:  # a line through the origin, which still takes some time
        slope = float((x * y).sum() / (x * x).sum())
        return min(float(y.min()), slope) * 1e-3, slope
    return base, slope


def fit_decoding(profile: Profile, sampling_s: float) -> Profile:
    """Scale the decoding times so that `sync` samples a batch in ``sampling_s`` on all GPUs.

    The ratio of base and slope, the lengths and the prefill speed stay as they are.

    Raises:
        ProfileError: prefill alone takes longer.
    """
    sampling = profile.sampling
    workload = draw_workload(profile, FIT_BATCHES, 0)
    for _ in range(FIT_ROUNDS):
        factor = sampling_s / measure_sampling(profile, workload)
        if not factor > 1e-6:
            break
        profile = dataclasses.replace(
            profile,
            sampling=dataclasses.replace(
                profile.sampling,
                decode_base_s=profile.sampling.decode_base_s * factor,
                decode_per_sequence_s=profile.sampling.decode_per_sequence_s * factor,
            ),
        )
        if abs(factor - 1) < 1e-4:
            return profile
    raise ProfileError(
        f"sampling.prefill_tokens_per_s={sampling.prefill_tokens_per_s:g}: prefill alone takes "
        f"more than the {sampling_s:g} s of sampling; give a higher rate"
    )


def _collect(name: str, values: Sequence[float], low: float) -> Distribution:
    _check(name, values, low)
    return Distribution("empirical", values=tuple(map(float, values)))


def _check(name: str, values: Sequence[float], low: float = 0.0) -> float:
    """The mean of measured values.

    Raises:
        ProfileError: there is none, or one is below ``low`` or not finite.
    """
    array = np.asarray(values, float)
    if array.size == 0:
        raise ProfileError(f"{name}: no measured value; record at least one step")
    wrong = array[~(np.isfinite(array) & (array >= low))]
    if wrong.size:
        raise ProfileError(f"{name}={wrong[0]:g}: must be finite and at least {low:g}")
    return float(array.mean())
