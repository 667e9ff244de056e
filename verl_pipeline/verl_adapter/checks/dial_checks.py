"""Whether a run past the barrier (``weight_sync_mode``) can be what its settings ask for.

Invariant: a mode that the engines cannot do is refused before anything is loaded, by its name and
with the mode that they can do.
"""

from collections.abc import Iterator

from omegaconf import DictConfig, OmegaConf

from verl_pipeline.trainer.pipeline_config import (
    PIPELINE_KEY,
    ROLLOUT,
    ConfigError,
    OneOffPipelineConfig,
    load_pipeline_config,
)
from verl_pipeline.trainer.schedule import DRAINED, IN_FLIGHT, ROLLING
from verl_pipeline.verl_adapter.checks.config_checks import count_replica_devices
from verl_pipeline.verl_adapter.emulated.plugin import ROLLOUT_NAME as EMULATED
from verl_pipeline.verl_adapter.rollout.versioned_replica import find_freeze_fault

MODE = f"{PIPELINE_KEY}.weight_sync_mode"
BACKEND = f"{ROLLOUT}.checkpoint_engine.backend"
# Weight engines whose weights can be kept on the rollout nodes.
STORING = ("gloo", "nccl", "nixl", "mooncake")


def check_dial(config: DictConfig) -> Iterator[ConfigError]:
    """The engine and the weight engine can do what the mode asks for."""
    settings = load_pipeline_config(config)
    if settings.val_beside_training and config.trainer.test_freq == 1:
        yield ConfigError(
            f"{PIPELINE_KEY}.val_beside_training=true with trainer.test_freq=1: each validation "
            "would have to end before the next step does; set trainer.test_freq to 2 or more"
        )
    mode = settings.weight_sync_mode
    if mode == DRAINED:
        return
    yield from _check_replicas(config)
    is_emulated = OmegaConf.select(config, f"{ROLLOUT}.name") == EMULATED
    if mode == IN_FLIGHT and not is_emulated and (fault := find_freeze_fault(config)) is not None:
        yield ConfigError(f"{MODE}={mode}: {fault}")
    backend = OmegaConf.select(config, BACKEND)
    if backend not in (*STORING, "naive"):  # naive is replaced
        yield ConfigError(
            f"{BACKEND}={backend}: does not keep weights on the rollout nodes, which {MODE}={mode} "
            f"needs; use one of {', '.join(STORING)}, or {MODE}={DRAINED}"
        )
    if OmegaConf.select(config, f"{ROLLOUT}.router_config_path"):
        yield ConfigError(
            f"{ROLLOUT}.router_config_path: with {MODE}={mode} the dispatcher chooses each "
            "trajectory's replica by the weights it holds; remove it"
        )


def _check_replicas(config: DictConfig) -> Iterator[ConfigError]:
    settings, replicas = load_pipeline_config(config), _count_replicas(config)
    least, most = settings.min_replicas, settings.max_replicas
    if OmegaConf.select(config, f"{ROLLOUT}.name") == EMULATED:  # has its own number
        return
    if most is not None and most < replicas:
        yield ConfigError(
            f"{PIPELINE_KEY}.max_replicas={most}: the rollout pool has {replicas} from the start "
            f"({ROLLOUT}.nnodes and n_gpus_per_node, by the devices of a replica); set it to "
            f"{replicas} or more, or to null"
        )
    if least > replicas:
        yield ConfigError(
            f"{PIPELINE_KEY}.min_replicas={least}: the rollout pool has {replicas} from the start "
            f"({ROLLOUT}.nnodes and n_gpus_per_node, by the devices of a replica); set it to "
            f"{replicas} or less"
        )


def _count_replicas(config: DictConfig) -> int:
    rollout = config.actor_rollout_ref.rollout
    return rollout.nnodes * rollout.n_gpus_per_node // count_replica_devices(config)


def check_staleness(settings: OneOffPipelineConfig, last_step: int) -> None:
    """Refuse a lead that the run never reaches.

    Raises:
        ConfigError: naming the field.
    """
    staleness = settings.dial.staleness
    if 1 < staleness > last_step:
        raise ConfigError(
            f"{PIPELINE_KEY}.staleness={staleness}: the run has only {last_step} batches (see "
            "trainer.total_training_steps and the data), so it never gets that far ahead; set it "
            f"to {max(last_step, 1)} or less"
        )


def describe_dial(config: DictConfig, settings: OneOffPipelineConfig) -> Iterator[str]:
    """Lines about the schedule, for the start of a run."""
    dial = settings.dial
    staleness = f"auto, at most {settings.most_staleness}" if settings.is_auto else dial.staleness
    yield f"weights {dial.mode}, staleness {staleness}"
    if settings.val_beside_training and config.trainer.test_freq > 0:
        yield "validations run beside the training, except for the first and the last"
    if dial.mode == ROLLING and _count_replicas(config) == 1:
        yield (
            f"hint: {MODE}={ROLLING} with one replica: it runs empty before each load, and nobody "
            "samples meanwhile; what is left to gain is that the trainer does not wait for the "
            f"load. {IN_FLIGHT} does not run empty, and two replicas take turns"
        )
