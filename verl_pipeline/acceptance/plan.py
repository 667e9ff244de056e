"""What the acceptance run trains, and the overrides that make any command train it.

Invariants:
* Model, data, reward, batch and lengths are the test's; pools, engine, backend, parallel sizes,
  precision, memory and Ray stay as the user's command has them.
* The test's sizes fit the user's: every parallel size divides heads, layers and vocabulary, and all
  ranks of the trainer share a mini-batch evenly.
* Each batch is the next rows of the data in their order, so what a step has to train is known.
* A size that the user got wrong is left to the checks of the run itself, which name it.
"""

import json
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from verl_pipeline.testing import runs, tiny_run
from verl_pipeline.trainer.pipeline_config import PIPELINE_KEY, ROLLOUT, TRAINER_MODE
from verl_pipeline.weight_sync.log_prob_drift import choose_limits

STEPS, SAMPLES, STALENESS = 3, 4, 1
PROMPT_LENGTH = 64
# Large enough that each update changes every weight in bf16, too: stale weights show.
LEARNING_RATE = 5e-3
ACTOR, MODEL = "actor_rollout_ref.actor", "actor_rollout_ref.model"
_RECORDER = "verl_pipeline.testing.recorded_rollout.RecordingAgentLoopManager"
_FEWEST_PROMPTS = 4
# Kernels of attention on GPUs exist for it in vLLM, SGLang and flash-attn.
_HEAD_SIZE = 64
_LARGEST_MICRO_BATCH = 8
# A larger size is a slip, which the checks of the run name.
_LARGEST_SIZE = 4096
# Longest waits, in seconds. The tiny run needs seconds for each; engines take minutes to start.
_DEADLINES = {"cluster_s": 120, "start_s": 900, "batch_s": 300, "weight_sync_s": 300}
_TRAINED = (ACTOR, "actor_rollout_ref.ref", "critic")
# Below each of these, what splits heads, what splits the vocabulary too, and what splits layers.
_HEAD_SPLITS = (
    "ulysses_sequence_parallel_size",
    "fsdp_config.ulysses_sequence_parallel_size",
    "fsdp.ulysses_sequence_parallel_size",
    "megatron.context_parallel_size",
)
_TENSOR_SPLITS = ("megatron.tensor_model_parallel_size",)
_LAYER_SPLITS = (
    "megatron.pipeline_model_parallel_size",
    "megatron.virtual_pipeline_model_parallel_size",
)


@dataclass(frozen=True)
class Plan:
    """What a run trains.

    Attributes:
        prompts: of a batch, which is one mini-batch.
        samples: of a prompt.
        micro_batch: trajectories.
    """

    sizes: tiny_run.ModelSizes
    prompts: int
    micro_batch: int
    samples: int = SAMPLES
    steps: int = STEPS

    @property
    def rows(self) -> int:
        """Rows of the data: one batch more than is trained, to see if a step takes it."""
        return (self.steps + 1) * self.prompts

    def list_rows(self, step: int) -> list[int]:
        """The rows that a step has to train."""
        return list(range((step - 1) * self.prompts, step * self.prompts))


