"""A profile of a model on GPUs of a data sheet: ``verl-pipeline plan --model --gpu``.

The work (batch, lengths, rewards) is another profile's; the cluster is computed:

    a decoding step of n sequences = overhead + bytes read / bandwidth + operations / FLOP/s
    an update = 8 operations a parameter and token, log-probs 2

Bytes read are the weights (of experts those that n sequences choose) and the KV cache of each
sequence at its mean length. The step is linear in n; of a model with experts, it is the line
through one sequence and as many as a replica gets.

Invariant: every number that no data sheet has is a constant below, and is said in a note.
"""

import dataclasses

import numpy as np

from verl_pipeline.number_formats import format_decimal, format_percent
from verl_pipeline.planner.estimate import Estimate
from verl_pipeline.planner.gpus import Gpu
from verl_pipeline.planner.model_size import BYTES, ModelSize
from verl_pipeline.planner.profile import (
    Profile,
    Sampling,
    Training,
    Weights,
    check_profile,
)
from verl_pipeline.planner.profile_error import ProfileError

# Shares of a GPU's peaks that are reached, and seconds of a decoding step beside them (kernel
# launches, scheduling, sampling of tokens).
BANDWIDTH_SHARE, DECODE_FLOPS_SHARE, OVERHEAD_S = 0.7, 0.5, 0.004
PREFILL_FLOPS_SHARE = 0.4
# Of the memory: for weights and KV cache while sampling; for the trainer's states.
CACHE_SHARE, STATES_SHARE = 0.85, 0.7
# Weights and gradients in bf16, master weights and Adam's two moments in fp32 (ZeRO, Rajbhandari et
# al. 2020: 16 bytes a parameter).
STATE_BYTES = 16
# Bytes per second at which weights leave the trainer, and get from a host's memory to a GPU;
# seconds of any sending or loading, and of any switch of sync (engines sleep and wake; published:
# 10 to 74 s).
SEND_BYTES_PER_S, LOAD_BYTES_PER_S, SEND_S, SWITCH_S = 10e9, 20e9, 1.0, 10.0
# How many times the published ones the estimates of other models are, at least and at most: steps
# of sync, gains (benchmarks/planner_models.py).
STEP_RATIOS, GAIN_RATIOS = (0.2, 1.2), (0.8, 0.9)
# Lengths by which means are computed.
DRAWS = 20_000
MOST_PARALLEL = 8


def make_model_estimate(
    work: Profile,
    name: str,
    model: ModelSize,
    gpu: Gpu,
    gpus: int,
    tensor_parallel: int | None = None,
    training_share: float | None = None,
) -> Estimate:
    """Replace the cluster of a profile.

    Args:
        work: the profile whose batch, lengths, rewards, slots and nodes are kept.
        name: of the model, for people.
        tensor_parallel: GPUs of a replica; if None, the fewest that hold the model and some
            of the longest trajectories.
        training_share: of the FLOP/s that training reaches; the GPU's if None.

    Raises:
        ProfileError: the model does not fit.
    """
    parallel = tensor_parallel or _find_parallel(work, model, gpu, name)
    cache = _count_cache_tokens(model, gpu, parallel)
    longest = _find_longest(work)
    if cache < longest:
        weights = format_decimal(model.parameters * BYTES / 1e9)
        raise ProfileError(
            f"--tensor-parallel {parallel}: {name} has {weights} GB of weights, and "
            f"{parallel} x {format_decimal(gpu.memory / 1e9, 0)} GB of {gpu.title} do not hold it "
            f"and a trajectory of {longest:.0f} tokens; give more GPUs a replica"
        )
    base, slope = _fit_step(work, model, gpu, gpus, parallel)
    states = model.parameters * STATE_BYTES
    weights_bytes = model.parameters * BYTES
    profile = dataclasses.replace(
        work,
        name=f"{name} on {gpus} {gpu.title}",
        description=f"{name} on {gpus} {gpu.title}, from its config.json and a data sheet",
        gpu=gpu.title,
        gpus=gpus,
        sampling=dataclasses.replace(
            work.sampling,
            decode_base_s=base,
            decode_per_sequence_s=slope,
            prefill_tokens_per_s=gpu.flops * parallel * PREFILL_FLOPS_SHARE / (2 * model.active),
            kv_tokens=cache,
            tensor_parallel=parallel,
            measured_tensor_parallel=0,
        ),
        training=Training(
            gpus=gpus,
            parameters=model.active,
            flops_per_gpu=gpu.flops,
            utilisation=training_share or gpu.training_share,
            log_prob_passes=1,
            fewest_gpus=int(np.ceil(states / (gpu.memory * STATES_SHARE))),
        ),
        weights=Weights(
            publish_s=SEND_S + weights_bytes / SEND_BYTES_PER_S,
            load_s=SEND_S + weights_bytes / parallel / LOAD_BYTES_PER_S,
            switch_s=SWITCH_S + 2 * states / gpus / LOAD_BYTES_PER_S,
        ),
        sources={"gpu": gpu.source},
    )
    check_profile(profile)
    return Estimate(profile, tuple(_describe(work, name, model, gpu, profile)))


