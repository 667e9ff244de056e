"""An engine that nobody registered is refused before a model loads."""

import pytest

from verl_pipeline.trainer.pipeline_config import ROLLOUT
from verl_pipeline.verl_adapter.checks.check_list import CODE
from verl_pipeline.verl_adapter.checks.check_report import run_checks

BACKEND = f"{ROLLOUT}.checkpoint_engine.backend"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (f"{ROLLOUT}.name=vlm", f"{ROLLOUT}.name=vlm: unknown; did you mean vllm?"),
        (f"{BACKEND}=glo", f"{BACKEND}=glo: unknown; did you mean gloo?"),
    ],
)
def test_an_unknown_name_is_refused_anywhere(composed, override, message):
    for device in ("cpu", "cuda"):
        assert message in run_checks(composed(f"trainer.device={device}", override), CODE).errors


def test_a_backend_of_the_users_own_module_is_known(composed):
    override = f"{BACKEND}=planted_by_a_test"
    assert run_checks(composed(override), CODE).errors
    module = f"{ROLLOUT}.checkpoint_engine.custom_backend_module=tests.helpers.own_backend"
    assert run_checks(composed(override, module), CODE).errors == []
