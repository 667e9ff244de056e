"""verl's configuration of a stage: the words of its command line, and what verl makes of them.

Invariants:
* Later words win: overlays, hardware, run, stage, the user's, then those that the runner alone
  sets.
* What is composed here is what the child composes: the same words over the same primary
  configuration.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recipes.deepcoder.stages.stage_config import REPRODUCE, Hardware, Run, Stage, nearest
from verl_pipeline.evaluation.errors import Refused
from verl_pipeline.quickstart.__main__ import dtype_overrides

# Set by the runner: resuming, the order of prompts and the count of steps rest on them.
OWNED = (
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
_UNKNOWN = re.compile(r"Could not override '([^']+)'")
TRAIN, HELD_OUT = "train.parquet", "heldout.parquet"


class BadOverride(Refused):
    """An override that cannot be; the message says which and why."""


@dataclass(frozen=True)
class Settings:
    """What a command chooses, for all stages.

    Attributes:
        run, hardware: as read from their files.
        model: folder or hub name.
        data: folder of :data:`TRAIN` and :data:`HELD_OUT`.
        output: folder of all that is written.
        reproduce: one of :data:`REPRODUCE`.
        overrides: the user's words.
    """

    run: Run
    hardware: Hardware
    model: str
    data: Path
    output: Path
    reproduce: str = "ours"
    overrides: Sequence[str] = ()


def split_words(words: Iterable[str], reproduce: str) -> tuple[str, list[str]]:
    """The variant of GRPO+, which ``reproduce=<variant>`` among the user's words may name as well,
    and the others.

    Raises:
        BadOverride: an unknown variant, or a word that is the runner's to set.
    """
    kept = []
    for word in words:
        key, equals, value = word.lstrip("+~").partition("=")
        if key == "reproduce" and equals:
            reproduce = value
            continue
        if key == "grpo_plus":
            raise BadOverride(f"{word}: give reproduce={value}")
        if not equals and not word.startswith("~"):
            raise BadOverride(f"{word}: settings have the form key=value")
        if owner := next((own for own in OWNED if key == own or key.startswith(f"{own}.")), None):
            raise BadOverride(
                f"{word}: the stage runner sets {owner} itself; see --output, --data and "
                "stages.yaml"
            )
        kept.append(word)
    if reproduce not in REPRODUCE:
        raise BadOverride(f"reproduce={reproduce}: unknown; {nearest(reproduce, REPRODUCE)}")
    return reproduce, kept


def words(settings: Settings, name: str) -> list[str]:
    """The overrides of stage ``name``, but for :func:`place`."""
    run, hardware, stage = settings.run, settings.hardware, settings.run.stages[name]
    overlays = ["+verl_pipeline=cpu"] if hardware.device == "cpu" else []
    return [
        *overlays,
        f"+grpo_plus={settings.reproduce}",
        *_hardware_words(hardware),
        *_run_words(settings),
        *run.overrides,
        *_stage_words(run, stage),
        f"trainer.experiment_name={settings.output.name}-{name}",
        *stage.overrides,
        *settings.overrides,
        f"trainer.default_local_dir={settings.output / name / 'checkpoints'}",
        f"trainer.total_training_steps={stage.last_step}",
    ]


def place(start: int) -> list[str]:
    """The word that says where in the stream of prompts a stage begins."""
    return [f"+data.stream_start={start}"]


def _hardware_words(hardware: Hardware) -> list[str]:
    return [
        f"actor_rollout_ref.rollout.tensor_model_parallel_size={hardware.tensor_parallel}",
        f"actor_rollout_ref.actor.ulysses_sequence_parallel_size={hardware.sequence_parallel}",
        *(dtype_overrides() if hardware.device == "cpu" else []),
        *hardware.overrides,
    ]


def _run_words(settings: Settings) -> list[str]:
    run = settings.run
    rewards = "reward.custom_reward_function"
    prefix = [f'+{rewards}.reward_kwargs.prefix="{run.answer_prefix}"'] if run.answer_prefix else []
    return [
        f"actor_rollout_ref.model.path={settings.model}",
        f"actor_rollout_ref.actor.optim.lr={run.learning_rate}",
        f"data.train_files={settings.data / TRAIN}",
        f"data.val_files={settings.data / HELD_OUT}",
        f"data.max_prompt_length={run.prompt_length}",
        "data.filter_overlong_prompts=True",
        f"data.seed={run.seed}",
        "data.shuffle=False",
        "data.custom_cls.path=pkg://verl_pipeline.trainer.stream",
        "data.custom_cls.name=PromptStream",
        f"{rewards}.path=pkg://verl_pipeline.rewards.code",
        f"{rewards}.name=compute_score",
        *prefix,
        f"trainer.save_freq={run.save_every}",
        f"trainer.test_freq={run.validate_every}",
        "trainer.val_before_train=False",
        "trainer.resume_mode=auto",
        # The stream has no end
        "trainer.total_epochs=1",
        "trainer.project_name=deepcoder",
        "trainer.logger=[console,file,tensorboard]",
    ]


def _stage_words(run: Run, stage: Stage) -> list[str]:
    rollout, actor = "actor_rollout_ref.rollout", "actor_rollout_ref.actor"
    found = [
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
        found += [
            f"{actor}.use_dynamic_bsz=True",
            f"{actor}.ppo_max_token_len_per_gpu={stage.tokens_per_device}",
        ]
    if stage.temperature is not None:
        found.append(f"{rollout}.temperature={stage.temperature}")
    return found


def composed(overrides: Sequence[str]) -> DictConfig:
    """verl's configuration as ``python -m verl_pipeline.main`` composes it, every interpolation
    checked.

    Raises:
        BadOverride: hydra refuses one, or one cannot be resolved.
    """
    try:
        with initialize_config_module("verl_pipeline.config", version_base=None):
            config = compose("one_off_pipeline", list(overrides))
        OmegaConf.to_container(config, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        text = " ".join(str(error).split())
        unknown = _UNKNOWN.match(text)
        raise BadOverride(
            f"{unknown[1]}: unknown; {_hint(unknown[1])}" if unknown else text
        ) from error
    return config


def _hint(key: str) -> str:
    """What a key that does not exist may have meant, among those that stand where it would."""
    parent, _, name = key.rpartition(".")
    with initialize_config_module("verl_pipeline.config", version_base=None):
        beside = (
            OmegaConf.select(compose("one_off_pipeline"), parent)
            if parent
            else compose("one_off_pipeline")
        )
    known = list(beside) if OmegaConf.is_dict(beside) else []
    return (
        f"{nearest(name, map(str, known))} A key that verl has no default for is given as "
        f"+{key}=..."
    )