def _describe(work: Profile, name: str, model: ModelSize, gpu: Gpu, profile: Profile) -> list[str]:
    sampling, training = profile.sampling, profile.training
    billions = format_decimal(model.parameters / 1e9, 2)
    active = format_decimal(model.active / 1e9, 2)
    lengths = work.sampling.response_tokens
    experts = (
        [
            "Experts are taken to be chosen evenly; a decoding step is a line between one sequence "
            "and a full replica."
        ]
        if model.experts > 1
        else []
    )
    return [
        f"Nothing here is measured: {name} has {billions} billion parameters ({active} active in a "
        f"token) and {format_decimal(model.kv_bytes / 1024, 0)} KB of KV cache a token; the "
        f"{gpu.title} is as in {gpu.source}.",
        f"Assumed to be reached: {format_percent(BANDWIDTH_SHARE, 0)} of the memory's bandwidth, "
        f"with {format_decimal(OVERHEAD_S * 1e3, 0)} ms more a decoding step; "
        f"{format_percent(training.utilisation, 0)} of the FLOP/s in training, on any number of "
        "GPUs; "
        f"{format_percent(PREFILL_FLOPS_SHARE, 0)} in reading prompts. So a decoding step takes "
        f"{format_decimal(sampling.decode_base_s * 1e3, 2)} ms and "
        f"{format_decimal(sampling.decode_per_sequence_s * 1e3, 3)} ms for each sequence, on "
        f"replicas of {sampling.tensor_parallel}.",
        *experts,
        f"Estimates like this one were {format_decimal(STEP_RATIOS[0], 1)} to "
        f"{format_decimal(STEP_RATIOS[1], 1)} times the published steps of sync of other models, "
        f"and {format_decimal(GAIN_RATIOS[0], 1)} to {format_decimal(GAIN_RATIOS[1], 1)} times the "
        "published gains. See how the gain changes with the speed of training, and give yours "
        "(--mfu).",
        f"Assumed: weights are sent at {format_decimal(SEND_BYTES_PER_S / 1e9, 0)} GB/s, and the "
        f"trainer's states, {STATE_BYTES} bytes a parameter, need {training.fewest_gpus} or more "
        f"GPUs and move to and from the hosts at {format_decimal(LOAD_BYTES_PER_S / 1e9, 0)} GB/s "
        f"in a switch of sync, which takes {format_decimal(SWITCH_S, 0)} s more.",
        f"Batch, lengths and rewards are those of {work.name}: {work.sampling.prompts} prompts x "
        f"{work.sampling.samples}, responses of {format_decimal(lengths.expectation, 0)} tokens on "
        f"average and at most {format_decimal(lengths.largest, 0)}.",
    ]


def _fit_step(
    work: Profile, model: ModelSize, gpu: Gpu, gpus: int, parallel: int
) -> tuple[float, float]:
    """Base and slope of a decoding step, in seconds."""
    sampling = work.sampling
    random = np.random.default_rng(0)
    lengths = sampling.response_tokens.draw(random, DRAWS)
    # Over the tokens of all responses, the mean of how many stand before one.
    context = sampling.prompt_tokens.expectation + float((lengths**2).mean() / lengths.mean()) / 2
    bandwidth = gpu.bandwidth * BANDWIDTH_SHARE * parallel
    flops = gpu.flops * DECODE_FLOPS_SHARE * parallel

    def compute_step(sequences: float) -> float:
        read = model.count_read(sequences) * BYTES + sequences * context * model.kv_bytes
        return OVERHEAD_S + read / bandwidth + sequences * 2 * model.active / flops

    replicas = max(1, gpus // parallel)
    full = max(2, min(sampling.slots, -(-sampling.trajectories // replicas)))
    slope = (compute_step(full) - compute_step(1)) / (full - 1)
    return compute_step(1) - slope, slope


def _count_cache_tokens(model: ModelSize, gpu: Gpu, parallel: int) -> int:
    room = gpu.memory * CACHE_SHARE * parallel - model.parameters * BYTES
    return max(0, int(room / model.kv_bytes))


def _find_parallel(work: Profile, model: ModelSize, gpu: Gpu, name: str) -> int:
    """The fewest GPUs of a replica whose cache holds a few of the longest trajectories."""
    longest = _find_longest(work)
    parallel = 1
    while parallel <= MOST_PARALLEL:
        if _count_cache_tokens(model, gpu, parallel) >= 4 * longest:
            return parallel
        parallel *= 2
    raise ProfileError(
        f"{name} has {format_decimal(model.parameters * BYTES / 1e9, 0)} GB of weights, too much "
        f"for {MOST_PARALLEL} {gpu.title} and a cache of four trajectories of {longest:.0f} "
        "tokens; give --tensor-parallel, or shorter responses"
    )


def _find_longest(work: Profile) -> float:
    sampling: Sampling = work.sampling
    return sampling.response_tokens.largest + sampling.prompt_tokens.largest
