"""An agent loop that nobody registered is refused before anything starts."""

from verl_pipeline.trainer.pipeline_config import ROLLOUT, ConfigError
from verl_pipeline.verl_adapter.checks.agent_loop_checks import check_agent_loop_names


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
