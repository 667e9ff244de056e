"""A configuration that names one of our modules by its old name is refused with the new one."""

import importlib

import pytest

from verl_pipeline.trainer.pipeline_config import ConfigError
from verl_pipeline.verl_adapter.checks.check_list import check_run
from verl_pipeline.verl_adapter.checks.moved_paths import MOVED

# What users wrote into their configurations: settings by the old path.
_AGENT_LOOP = (
    "+actor_rollout_ref.rollout.agent.agent_loop_manager_class={}.PipelineAgentLoopManager",
    "PipelineAgentLoopManager",
)
_FILTERING_BUFFER = (
    "+trainer.v1.sampler.custom_sampler.path=pkg://{}",
    "FilteringReplayBuffer",
)
_PROMPT_STREAM = ("data.custom_cls.path=pkg://{}", "PromptStream")
_CHECKPOINT_ENGINE = (
    "actor_rollout_ref.rollout.checkpoint_engine.custom_backend_module={}",
    "GlooCheckpointEngine",
)
SETTINGS = {
    "verl_pipeline.trainer.agent_loop": _AGENT_LOOP,
    "verl_pipeline.trainer.filtering_buffer": _FILTERING_BUFFER,
    "verl_pipeline.trainer.stream": _PROMPT_STREAM,
    "verl_pipeline.weight_sync.gloo": _CHECKPOINT_ENGINE,
    "verl_pipeline.verl_adapter.agent_loop": _AGENT_LOOP,
    "verl_pipeline.verl_adapter.checkpoint_engine": _CHECKPOINT_ENGINE,
    "verl_pipeline.verl_adapter.filtering_replay_buffer": _FILTERING_BUFFER,
    "verl_pipeline.verl_adapter.prompt_stream": _PROMPT_STREAM,
    "verl_pipeline.verl_adapter.reward_check": (
        "+actor_rollout_ref.rollout.agent.agent_loop_manager_class={}.RewardCheckingManager",
        "RewardCheckingManager",
    ),
}


@pytest.mark.parametrize("old", SETTINGS)
def test_an_old_path_is_refused_with_the_new_one(composed, old):
    setting, name = SETTINGS[old]
    config = composed(setting.format(old))
    with pytest.raises(ConfigError) as refusal:
        check_run(config)
    field = setting.split("=")[0].removeprefix("+")
    value = setting.split("=")[1].format(MOVED[old])
    assert str(refusal.value).startswith(f"{field}=") and f"use {value}" in str(refusal.value)
    assert hasattr(importlib.import_module(MOVED[old]), name)


def test_every_old_path_has_a_setting_that_names_it():
    assert SETTINGS.keys() == MOVED.keys()


def test_a_module_of_the_users_with_a_similar_name_is_let_through(composed):
    check_run(composed("+trainer.note=verl_pipeline.trainer.streams"), skip=("device",))
