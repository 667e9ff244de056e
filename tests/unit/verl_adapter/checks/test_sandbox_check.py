"""Before a run, the sandbox of its reward is tried; another reward needs none."""

import pytest
from hydra import compose, initialize_config_module

from tests.helpers.run_code_server import serve_run_code
from verl_pipeline.findings import Finding, State
from verl_pipeline.trainer.pipeline_config import ConfigError
from verl_pipeline.verl_adapter.checks import sandbox_check
from verl_pipeline.verl_adapter.checks.check_list import check_run
from verl_pipeline.verl_adapter.checks.sandbox_check import check_sandbox, find_sandbox

CODE_REWARD = "reward.custom_reward_function.path=pkg://verl_pipeline.rewards.code"
KWARGS = "reward.custom_reward_function.reward_kwargs"


def make_config(*overrides):
    with initialize_config_module("verl_pipeline.config", version_base=None):
        return compose("one_off_pipeline", overrides=list(overrides))


@pytest.mark.parametrize(
    "overrides, arguments",
    [
        ([], None),
        (["reward.custom_reward_function.path=pkg://verl_pipeline.rewards.math"], None),
        (["reward.sandbox_fusion.url=http://host/run_code"], None),
        ([CODE_REWARD], {"tier": "namespaces"}),
        ([CODE_REWARD, f"+{KWARGS}.tier=rlimits"], {"tier": "rlimits"}),
        (
            [CODE_REWARD, f"+{KWARGS}.tier=remote", f"+{KWARGS}.url=http://host"],
            {"tier": "remote", "url": "http://host"},
        ),
        ([CODE_REWARD, "reward.sandbox_fusion.url=verl-pipeline://rlimits"], {"tier": "rlimits"}),
        (["reward.sandbox_fusion.url=verl-pipeline://"], {"tier": "namespaces"}),
        (["reward.sandbox_fusion.url=verl-pipeline://rlimits"], {"tier": "rlimits"}),
        (
            [
                CODE_REWARD,
                "reward.sandbox_fusion.url=http://host/run_code",
                "reward.sandbox_fusion.memory_limit_mb=700",
            ],
            {"tier": "remote", "url": "http://host/run_code", "memory_limit_mb": 700},
        ),
    ],
)
def test_the_sandbox_is_the_one_that_the_reward_will_use(overrides, arguments):
    assert find_sandbox(make_config(*overrides)) == arguments


def test_a_server_that_grades_passes():
    with serve_run_code() as server:
        url = f"http://127.0.0.1:{server.server_port}/run_code"
        check_sandbox(make_config(CODE_REWARD, f"reward.sandbox_fusion.url={url}"))
        assert len(server.requests) == 3  # the start, a right and a wrong program


def test_a_server_that_fails_is_not_the_kernels_fault():
    with serve_run_code() as server:
        server.failures = [500] * 20
        url = f"http://127.0.0.1:{server.server_port}/run_code"
        config = make_config(CODE_REWARD, f"reward.sandbox_fusion.url={url}")
        with pytest.raises(ConfigError, match="500") as caught:
            check_sandbox(config)
    assert "seccomp" not in str(caught.value) and "namespaces" not in str(caught.value)


@pytest.mark.parametrize(
    "overrides, words",
    [
        ([f"+{KWARGS}.tier=docker"], r"tier=docker.*Use one of namespaces, rlimits"),
        ([f"+{KWARGS}.tier=remote"], r"tier=remote.*needs the url"),
        (
            [f"+{KWARGS}.tier=remote", f"+{KWARGS}.url=http://127.0.0.1:9/"],
            r"code reward \(tier=remote, url=http://127.0.0.1:9/\): .*refused",
        ),
    ],
)
def test_a_sandbox_that_does_not_work_is_refused_in_one_line(overrides, words):
    config = make_config(CODE_REWARD, *overrides)
    with pytest.raises(ConfigError, match=words) as caught:
        check_sandbox(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["sync", "sync_filtered", "one_off_pipeline"])
def test_it_is_tried_in_every_mode_unless_it_is_elsewhere(monkeypatch, composed, mode):
    broken = Finding("sandbox", State.MISSING, "it is broken", "mend it")
    monkeypatch.setattr(sandbox_check, "try_sandbox", lambda **_arguments: broken)
    config = composed(CODE_REWARD, f"trainer.v1.trainer_mode={mode}")
    elsewhere = ("files", "lengths", "device")
    check_run(config, skip=(*elsewhere, "sandbox"))
    with pytest.raises(ConfigError, match=r"^code reward \(tier=namespaces\): it is broken; mend"):
        check_run(config, skip=elsewhere)
