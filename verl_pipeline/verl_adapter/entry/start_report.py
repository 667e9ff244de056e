"""What a run prints of itself when its trainer starts.

Invariant: it describes the configuration as the trainer has completed it, and changes nothing.
"""

from collections.abc import Iterator, Sequence

from omegaconf import DictConfig

from verl_pipeline.curriculum.settings import describe_curriculum
from verl_pipeline.number_formats import format_percent
from verl_pipeline.trainer.pipeline_config import (
    ROLLOUT,
    DerivedSetting,
    OneOffPipelineConfig,
)
from verl_pipeline.verl_adapter.checks.dial_checks import describe_dial
from verl_pipeline.verl_adapter.settings.derived_settings import describe_correction

# A share of the memory that leaves room for an engine that trains on the same device, as verl's
# default 0.5 does, and one for a device that only samples: what is left takes the weight sync's
# buckets and CUDA's own part.
COLOCATED_SHARE = 0.75
DEDICATED_SHARE = 0.85


def describe_start(
    config: DictConfig, settings: OneOffPipelineConfig, derived: Sequence[DerivedSetting]
) -> Iterator[str]:
    """Lines about a run in the mode ``one_off_pipeline``."""
    for setting in derived:
        yield f"derived {setting}"
    yield from describe_dial(config, settings)
    trainer, rollout = config.trainer, config.actor_rollout_ref.rollout
    yield (
        "pools: "
        f"{trainer.nnodes} x {trainer.n_gpus_per_node} train, "
        f"{rollout.nnodes} x {rollout.n_gpus_per_node} sample; "
        f"correction {settings.correction}: {describe_correction(config)}"
    )
    if settings.curriculum.selector is not None:
        yield f"prompts: {describe_curriculum(settings.curriculum)}"
    if (hint := suggest_memory_share(config)) is not None:
        yield hint


def suggest_memory_share(config: DictConfig) -> str | None:
    """A line about ``gpu_memory_utilization`` if it leaves room that nothing else will use."""
    share = config.actor_rollout_ref.rollout.gpu_memory_utilization
    if config.trainer.device == "cpu" or share >= COLOCATED_SHARE:
        return None
    return (
        f"hint: {ROLLOUT}.gpu_memory_utilization={share:g} leaves {format_percent(1 - share, 0)} "
        "of each rollout device unused, since nothing trains there; "
        f"{DEDICATED_SHARE} is usual for such devices, and more sequences then run at once"
    )
