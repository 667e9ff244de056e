"""What a profile says about a cluster and its work: every field with its unit and its meaning.

Invariants:
* Field names end with their unit where it is seconds (``_s``) or a rate.
* Numbers describe one step: one batch of ``prompts`` x ``samples`` trajectories, one update.
* A profile that loads can be simulated: :func:`check_profile` refuses what contradicts itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from verl_pipeline.planner.distributions import Distribution
from verl_pipeline.planner.profile_error import ProfileError

REQUIRED: Any = object()
# Operations a parameter and token: forward 2, backward 4, and another forward for activation
# checkpointing; a pass that computes log-probs is one forward.
UPDATE_OPERATIONS, LOG_PROB_OPERATIONS = 8, 2
# More trajectories a batch than this are no plan for one machine's patience.
MOST_TRAJECTORIES = 65_536


def declare(
    unit: str, meaning: str, default: Any = REQUIRED, low: float = 0.0, high: float = 1e9
) -> Any:
    """Declare a field of a profile with its unit, meaning, default and bounds."""
    metadata = {"unit": unit, "meaning": meaning, "low": low, "high": high}
    if default is REQUIRED:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """The batch, and how fast one rollout replica samples."""

    prompts: int = declare("prompts", "prompts in a batch", low=1, high=MOST_TRAJECTORIES)
    samples: int = declare("trajectories", "samples of each prompt (n)", low=1, high=4096)
    response_tokens: Distribution = declare("tokens", "length of a response", low=1)
    prompt_tokens: Distribution = declare("tokens", "length of a prompt", low=1)
    slots: int = declare(
        "trajectories", "most that a replica decodes at a time (max_num_seqs)", low=1, high=65_536
    )
    decode_base_s: float = declare(
        "seconds",
        "one decoding step of a replica, without the part of each sequence",
        low=1e-9,
    )
    decode_per_sequence_s: float = declare(
        "seconds", "what each running sequence adds to a decoding step"
    )
    prefill_tokens_per_s: float = declare(
        "tokens per second",
        "prompt tokens that a replica reads a second; decoding waits meanwhile",
        low=1e-3,
        high=1e12,
    )
    kv_tokens: int = declare(
        "tokens", "that a replica's KV cache holds; 0: no limit is simulated", default=0, high=1e12
    )
    tensor_parallel: int = declare("GPUs", "of a replica", default=1, low=1, high=1024)
    measured_tensor_parallel: int = declare(
        "GPUs",
        "of the replica whose decoding and prefill speeds are given; 0: tensor_parallel",
        default=0,
        high=1024,
    )
    tensor_parallel_scaling: float = declare(
        "exponent",
        "speed of a replica is proportional to its GPUs to this power",
        default=0.7,
        high=1.0,
    )

    @property
    def trajectories(self) -> int:
        """Trajectories of a batch."""
        return self.prompts * self.samples

    @property
    def speed(self) -> float:
        """By what factor a replica is faster than the one measured."""
        measured = self.measured_tensor_parallel or self.tensor_parallel
        return (self.tensor_parallel / measured) ** self.tensor_parallel_scaling

    @property
    def mean_tokens(self) -> float:
        """Expected tokens of a batch, prompts included."""
        return self.trajectories * (
            self.prompt_tokens.expectation + self.response_tokens.expectation
        )


@dataclass(frozen=True, kw_only=True)
class Training:
    """How long one update takes: measured seconds, or parameters and the GPU's speed."""

    gpus: int = declare(
        "GPUs",
        "that the seconds were measured on, or on which training reaches the utilisation",
        low=1,
        high=65_536,
    )
    update_s: float = declare(
        "seconds", "forward, backward and optimiser of a mean batch", default=0.0
    )
    log_prob_s: float = declare(
        "seconds", "old_log_prob and reference passes over a mean batch", default=0.0
    )
    parameters: float = declare(
        "parameters", "active in each token, instead of seconds", default=0.0, high=1e14
    )
    flops_per_gpu: float = declare(
        "operations per second", "peak of a GPU, with parameters", default=0.0, high=1e18
    )
    utilisation: float = declare(
        "share", "of that peak which training reaches", default=0.0, high=1.0
    )
    log_prob_passes: int = declare(
        "passes", "old_log_prob, reference; with parameters", default=1, high=8
    )
    scaling: float = declare(
        "exponent",
        "speed is proportional to the trainer's GPUs to this power; 1: perfect",
        default=1.0,
        high=1.0,
    )
    fewest_gpus: int = declare("GPUs", "that can hold the trainer", default=1, low=1, high=65_536)

    def compute_seconds(self, tokens: float, mean_tokens: float, gpus: int) -> float:
        """Seconds of old_log_prob, reference and update for a batch of ``tokens`` on ``gpus``."""
        if self.parameters:
            operations = UPDATE_OPERATIONS + LOG_PROB_OPERATIONS * self.log_prob_passes
            speed = self.flops_per_gpu * self.utilisation * self.gpus
            seconds = operations * self.parameters * tokens / speed
        else:
            seconds = (self.update_s + self.log_prob_s) * tokens / mean_tokens
        return seconds * (self.gpus / gpus) ** self.scaling


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What new weights cost, by schedule."""

    publish_s: float = declare(
        "seconds", "that the trainer needs to send an update's weights to the rollout nodes"
    )
    load_s: float = declare("seconds", "that a rollout replica needs to load them")
    switch_s: float = declare(
        "seconds", "a step, that `sync` needs to switch its GPUs from sampling to training and back"
    )


@dataclass(frozen=True, kw_only=True)
class Reward:
    """Rewards on a bounded pool of workers, first come first served."""

    seconds: Distribution = declare("seconds", "time of one reward on one worker", low=0)
    workers: int = declare("workers", "rewards computed at a time", low=1, high=1_000_000)
    streamed_in_sync: bool = declare(
        "",
        "whether `sync` computes rewards while it samples; false: after the last trajectory",
        default=True,
    )


@dataclass(frozen=True, kw_only=True)
class Validation:
    """A validation now and then; in every schedule all GPUs wait for it."""

    every_steps: int = declare("steps", "between two validations; 0: none", default=0, high=1e9)
    seconds: float = declare("seconds", "of one validation", default=0.0)

    @property
    def seconds_per_step(self) -> float:
        """What a step pays for validation, on average."""
        return self.seconds / self.every_steps if self.every_steps else 0.0


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A cluster and its work."""

    name: str = declare("", "of the profile")
    description: str = declare("", "what it describes, in a line", default="")
    gpu: str = declare("", "name of the GPU", default="")
    gpus: int = declare("GPUs", "in the cluster", low=1, high=65_536)
    gpus_per_node: int = declare("GPUs", "in a node", default=8, low=1, high=1024)
    sampling: Sampling
    training: Training
    weights: Weights
    reward: Reward
    validation: Validation = Validation()
    sources: Mapping[str, str] = field(default_factory=dict)


