"""An engine that nobody registered, or that cannot do what the run asks, is refused before a model
loads.
"""

import pytest

from verl_pipeline.trainer.pipeline_config import PIPELINE_KEY, ROLLOUT
from verl_pipeline.verl_adapter.checks.check_list import CODE
from verl_pipeline.verl_adapter.checks.check_report import run_checks
from verl_pipeline.verl_adapter.checks.engine_names import check_seeds

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


@pytest.mark.parametrize("name", ["vllm", "sglang"])
def test_seeds_are_refused_of_an_engine_that_takes_none(composed, name):
    overrides = [f"{PIPELINE_KEY}.seeded_sampling=true", f"{ROLLOUT}.name={name}"]
    found = [*check_seeds(composed(*overrides))]
    assert [str(fault) for fault in found] == (
        []
        if name == "vllm"
        else [
            f"{PIPELINE_KEY}.seeded_sampling=true: {ROLLOUT}.name=sglang takes no seed with a "
            f"request; set seeded_sampling=false, or {ROLLOUT}.name=vllm"
        ]
    )
    assert [*check_seeds(composed(f"{ROLLOUT}.name={name}"))] == []
