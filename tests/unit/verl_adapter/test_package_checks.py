"""What a run needs beside verl is looked for, as far as it can be seen from here."""

import importlib.util

import pytest

from verl_pipeline.trainer.pipeline_config import ROLLOUT, ConfigError
from verl_pipeline.verl_adapter.check_report import NotChecked
from verl_pipeline.verl_adapter.package_checks import (
    PACKAGES,
    check_agent_loop_names,
    check_engines,
)


@pytest.mark.parametrize(
    ("overrides", "start"),
    [
        ([f"{ROLLOUT}.name=sglang"], f"{ROLLOUT}.name=sglang: sglang is not installed here"),
        (
            [
                "reward.reward_model.enable=True",
                "reward.reward_model.rollout.name=trtllm",
            ],
            "reward.reward_model.rollout.name=trtllm: tensorrt_llm is not installed here",
        ),
    ],
)
def test_an_engine_that_is_not_here_is_named_as_not_checked(composed, overrides, start):
    assert list(check_engines(composed())) == []
    (finding,) = check_engines(composed(*overrides))
    assert isinstance(finding, NotChecked) and str(finding).startswith(start)


def test_only_what_is_not_here_is_named():
    here = {name for names in PACKAGES.values() for name in names if importlib.util.find_spec(name)}
    assert here == {"vllm"}


def test_agent_loops_are_verls_and_those_of_the_users_file(composed, tmp_path):
    default = f"{ROLLOUT}.agent.default_agent_loop"
    for name in ("single_turn_agent", "tool_agent"):
        assert list(check_agent_loop_names(composed(f"{default}={name}"))) == []
    (finding,) = check_agent_loop_names(composed(f"{default}=mine"))
    assert isinstance(finding, ConfigError) and f"{default}=mine: unknown" in str(finding)
    loops = tmp_path / "loops.yaml"
    loops.write_text("- {name: mine, _target_: a.B}\n")
    own = (f"{default}=mine", f"{ROLLOUT}.agent.agent_loop_config_path={loops}")
    assert list(check_agent_loop_names(composed(*own))) == []
    library = (f"{default}=mine", "actor_rollout_ref.model.external_lib=some.library")
    assert list(check_agent_loop_names(composed(*library))) == []