def replace_work(profile: Profile, sampling: Sampling) -> Profile:
    """The same cluster with another batch: measured training seconds grow with its mean tokens."""
    training = profile.training
    factor = sampling.mean_tokens / profile.sampling.mean_tokens
    training = replace(
        training, update_s=training.update_s * factor, log_prob_s=training.log_prob_s * factor
    )
    return replace(profile, sampling=sampling, training=training)


def check_profile(profile: Profile) -> None:
    """Check the fields of a profile against each other.

    Raises:
        ProfileError: it cannot be simulated, or cannot run on its GPUs.
    """
    sampling, training = profile.sampling, profile.training
    if sampling.trajectories > MOST_TRAJECTORIES:
        raise ProfileError(
            f"sampling.samples={sampling.samples}: with {sampling.prompts} prompts that is "
            f"{sampling.trajectories} trajectories a batch; give at most {MOST_TRAJECTORIES}"
        )
    if sampling.tensor_parallel > profile.gpus:
        raise ProfileError(
            f"sampling.tensor_parallel={sampling.tensor_parallel}: a replica needs more GPUs than "
            f"gpus={profile.gpus}; give a smaller one or more GPUs"
        )
    if training.fewest_gpus > profile.gpus:
        raise ProfileError(
            f"training.fewest_gpus={training.fewest_gpus}: the trainer needs more GPUs than "
            f"gpus={profile.gpus}; give more GPUs"
        )
    longest = sampling.response_tokens.largest + sampling.prompt_tokens.largest
    if 0 < sampling.kv_tokens < longest:
        raise ProfileError(
            f"sampling.kv_tokens={sampling.kv_tokens}: does not hold the longest trajectory of "
            f"{longest:.0f} tokens; give a larger one, or 0 for no limit"
        )
    if training.parameters and training.update_s:
        raise ProfileError(
            "training.parameters: training.update_s is given, too; keep one of the two"
        )
    if not training.parameters and not training.update_s:
        raise ProfileError(
            "training.update_s is missing: give the seconds of an update, or parameters, "
            "flops_per_gpu and utilisation"
        )
    least = {"flops_per_gpu": 1.0, "utilisation": 1e-6} if training.parameters else {}
    for name, value in least.items():
        if not getattr(training, name):
            raise ProfileError(f"training.{name} is missing: training.parameters needs it")
        if getattr(training, name) < value:
            raise ProfileError(
                f"training.{name}={getattr(training, name):g}: must be a number at least {value:g}"
            )
