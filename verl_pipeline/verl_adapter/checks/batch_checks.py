"""Whether verl can share batches, mini-batches and micro-batches among the trainer's devices.

Invariants:
* Refused is what verl's workers would refuse, hours later: an assertion on a device. A batch need
  not be a multiple of its mini-batch; verl pads it.
* The sizes hold for any batch that filters and failures may leave: verl pads to whole mini-batches,
  so the smallest is one mini-batch.
* Each error is one line that names the field, its value and what to change.
"""

from omegaconf import DictConfig, OmegaConf

from verl_pipeline.trainer.pipeline_config import ROLLOUT, ConfigError
from verl_pipeline.verl_adapter.checks.check_report import Findings, NotChecked
from verl_pipeline.verl_adapter.checks.data_parallel import (
    ACTOR,
    CRITIC,
    REFERENCE,
    DataParallelShape,
    describe_size,
    find_batch_multiple,
    find_shape,
    find_token_limits,
    is_reference_in_actor,
    list_sections,
)

BYPASS = "algorithm.rollout_correction.bypass_mode"


def check_batches(config: DictConfig) -> Findings:
    """The devices of each role can share its mini-batches."""
    batch, n = config.data.train_batch_size, config.actor_rollout_ref.rollout.n
    for name, value in (("data.train_batch_size", batch), (f"{ROLLOUT}.n", n)):
        if value < 1:
            yield ConfigError(f"{name}={value}: set it to 1 or more")
    for section in list_sections(config):
        try:
            shape = find_shape(config, section)
        except (ConfigError, NotChecked) as finding:
            yield finding
            continue
        if section != REFERENCE:
            yield from _check_mini_batch(config, shape)
    gen_batch = config.data.get("gen_batch_size", None)
    if gen_batch is not None and (gen_batch < 1 or batch % gen_batch):
        yield ConfigError(
            f"data.gen_batch_size={gen_batch}: must divide data.train_batch_size={batch}"
        )


def _check_mini_batch(config: DictConfig, shape: DataParallelShape) -> Findings:
    name = f"{shape.section}.ppo_mini_batch_size"
    mini_batch, n = OmegaConf.select(config, name), config.actor_rollout_ref.rollout.n
    if mini_batch < 1:
        yield ConfigError(f"{name}={mini_batch}: set it to 1 or more")
    elif mini_batch * n % shape.size:
        yield ConfigError(
            f"{name}={mini_batch}: times {ROLLOUT}.n={n} is {mini_batch * n}, not a multiple of "
            f"the {describe_size(shape)}; change either"
        )


def check_micro_batches(config: DictConfig) -> Findings:
    """Micro-batches divide the share of each device, or have room for the longest sequence."""
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    if actor.use_dynamic_bsz != rollout.log_prob_use_dynamic_bsz:
        yield ConfigError(
            f"{ROLLOUT}.log_prob_use_dynamic_bsz={rollout.log_prob_use_dynamic_bsz}: verl needs it "
            f"equal to {ACTOR}.use_dynamic_bsz={actor.use_dynamic_bsz}"
        )
    shapes = {}
    for section in list_sections(config):
        try:
            shapes[section] = find_shape(config, section)
        except NotChecked:  # check_batches says so
            continue
    for shape in shapes.values():
        yield from _check_token_limits(config, shape)
    if ACTOR not in shapes:
        return
    size = shapes[ACTOR].size
    multiple = find_batch_multiple(config, size)
    if not actor.use_dynamic_bsz:
        share = actor.ppo_mini_batch_size * rollout.n // size
        yield from _check_micro_batch(config, f"{ACTOR}.ppo_micro_batch_size_per_gpu", share)
        name = f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu"
        is_used = not OmegaConf.select(config, BYPASS) or is_reference_in_actor(config)
        yield from _check_micro_batch(config, name, multiple // size if is_used else None)
    if REFERENCE in shapes:
        yield from _check_reference(config, shapes[REFERENCE], multiple)


def _check_reference(config: DictConfig, shape: DataParallelShape, multiple: int) -> Findings:
    """The reference model has no mini-batches: it gets what the others' make of a batch."""
    if multiple % shape.size:
        yield ConfigError(
            f"{REFERENCE}.{shape.reason}: verl makes batches multiples of {multiple} trajectories, "
            f"which the {describe_size(shape)} does not divide; give it the actor's"
        )
    elif not config.actor_rollout_ref.ref.log_prob_use_dynamic_bsz:
        name = f"{REFERENCE}.log_prob_micro_batch_size_per_gpu"
        yield from _check_micro_batch(config, name, multiple // shape.size)


def _check_micro_batch(config: DictConfig, name: str, share: int | None) -> Findings:
    """
    Args:
        share: trajectories of each device in the smallest batch; None if it does not matter.
    """
    micro_batch = OmegaConf.select(config, name)
    if micro_batch is None:
        yield ConfigError(
            f"{name}: is not set, which verl needs without dynamic batches; set it, or "
            f"{ACTOR}.use_dynamic_bsz=True"
        )
    elif micro_batch < 1:
        yield ConfigError(f"{name}={micro_batch}: set it to 1 or more")
    elif share is not None and share % micro_batch:
        yield ConfigError(
            f"{name}={micro_batch}: must divide the {share} trajectories that each device gets of "
            "one mini-batch (failures and filters may leave no more of a batch)"
        )


def _check_token_limits(config: DictConfig, shape: DataParallelShape) -> Findings:
    """verl fails at the first sequence that is longer than a micro-batch may be."""
    rollout = config.actor_rollout_ref.rollout
    longest = rollout.prompt_length + rollout.response_length
    for name, limit in find_token_limits(config, shape).items():
        room = limit * shape.sequence_parts
        if room < longest:
            needed = -(-longest // shape.sequence_parts)
            plus = "+" if shape.section == CRITIC else ""
            yield ConfigError(
                f"{name}={limit}: a micro-batch has room for {room} tokens, below the {longest} of "
                f"prompt + response; set {plus}{name}={needed} or more"
            )
