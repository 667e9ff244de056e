"""Our code reward: ``reward.sandbox_fusion``, its deadlines, the check in ``sync_filtered``."""

import asyncio
import time

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from verl.trainer.ppo.reward import get_custom_reward_fn

from tests.helpers.patience import scale_deadline
from tests.helpers.run_code_server import serve_run_code
from tests.helpers.thinned import thin_out_rows
from verl_pipeline.rewards import code
from verl_pipeline.trainer.pipeline_config import ConfigError, load_pipeline_config
from verl_pipeline.verl_adapter.checks.check_list import check_run
from verl_pipeline.verl_adapter.settings.derived_settings import (
    derive_settings,
    derive_sync_settings,
)

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
    thin_out_rows(
        [
            ([f"+{KWARGS}.tier=namespaces"], r"reward_kwargs.tier=namespaces: contradicts"),
            ([f"+{KWARGS}.url=http://127.0.0.1:8"], r"reward_kwargs.url=http.*: contradicts"),
            (
                ["reward.sandbox_fusion.url=hyperlight://"],
                r"hyperlight://: the code reward knows http",
            ),
            (
                ["reward.sandbox_fusion.url=127.0.0.1:9/run_code"],
                r"the code reward knows http, https",
            ),
        ],
        keep=4,
    ),
)
@pytest.mark.parametrize("mode", ["one_off_pipeline", "sync_filtered", "sync"])
def test_a_contradiction_is_refused_before_anything_starts(overrides, problem, mode):
    config = make_config(
        CODE_REWARD,
        "reward.sandbox_fusion.url=http://127.0.0.1:9/run_code",
        f"trainer.v1.trainer_mode={mode}",
        "actor_rollout_ref.rollout.name=vllm",
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
        "actor_rollout_ref.rollout.name=vllm",
    )
    with pytest.raises(ConfigError) as error:
        check_run(config)
    assert f"+{KWARGS}.url=http://127.0.0.1:9/run_code" in str(error.value)
    assert f"+{KWARGS}.tier=remote" in str(error.value)


DEADLINES = "trainer.v1.one_off_pipeline.deadlines"


def derive_pipelined(config):
    settings = load_pipeline_config(config)
    return {entry.field: entry.value for entry in derive_settings(config, settings)}


def test_the_verdict_of_the_code_reward_comes_before_the_trainer_gives_up():
    """verl's own loader calls it with what was derived; the node's only slot is held here."""
    config = make_config(CODE_REWARD, f"++{DEADLINES}.reward_s=2.0", f"+{KWARGS}.workers=1")
    derived = derive_pipelined(config)
    assert derived[f"{KWARGS}.queue_s"] < derived[f"{KWARGS}.deadline_s"] < 2.0
    reward = get_custom_reward_fn(config)
    tests = '{"inputs": ["1\\n"], "outputs": ["1\\n"]}'
    with code._hold_node_slot(1, scale_deadline(60.0), time.monotonic()):
        answer = asyncio.run(reward("taco", "```python\nprint(input())\n```", tests))
    assert answer["verdict"] == "infrastructure" and "free for 1.8 s" in answer["reason"]


@pytest.mark.parametrize(
    ("given", "derived"),
    [
        ([], {"deadline_s": 285.0, "queue_s": 270.0}),
        ([f"++{DEADLINES}.reward_s=20"], {"deadline_s": 19.0, "queue_s": 18.0}),
        ([f"+{KWARGS}.deadline_s=100"], {"queue_s": 100}),
        ([f"+{KWARGS}.queue_s=280"], {"deadline_s": 285.0}),
        ([f"+{KWARGS}.queue_s=5", f"+{KWARGS}.deadline_s=299"], {}),
    ],
)
def test_deadlines_of_the_code_reward_lie_within_the_trainers(given, derived):
    found = derive_pipelined(make_config(CODE_REWARD, *given))
    names = ("deadline_s", "queue_s")
    assert {name: found[f"{KWARGS}.{name}"] for name in names if f"{KWARGS}.{name}" in found} == (
        derived
    )


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["deadline_s=300"], r"deadline_s=300: must be below .*reward_s=300, .*lower it or raise"),
        (["deadline_s=1800", "queue_s=10"], r"deadline_s=1800: must be below .*reward_s=300"),
        (["queue_s=290"], r"queue_s=290: must be at most .*deadline_s=285, .*reward_s=300; lower"),
        (["queue_s=20", "deadline_s=10"], r"queue_s=20: must be at most .*deadline_s=10"),
        (["deadline_s=null"], r"deadline_s=None: must be positive seconds"),
        (["queue_s=0"], r"queue_s=0: must be positive seconds"),
        (["queue_s=soon"], r"queue_s=soon: must be positive seconds"),
    ],
)
def test_deadlines_that_contradict_each_other_are_refused(given, problem):
    config = make_config(CODE_REWARD, *(f"+{KWARGS}.{entry}" for entry in given))
    with pytest.raises(ConfigError, match=problem):
        derive_pipelined(config)


def test_another_reward_and_another_trainer_keep_their_deadlines():
    other = "reward.custom_reward_function.path=pkg://verl_pipeline.testing.tiny_run"
    found = derive_pipelined(make_config(other, f"+{KWARGS}.deadline_s=1800"))
    found |= derive(make_config(CODE_REWARD, f"+{KWARGS}.deadline_s=1800"))
    assert not any(name.startswith(KWARGS) for name in found)


def test_without_the_field_or_with_another_reward_nothing_is_derived():
    assert set(derive(make_config(CODE_REWARD))) == {MANAGER}
    other = ["reward.custom_reward_function.path=pkg://verl_pipeline.testing.tiny_run"]
    other.append("reward.sandbox_fusion.url=http://127.0.0.1:9/run_code")
    assert set(derive(make_config(*other))) == {MANAGER}
