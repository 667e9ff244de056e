"""``reward.sandbox_fusion`` for our code reward, and the check of rewards in ``sync_filtered``."""

import asyncio

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from verl.trainer.ppo.reward import get_custom_reward_fn

from tests.helpers.run_code_server import serve_run_code
from verl_pipeline.trainer.pipeline_config import ConfigError, load_pipeline_config
from verl_pipeline.verl_adapter.config_checks import check_run
from verl_pipeline.verl_adapter.derived_settings import derive_settings, derive_sync_settings

CODE_REWARD = "reward.custom_reward_function.path=pkg://verl_pipeline.rewards.code"
KWARGS = "reward.custom_reward_function.reward_kwargs"
MANAGER = "actor_rollout_ref.rollout.agent.agent_loop_manager_class"


def make_config(*overrides):
    with initialize_config_module("verl_pipeline.config", version_base=None):
        return compose("one_off_pipeline", overrides=list(overrides))


def derive(config):
    return {entry.field: entry.value for entry in derive_sync_settings(config)}


def test_the_code_reward_grades_on_the_server_that_verls_field_names():
    """verl's own loader then calls it with what was derived."""
    with serve_run_code() as server:
        url = f"http://127.0.0.1:{server.server_port}/run_code"
        config = make_config(
            CODE_REWARD,
            f"reward.sandbox_fusion.url={url}",
            "reward.sandbox_fusion.max_concurrent=3",
            "reward.sandbox_fusion.memory_limit_mb=700",
            f"+{KWARGS}.source=taco",
        )
        derived = derive_settings(config, load_pipeline_config(config))
        assert {f"{KWARGS}.tier=remote", f"{KWARGS}.workers=3"} <= {
            str(entry).split()[0] for entry in derived
        }
        reward = get_custom_reward_fn(config)
        answers = [
            asyncio.run(
                reward(
                    data_source="any",
                    solution_str=f"```python\n{program}\n```",
                    ground_truth='{"inputs": ["1 2\\n"], "outputs": ["3\\n"]}',
                )
            )
            for program in ("print(sum(map(int, input().split())))", "print(4)")
        ]
        assert [answer["verdict"] for answer in answers] == ["accepted", "wrong_answer"]
        assert {answer["tier"] for answer in answers} == {"remote"}
        assert {request["memory_limit_MB"] for request in server.requests} == {700}


@pytest.mark.parametrize(
    ("url", "tier"),
    [("verl-pipeline://", "namespaces"), ("verl-pipeline://rlimits", "rlimits")],
)
def test_our_own_scheme_is_a_local_tier(url, tier):
    config = make_config(CODE_REWARD, f"reward.sandbox_fusion.url='{url}'")
    derive(config)
    assert OmegaConf.select(config, KWARGS) == {"tier": tier}


def test_what_the_user_gave_stays():
    url = "http://127.0.0.1:9/run_code"
    config = make_config(
        CODE_REWARD,
        f"reward.sandbox_fusion.url={url}",
        f"+{KWARGS}.workers=2",
        f"+{KWARGS}.tier=remote",
        f"+{MANAGER}=mine.Manager",
    )
    assert set(derive(config)) == {f"{KWARGS}.url", f"{KWARGS}.memory_limit_mb"}
    assert config.reward.custom_reward_function.reward_kwargs.workers == 2


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        ([f"+{KWARGS}.tier=namespaces"], r"reward_kwargs.tier=namespaces: contradicts"),
        ([f"+{KWARGS}.url=http://127.0.0.1:8"], r"reward_kwargs.url=http.*: contradicts"),
        (["reward.sandbox_fusion.url=hyperlight://"], r"hyperlight://: the code reward knows http"),
        (["reward.sandbox_fusion.url=127.0.0.1:9/run_code"], r"the code reward knows http, https"),
    ],
)
@pytest.mark.parametrize("mode", ["one_off_pipeline", "sync_filtered", "sync"])
def test_a_contradiction_is_refused_before_anything_starts(overrides, problem, mode):
    config = make_config(
        CODE_REWARD,
        "reward.sandbox_fusion.url=http://127.0.0.1:9/run_code",
        f"trainer.v1.trainer_mode={mode}",
        *overrides,
    )
    with pytest.raises(ConfigError, match=problem):
        if mode == "one_off_pipeline":
            derive_settings(config, load_pipeline_config(config))
        else:
            check_run(config)


def test_verls_own_trainer_is_told_how_to_reach_the_server():
    config = make_config(
        CODE_REWARD,
        "reward.sandbox_fusion.url=http://127.0.0.1:9/run_code",
        "trainer.v1.trainer_mode=sync",
    )
    with pytest.raises(ConfigError) as error:
        check_run(config)
    assert f"+{KWARGS}.url=http://127.0.0.1:9/run_code" in str(error.value)
    assert f"+{KWARGS}.tier=remote" in str(error.value)


def test_without_the_field_or_with_another_reward_nothing_is_derived():
    assert set(derive(make_config(CODE_REWARD))) == {MANAGER}
    other = ["reward.custom_reward_function.path=pkg://verl_pipeline.testing.tiny_run"]
    other.append("reward.sandbox_fusion.url=http://127.0.0.1:9/run_code")
    assert set(derive(make_config(*other))) == {MANAGER}
