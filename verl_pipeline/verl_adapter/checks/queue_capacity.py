"""How many keys TransferQueue holds at once, and whether its storage units have room for them.

TransferQueue numbers its keys with the smallest numbers that are free and keeps a row on unit
(number modulo units). Prompts take numbers, too, although they store nothing but the traceback of a
failed trajectory, which has no row. A unit takes ceil(total_storage_size / units) rows and ends the
run at the next. ``total_storage_size`` allocates nothing: rows are entries of a dict, and null
means no bound.

Invariants:
* A number is accepted only if no order of arrivals and removals can overflow a unit. P keys at once
  are numbered 0 to P-1, so a unit gets at most ceil(P / units) of them, and never more than all
  rows.
* A number is refused only if some order would overflow one.
* Counted is what the configuration tells: agent loops that return several rows for a session, and
  data sets that ask for larger groups, need null.
"""

import math
from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf
from verl.trainer.ppo.utils import need_critic

from verl_pipeline.trainer.pipeline_config import (
    ROLLOUT,
    ConfigError,
    DerivedSetting,
    load_pipeline_config,
)
from verl_pipeline.verl_adapter.checks.config_checks import count_trainer_ranks

STORAGE = "transfer_queue.backend.SimpleStorage"
SIZE, UNITS = f"{STORAGE}.total_storage_size", f"{STORAGE}.num_data_storage_units"
# verl's own, which was not chosen for any run.
DEFAULT_SIZE = 100_000


def derive_capacity(config: DictConfig) -> list[DerivedSetting]:
    """No bound where the user kept verl's; effective only before ``transfer_queue.init``.

    Raises:
        ConfigError: the user's own bound is too small for the training batches.
    """
    if OmegaConf.select(config, SIZE) == DEFAULT_SIZE:
        reason = "it allocates nothing, and a row above it would end the run"
        return [DerivedSetting(SIZE, None, reason)]
    check_capacity(config, validation_prompts=0)
    return []


def check_capacity(config: DictConfig, validation_prompts: int) -> None:
    """Refuse a bound that a run could exceed.

    Args:
        config: verl's configuration, as TransferQueue was started with it.
        validation_prompts: rows of the validation set, or 0 if it is not known yet.

    Raises:
        ConfigError: names the field, what is needed and why.
    """
    size = OmegaConf.select(config, SIZE)
    if config.transfer_queue.backend.storage_backend != "SimpleStorage" or size is None:
        return
    units = OmegaConf.select(config, UNITS)
    peak = count_peak(config, validation_prompts)
    fullest = min(math.ceil(peak.keys / units), peak.rows)
    if math.ceil(size / units) < fullest:
        staleness = load_pipeline_config(config).most_staleness
        raise ConfigError(
            f"{SIZE}={size}: TransferQueue holds up to {peak.rows} trajectories at once "
            f"(data.train_batch_size={config.data.train_batch_size}, {ROLLOUT}.n="
            f"{config.actor_rollout_ref.rollout.n}, staleness {staleness}, validation), "
            f"up to {fullest} of them on one of {UNITS}={units}; set it to null, which allocates "
            f"nothing, or to {(fullest - 1) * units + 1} or more"
        )


@dataclass(frozen=True)
class QueuePeak:
    """The most that TransferQueue holds at once: trajectories (``rows``), and prompts with them."""

    keys: int
    rows: int


def count_peak(config: DictConfig, validation_prompts: int) -> QueuePeak:
    """What the schedule adds up to.

    While batch k trains, ``staleness`` more are there. Its prompts leave when it is taken; then
    verl may pad it. Its rows leave after the validation of step k.
    """
    rollout = config.actor_rollout_ref.rollout
    staleness = load_pipeline_config(config).most_staleness
    prompts = config.data.train_batch_size
    rows = prompts * rollout.n
    multiple = _find_padding_multiple(config)
    padded = math.ceil(rows / multiple) * multiple
    validated = min(config.data.val_batch_size or validation_prompts, validation_prompts)
    validation = validated * rollout.val_kwargs.n
    # Before the first step, a resumed run validates beside the batch that its checkpoint holds.
    beside = padded if config.trainer.test_freq > 0 else 0
    return QueuePeak(
        keys=staleness * (prompts + rows)
        + max(prompts + rows, padded, beside + validated + validation),
        rows=staleness * rows + max(padded, beside + validation),
    )


def _find_padding_multiple(config: DictConfig) -> int:
    """A multiple of the number of rows to a multiple of which verl pads a batch."""
    n = config.actor_rollout_ref.rollout.n
    sizes = [count_trainer_ranks(config), config.actor_rollout_ref.actor.ppo_mini_batch_size * n]
    if need_critic(config):
        sizes.append(config.critic.ppo_mini_batch_size * n)
    return math.lcm(*sizes)
