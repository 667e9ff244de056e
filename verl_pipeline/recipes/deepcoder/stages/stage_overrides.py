"""The overrides of a stage's command line, and the configuration that verl composes from them.

Invariants:
* Later overrides win: overlays, hardware, run, stage, the user's, then those that only the runner
  sets.
* The training process composes the same configuration as this module: from the same overrides and
  the same primary configuration.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra import initialize_config_module
from omegaconf import DictConfig

from verl_pipeline.errors import UserError
from verl_pipeline.overrides import ComposeError, compose_overrides
from verl_pipeline.quickstart.__main__ import choose_dtype_overrides
from verl_pipeline.recipes.deepcoder.stages.stage_config import (
    HardwareConfig,
    RunConfig,
    StageConfig,
)
from verl_pipeline.recipes.deepcoder.stages.stage_loader import suggest_name

GRPO_PLUS_VARIANTS = ("ours", "described", "released")
# Only the runner sets these: resuming, the order of the prompts and the step count depend on them.
RUNNER_KEYS = (
    "trainer.default_local_dir",
    "trainer.resume_mode",
    "trainer.resume_from_path",
    "trainer.del_local_ckpt_after_load",
    "trainer.total_training_steps",
    "trainer.total_epochs",
    "data.shuffle",
    "data.custom_cls",
    "data.stream_start",
)
TRAIN_FILE, HELDOUT_FILE = "train.parquet", "heldout.parquet"


class OverrideError(UserError):
    """An override is wrong; the message says which one and why."""


@dataclass(frozen=True)
class RunSettings:
    """What a command chooses, for all stages.

    Attributes:
        run: the run, as read from its file.
        hardware: the hardware, as read from its file.
        model: folder or hub name of the initial model.
        data: folder of :data:`TRAIN_FILE` and :data:`HELDOUT_FILE`.
        output: folder of everything that is written.
        grpo_plus: one of :data:`GRPO_PLUS_VARIANTS`.
        overrides: the user's overrides.
    """

    run: RunConfig
    hardware: HardwareConfig
    model: str
    data: Path
    output: Path
    grpo_plus: str = "ours"
    overrides: Sequence[str] = ()


def split_overrides(overrides: Iterable[str], variant: str) -> tuple[str, list[str]]:
    """Separate ``reproduce=<variant>`` from the user's other overrides.

    Args:
        overrides: the user's overrides.
        variant: the variant of GRPO+ if no override names one.

    Returns:
        The variant of GRPO+, and the other overrides.

    Raises:
        OverrideError: the variant is unknown, or only the runner may set a key.
    """
    others = []
    for override in overrides:
        key, equals, value = override.lstrip("+~").partition("=")
        if key == "reproduce" and equals:
            variant = value
            continue
        if key == "grpo_plus":
            raise OverrideError(f"{override}: give reproduce={value} instead")
        if not equals and not override.startswith("~"):
            raise OverrideError(f"{override}: an override must have the form key=value")
        runner_key = next(
            (own for own in RUNNER_KEYS if key == own or key.startswith(f"{own}.")), None
        )
        if runner_key:
            raise OverrideError(
                f"{override}: the stage runner sets {runner_key} itself; see --output, --data and "
                "stages.yaml"
            )
        others.append(override)
    if variant not in GRPO_PLUS_VARIANTS:
        raise OverrideError(
            f"reproduce={variant}: unknown; {suggest_name(variant, GRPO_PLUS_VARIANTS)}"
        )
    return variant, others


def build_overrides(settings: RunSettings, name: str) -> list[str]:
    """Return the overrides of stage ``name``, except :func:`build_stream_overrides`."""
    run, hardware, stage = settings.run, settings.hardware, settings.run.stages[name]
    overlays = ["+verl_pipeline=cpu"] if hardware.device == "cpu" else []
    return [
        *overlays,
        f"+grpo_plus={settings.grpo_plus}",
        *_build_hardware_overrides(hardware),
        *_build_schedule_overrides(settings.grpo_plus),
        *_build_run_overrides(settings),
        *run.overrides,
        *_build_stage_overrides(run, stage),
        f"trainer.experiment_name={settings.output.name}-{name}",
        *stage.overrides,
        *settings.overrides,
        f"trainer.default_local_dir={settings.output / name / 'checkpoints'}",
        f"trainer.total_training_steps={stage.last_step}",
    ]


def build_stream_overrides(first_prompt: int) -> list[str]:
    """Return the override for the position in the stream of prompts at which a stage begins."""
    return [f"+data.stream_start={first_prompt}"]


def _build_hardware_overrides(hardware: HardwareConfig) -> list[str]:
    return [
        "actor_rollout_ref.rollout.name=vllm",  # verl has no default
        f"actor_rollout_ref.rollout.tensor_model_parallel_size={hardware.tensor_parallel}",
        f"actor_rollout_ref.actor.ulysses_sequence_parallel_size={hardware.sequence_parallel}",
        *(choose_dtype_overrides() if hardware.device == "cpu" else []),
        *hardware.overrides,
    ]


def _build_schedule_overrides(grpo_plus: str) -> list[str]:
    """The original's schedule, whatever the hardware's, where the original is reproduced."""
    if grpo_plus == "ours":
        return []
    pipeline = "trainer.v1.one_off_pipeline"
    return [f"{pipeline}.weight_sync_mode=drained", f"{pipeline}.staleness=1"]


def _build_run_overrides(settings: RunSettings) -> list[str]:
    run = settings.run
    reward = "reward.custom_reward_function"
    prefix = [f'+{reward}.reward_kwargs.prefix="{run.answer_prefix}"'] if run.answer_prefix else []
    return [
        f"actor_rollout_ref.model.path={settings.model}",
        f"actor_rollout_ref.actor.optim.lr={run.learning_rate}",
        f"data.train_files={settings.data / TRAIN_FILE}",
        f"data.val_files={settings.data / HELDOUT_FILE}",
        f"data.max_prompt_length={run.prompt_length}",
        "data.filter_overlong_prompts=True",
        f"data.seed={run.seed}",
        # PromptStream shuffles by itself, so that a later stage can begin anywhere in the order.
        "data.shuffle=False",
        "data.custom_cls.path=pkg://verl_pipeline.verl_adapter.trajectories.prompt_stream",
        "data.custom_cls.name=PromptStream",
        f"{reward}.path=pkg://verl_pipeline.rewards.code",
        f"{reward}.name=compute_score",
        *prefix,
        f"trainer.save_freq={run.save_every}",
        f"trainer.test_freq={run.validate_every}",
        "trainer.val_before_train=False",
        "trainer.resume_mode=auto",
        # PromptStream never ends, so the one epoch lasts until the last step.
        "trainer.total_epochs=1",
        "trainer.project_name=deepcoder",
        "trainer.logger=[console,file,tensorboard]",
    ]


def _build_stage_overrides(run: RunConfig, stage: StageConfig) -> list[str]:
    rollout, actor = "actor_rollout_ref.rollout", "actor_rollout_ref.actor"
    overrides = [
        f"data.train_batch_size={stage.batch}",
        f"data.max_response_length={stage.response_length}",
        f"{rollout}.max_model_len={run.prompt_length + stage.response_length}",
        f"{actor}.ppo_mini_batch_size={stage.mini_batch}",
        f"{rollout}.n={stage.samples}",
        f"trainer.nnodes={stage.pools.train.nodes}",
        f"trainer.n_gpus_per_node={stage.pools.train.devices}",
        f"{rollout}.nnodes={stage.pools.rollout.nodes}",
        f"{rollout}.n_gpus_per_node={stage.pools.rollout.devices}",
    ]
    if stage.tokens_per_device is not None:
        overrides += [
            f"{actor}.use_dynamic_bsz=True",
            f"{actor}.ppo_max_token_len_per_gpu={stage.tokens_per_device}",
        ]
    if stage.temperature is not None:
        overrides.append(f"{rollout}.temperature={stage.temperature}")
    return overrides


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """Compose verl's configuration as ``python -m verl_pipeline.main`` does.

    References are left as they are: ``check_readable`` names those that nothing resolves.

    Raises:
        OverrideError: hydra refuses an override.
    """
    with initialize_config_module("verl_pipeline.config", version_base=None):
        try:
            return compose_overrides("one_off_pipeline", overrides)
        except ComposeError as error:
            raise OverrideError(str(error)) from error
