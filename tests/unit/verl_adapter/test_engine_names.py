"""A package that an engine needs is named before a model loads, if the engine would run here."""

import pytest

from verl_pipeline.trainer.pipeline_config import ROLLOUT
from verl_pipeline.verl_adapter import backend_checks
from verl_pipeline.verl_adapter.check_list import CODE
from verl_pipeline.verl_adapter.check_report import run_checks

BACKEND = f"{ROLLOUT}.checkpoint_engine.backend"
CASES = [
    ([f"{ROLLOUT}.name=sglang"], f"{ROLLOUT}.name=sglang: the package sglang is not installed"),
    ([f"{ROLLOUT}.name=trtllm"], "the package tensorrt_llm is not installed"),
    (["actor_rollout_ref.actor.strategy=megatron"], "the package megatron is not installed"),
    ([f"{BACKEND}=nixl"], f"{BACKEND}=nixl: cannot be imported here (No module named 'cupy')"),
    ([f"{BACKEND}=nccl"], f"{BACKEND}=nccl: cannot be imported here (No module named 'cupy')"),
]


@pytest.mark.parametrize(("overrides", "message"), CASES)
def test_what_is_missing_is_named(composed, overrides, message):
    (line,) = run_checks(composed(*overrides), CODE).errors
    assert message in line and "install" in line


@pytest.mark.parametrize(("overrides", "message"), CASES)
def test_a_machine_without_a_device_may_lack_it(composed, overrides, message):
    report = run_checks(composed("trainer.device=cuda", *overrides), CODE)
    assert report.errors == [] and any(message in line for line in report.not_checked)


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


def test_the_backend_that_a_gpu_run_gets_is_the_one_that_is_looked_at(composed, monkeypatch):
    monkeypatch.setattr(backend_checks, "has_device", lambda: True)
    (line,) = run_checks(composed("trainer.device=cuda"), CODE).errors
    assert f"{BACKEND}=nccl: cannot be imported here" in line
    # verl's own modes send no weights between pools.
    assert (
        run_checks(composed("trainer.device=cuda", "trainer.v1.trainer_mode=sync"), CODE).errors
        == []
    )
