"""The commands that check or start a training, with small files that they accept.

Invariant: none of the commands starts a training, and they share one warm process.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.helpers.command_fuzz import FuzzedCommand
from verl_pipeline.testing.tiny_run import write_data

MODEL, REWARD, LOOPS = "model/config.json", "reward.py", "loops.yaml"
TRAIN_DATA, HELDOUT_DATA = "data/train.parquet", "data/heldout.parquet"
CONFIGURATION, OWNER, STATE = "conf/mine.yaml", "out/.lock", "out/stages.json"
STAGES, HARDWARE = "stages.yaml", "hardware.yaml"
REWARD_SOURCE = """\
def compute_score(
    data_source, solution_str, ground_truth, extra_info=None, kind="dense", **kwargs
):
    return float(ground_truth in solution_str)
"""
# All of a model that a check reads.
MODEL_CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rope_theta": 10000.0,
    "eos_token_id": 2,
}
# The settings of a run that works, as a file has them; the folder is the working directory.
SETTINGS: dict[str, Any] = {
    "data": {
        "train_files": TRAIN_DATA,
        "val_files": [HELDOUT_DATA],
        "train_batch_size": 4,
        "max_prompt_length": 64,
        "max_response_length": 16,
        "seed": 7,
        "filter_overlong_prompts": True,
    },
    "actor_rollout_ref": {
        "model": {"path": "model", "enable_gradient_checkpointing": False},
        "actor": {
            "optim": {"lr": 0.005},
            "ppo_mini_batch_size": 4,
            "ppo_micro_batch_size_per_gpu": 8,
        },
        "rollout": {
            "name": "vllm",
            "n": 4,
            "nnodes": 1,
            "max_model_len": 128,
            "log_prob_micro_batch_size_per_gpu": 8,
            "temperature": 1.0,
            "agent": {"agent_loop_config_path": LOOPS},
        },
    },
    "algorithm": {"adv_estimator": "grpo"},
    "reward": {"custom_reward_function": {"path": REWARD, "name": "compute_score"}},
    "trainer": {
        "total_training_steps": 4,
        "save_freq": -1,
        "logger": ["console"],
        "resume_mode": "disable",
        "default_local_dir": "checkpoints",
        "v1": {"one_off_pipeline": {"staleness": 1, "filters": ["infrastructure"]}},
    },
}
_DEVICE = {"nodes": 1, "devices": 1}
_STAGE: dict[str, Any] = {
    "last_step": 4,
    "response_length": 8,
    "batch": 4,
    "mini_batch": 4,
    "samples": 4,
    "temperature": 1.0,
    "pools": {"train": _DEVICE, "rollout": _DEVICE},
    "until": {"truncated_share": {"above": 0.5, "window": 2}, "plateau": {"gain": 0.1}},
    "overrides": ["trainer.save_freq=2"],
}
_RUN: dict[str, Any] = {
    "model": "model",
    "data": "data",
    "prompt_length": 64,
    "answer_prefix": "<think>",
    "seed": 1,
    "learning_rate": 0.001,
    "save_every": 2,
    "validate_every": -1,
    "overrides": ["trainer.logger=[console,file]"],
    "stages": {"first": _STAGE, "second": {**_STAGE, "last_step": 8}},
}
_MACHINE: dict[str, Any] = {
    "run": "tiny",
    "device": "cpu",
    "nodes": 1,
    "devices": 4,
    "tensor_parallel": 1,
    "overrides": [
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8",
    ],
}


def _read_data_files() -> dict[str, Any]:
    """Read the small task's data, as the commands' files."""
    with tempfile.TemporaryDirectory() as name:
        files = {file: Path(name) / file for file in (TRAIN_DATA, HELDOUT_DATA)}
        for path in files.values():
            write_data(path, 8)
        return {file: path.read_bytes() for file, path in files.items()}


def _list_overrides(settings: dict[str, Any], prefix: str = "") -> list[str]:
    """Write settings as overrides of Hydra."""
    overrides = []
    for name, value in settings.items():
        if isinstance(value, dict):
            overrides += _list_overrides(value, f"{prefix}{name}.")
        else:
            shown = f"[{','.join(value)}]" if isinstance(value, list) else value
            overrides.append(f"{prefix}{name}={shown}")
    return overrides


# The same for all commands, or they would not share a process.
MODULES = (
    "verl_pipeline.main",
    "verl_pipeline.verl_adapter.checks.check_list",
    "verl_pipeline.verl_adapter.entry.run_plan",
    "verl.trainer.ppo.v1.trainer_base",
    "transformers.models.qwen2.configuration_qwen2",
    "verl_pipeline.recipes.deepcoder.train",
    "verl_pipeline.recipes.deepcoder.stages.stage_checks",
    "verl_pipeline.quickstart",
    "verl_pipeline.quickstart.__main__",
)
# What a module of the user's raises is shown with its type.
OF_THE_USERS_CODE = r"cannot be (?:imported|loaded) \(.*"
ENVIRONMENT = (
    ("VERL_PLATFORM", "cpu"),
    ("HF_HUB_OFFLINE", "1"),
    ("VLLM_LOGGING_LEVEL", "WARN"),
    # A process that warms up others would outlive a command that is refused.
    ("VERL_PIPELINE_FORK_SERVER", "0"),
)
_FILES = {**_read_data_files(), MODEL: MODEL_CONFIG}
_CHECKED_FILES = {
    **_FILES,
    REWARD: REWARD_SOURCE,
    LOOPS: [{"name": "mine", "_target_": "verl.experimental.agent_loop.SingleTurnAgentLoop"}],
}
CHECK = FuzzedCommand(
    name="check",
    module="verl_pipeline.main",
    arguments=("+verl_pipeline=cpu", *_list_overrides(SETTINGS), "--check"),
    files=_CHECKED_FILES,
    exit_codes=frozenset({0, 2}),
    preload=MODULES,
    environment=ENVIRONMENT,
    allowed=OF_THE_USERS_CODE,
)
CHECK_FILE = FuzzedCommand(
    name="check of a file",
    module="verl_pipeline.main",
    arguments=(
        *("--config-dir", "conf", "--config-name", "mine", "--check"),
        # In a file it could be broken, and Hydra would name none of what it cannot find.
        "hydra.searchpath=[pkg://verl.trainer.config]",
    ),
    files={
        **_CHECKED_FILES,
        CONFIGURATION: {
            "defaults": ["ppo_trainer", {"verl_pipeline": "cpu"}, "_self_"],
            **SETTINGS,
            "trainer": {
                **SETTINGS["trainer"],
                "v1": {"trainer_mode": "one_off_pipeline", **SETTINGS["trainer"]["v1"]},
            },
        },
    },
    exit_codes=frozenset({0, 2}),
    preload=MODULES,
    environment=ENVIRONMENT,
    settings_file=CONFIGURATION,
    allowed=OF_THE_USERS_CODE,
)
TRAIN = FuzzedCommand(
    name="train --dry-run",
    module="verl_pipeline.recipes.deepcoder.train",
    arguments=(
        *("--stages", STAGES, "--hardware", HARDWARE, "--data", "data", "--output", "out"),
        "--dry-run",
    ),
    files={
        **_FILES,
        STAGES: {"tiny": _RUN},
        HARDWARE: _MACHINE,
        OWNER: {"command": "verl_pipeline.recipes.deepcoder.train"},
        STATE: {"version": 1, "identity": {}, "stages": {}},
    },
    exit_codes=frozenset({0, 2}),
    preload=MODULES,
    environment=ENVIRONMENT,
    # What the settings become is checked as verl's settings, which have names of their own.
    settings_file=STAGES,
)
TRAIN_HARDWARE = replace(TRAIN, settings_file=HARDWARE)
QUICKSTART = FuzzedCommand(
    name="quickstart",
    module="verl_pipeline.quickstart",
    arguments=(),
    files={"taken": "a file", "taken-folder/notes": "of somebody"},
    exit_codes=frozenset({2}),
    preload=MODULES,
    environment=ENVIRONMENT,
)