def make_plan(config: DictConfig) -> Plan:
    """The plan that fits the pools and parallel sizes of ``config``."""
    tensor = [read_size(config, f"{ROLLOUT}.tensor_model_parallel_size")]
    tensor += _read_sizes(config, _TENSOR_SPLITS)
    layers = 1
    for part in _TRAINED:
        stages = [read_size(config, f"{part}.{name}") for name in _LAYER_SPLITS]
        layers = math.lcm(layers, math.prod(stages))
    sizes = tiny_run.ModelSizes(
        layers=math.lcm(2, layers, read_size(config, f"{ROLLOUT}.pipeline_model_parallel_size")),
        heads=math.lcm(2, *tensor, *_read_sizes(config, _HEAD_SPLITS)),
        head_size=_HEAD_SIZE,
        vocabulary_divisor=math.lcm(*tensor),
    )
    ranks = read_size(config, "trainer.nnodes") * read_size(config, "trainer.n_gpus_per_node")
    unit = ranks // math.gcd(ranks, SAMPLES)
    # Every replica gets a prompt.
    fewest = max(_FEWEST_PROMPTS, count_rollout_devices(config))
    prompts = -(-fewest // unit) * unit
    share = prompts * SAMPLES // ranks
    return Plan(sizes, prompts, math.gcd(_LARGEST_MICRO_BATCH, share))


def count_rollout_devices(config: DictConfig) -> int:
    """Devices of the rollout pool."""
    return read_size(config, f"{ROLLOUT}.nnodes") * read_size(config, f"{ROLLOUT}.n_gpus_per_node")


def read_size(config: DictConfig, field: str) -> int:
    """The size that ``config`` has; 1 if there is none, or no such size can be."""
    value = _read(config, field)
    return value if isinstance(value, int) and 1 <= value <= _LARGEST_SIZE else 1


def _read_sizes(config: DictConfig, names: Collection[str]) -> list[int]:
    return [read_size(config, f"{part}.{name}") for part in _TRAINED for name in names]


def _read(config: DictConfig, field: str) -> Any:
    try:
        return OmegaConf.select(config, field)
    except OmegaConfBaseException:
        return None


def list_default_pools(config: DictConfig, given: Collection[str]) -> list[str]:
    """Overrides for one trainer rank and one replica where the command chooses no pools.

    Args:
        given: the keys that the command sets.
    """
    if _read(config, f"{ROLLOUT}.nnodes") != 0:  # verl's default: no rollout pool
        return []
    defaults = {
        f"{ROLLOUT}.nnodes": 1,
        f"{ROLLOUT}.n_gpus_per_node": 1,
        f"{ROLLOUT}.tensor_model_parallel_size": 1,
        "trainer.n_gpus_per_node": 1,
    }
    chosen = [f"++{key}={value}" for key, value in defaults.items() if key not in given]
    if _read(config, f"{ROLLOUT}.name") is None:
        chosen.append(f"++{ROLLOUT}.name=vllm")
    return chosen


def list_overrides(config: DictConfig, plan: Plan, folder: Path) -> list[str]:
    """The overrides that follow those of the user, whose configuration is ``config``.

    Args:
        folder: where model and data are, and where the run writes.
    """
    settings = {
        **_list_schedule(plan),
        **_list_weight_checks(config, plan),
        **_list_inputs(folder),
        **dict(_list_deadlines(config)),
    }
    # Engines differ in their settings: FSDP's critic has some that Megatron's has not.
    settings |= {
        field: value
        for field, value in (_list_batch(plan) | _list_switched_off()).items()
        if _exists(config, field)
    }
    return [f"++{field}={json.dumps(value)}" for field, value in settings.items()]


def _exists(config: DictConfig, field: str) -> bool:
    section, _, name = field.rpartition(".")
    parent = _read(config, section)
    return OmegaConf.is_dict(parent) and name in parent.keys()  # noqa: SIM118 (null values, too)


def _list_schedule(plan: Plan) -> dict[str, Any]:
    return {
        "trainer.v1.trainer_mode": TRAINER_MODE,
        f"{PIPELINE_KEY}.staleness": STALENESS,
        f"{PIPELINE_KEY}.filters": ["infrastructure"],
        f"{PIPELINE_KEY}.max_infrastructure_share": 0.0,
        "trainer.critic_warmup": 0,
        "trainer.total_epochs": 1,
        "trainer.total_training_steps": plan.steps,
        "trainer.val_before_train": False,
        "trainer.val_only": False,
        "trainer.test_freq": -1,
        "trainer.save_freq": -1,
        "trainer.resume_mode": "disable",
    }


def _list_weight_checks(config: DictConfig, plan: Plan) -> dict[str, Any]:
    """All syncs and steps; the tiny model changes too fast for a limit that follows its gaps."""
    check, is_quantized = (
        f"{PIPELINE_KEY}.weight_check",
        bool(_read(config, f"{ROLLOUT}.quantization")),
    )
    given = _read(config, f"{check}.max_log_prob_gap")
    limit = choose_limits(str(_read(config, f"{ROLLOUT}.dtype")), is_quantized, given)[1]
    values = {"fingerprint_syncs": plan.steps, "log_prob_every": 1, "max_log_prob_gap": limit}
    return {f"{check}.{name}": value for name, value in values.items()}


def _list_batch(plan: Plan) -> dict[str, Any]:
    return {
        "data.train_batch_size": plan.prompts,
        "data.gen_batch_size": None,
        "data.max_prompt_length": PROMPT_LENGTH,
        "data.max_response_length": tiny_run.RESPONSE_LENGTH,
        f"{ROLLOUT}.prompt_length": PROMPT_LENGTH,
        f"{ROLLOUT}.response_length": tiny_run.RESPONSE_LENGTH,
        f"{ROLLOUT}.max_model_len": 2 * PROMPT_LENGTH,
        f"{ROLLOUT}.n": plan.samples,
        f"{ROLLOUT}.log_prob_micro_batch_size": None,
        f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu": plan.micro_batch,
        "actor_rollout_ref.ref.log_prob_micro_batch_size": None,
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": plan.micro_batch,
        f"{ACTOR}.ppo_mini_batch_size": plan.prompts,
        f"{ACTOR}.ppo_micro_batch_size": None,
        f"{ACTOR}.ppo_micro_batch_size_per_gpu": plan.micro_batch,
        f"{ACTOR}.optim.lr": LEARNING_RATE,
        f"{ACTOR}.optim.lr_warmup_steps": 0,
        f"{ACTOR}.optim.lr_warmup_steps_ratio": 0.0,
        "critic.ppo_mini_batch_size": plan.prompts,
        "critic.ppo_micro_batch_size": None,
        "critic.ppo_micro_batch_size_per_gpu": plan.micro_batch,
        "critic.forward_micro_batch_size_per_gpu": plan.micro_batch,
        "critic.optim.lr_warmup_steps": 0,
    }


def _list_inputs(folder: Path) -> dict[str, Any]:
    model, rows = str(folder / "model"), str(folder / "train.parquet")
    return {
        f"{MODEL}.path": model,
        "critic.model.path": model,
        "data.train_files": rows,
        "data.val_files": rows,
        "data.shuffle": False,
        "data.dataloader_num_workers": 0,
        "reward.custom_reward_function.path": "pkg://verl_pipeline.testing.tiny_run",
        "reward.custom_reward_function.name": "compute_text_score",
        "reward.reward_manager.source": "register",
        "reward.reward_manager.name": "naive",
        f"{ROLLOUT}.agent.agent_loop_manager_class": _RECORDER,
        "trainer.default_local_dir": str(folder / "run"),
        **{
            f"ray_kwargs.ray_init.runtime_env.env_vars.{name}": value
            for name, value in (runs.name_records(folder) | {"HF_HUB_OFFLINE": "1"}).items()
        },
    }


def _list_switched_off() -> dict[str, Any]:
    """What belongs to the user's own model and data, where the configuration has it."""
    return {
        **{
            f"{model}.{name}": None
            for model in (MODEL, "critic.model")
            for name in (
                "tokenizer_path",
                "hf_config_path",
                "custom_chat_template",
                "lora_adapter_path",
            )
        },
        f"{MODEL}.mtp.enable": False,
        f"{ROLLOUT}.expert_parallel_size": 1,
        f"{ROLLOUT}.multi_turn.enable": False,
        f"{ROLLOUT}.agent.default_agent_loop": "single_turn_agent",
        f"{ROLLOUT}.agent.agent_loop_config_path": None,
        f"{ROLLOUT}.multi_turn.tool_config_path": None,
        f"{ROLLOUT}.multi_turn.function_tool_path": None,
        f"{ROLLOUT}.multi_turn.interaction_config_path": None,
        **{f"{part}.megatron.expert_model_parallel_size": 1 for part in _TRAINED},
        "data.prompt_key": "prompt",
        "data.reward_fn_key": "data_source",
        "data.train_max_samples": -1,
        "data.custom_cls.path": None,
        "data.sampler.class_path": None,
        "data.tool_config_path": None,
        "data.function_tool_path": None,
        "reward.reward_model.enable": False,
        "distillation.enabled": False,
        "global_profiler.steps": None,
        "trainer.rollout_data_dir": None,
        "trainer.default_hdfs_dir": None,
        "trainer.resume_from_path": None,
    }


def _list_deadlines(config: DictConfig) -> Iterator[tuple[str, Any]]:
    """The user's, or the test's where they are longer."""
    for name, longest in _DEADLINES.items():
        given = _read(config, f"{PIPELINE_KEY}.deadlines.{name}")
        if isinstance(given, int | float) and given > longest:
            yield f"{PIPELINE_KEY}.deadlines.{name}", longest
