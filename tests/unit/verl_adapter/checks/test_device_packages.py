"""What a run's engines need is looked for before a model loads."""

import ast
import importlib
import sys
from pathlib import Path

import pytest
from verl import checkpoint_engine
from verl.workers.rollout.replica import RolloutReplicaRegistry

from verl_pipeline.findings import State
from verl_pipeline.trainer.pipeline_config import ROLLOUT
from verl_pipeline.verl_adapter.checks import check_list, device_packages
from verl_pipeline.verl_adapter.checks.check_report import NotChecked
from verl_pipeline.verl_adapter.checks.device_packages import (
    BACKEND,
    BACKEND_MODULES,
    FIXES,
    ROLLOUT_MODULES,
    STRATEGY_MODULES,
    check_packages,
    examine_cpu_library,
    examine_device_packages,
    find_fault,
    list_needs,
)

FLASH = "actor_rollout_ref.model.override_config.attn_implementation=flash_attention_2"
CUDA = "trainer.device=cuda"


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Makes packages: text of a module by name; there is a device."""
    monkeypatch.setattr(device_packages, "has_device", lambda: True)
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(**modules):
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(text)
        importlib.invalidate_caches()

    before = set(sys.modules)
    yield make
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) == str(tmp_path / f"{name}.py"):
            del sys.modules[name]


def list_lines(config):
    return [str(finding) for finding in check_packages(config)]


def test_each_missing_package_is_named_with_the_setting_and_the_fix(composed, packages):
    lines = list_lines(composed(CUDA, FLASH))
    assert lines == [
        f"{BACKEND}=nccl: needs cupy, which is not installed; {FIXES['cupy']}",
        f"{FLASH}: needs flash_attn, which is not installed; {FIXES['flash_attn']}",
    ]
    packages(cupy="", flash_attn="")
    assert list_lines(composed(CUDA, FLASH)) == []


@pytest.mark.parametrize("backend", BACKEND_MODULES)
@pytest.mark.parametrize("engine", ROLLOUT_MODULES)
def test_each_engine_needs_its_own(composed, packages, backend, engine):
    needed = {*BACKEND_MODULES[backend], ROLLOUT_MODULES[engine]}
    config = composed(CUDA, f"{BACKEND}={backend}", f"{ROLLOUT}.name={engine}")
    assert {need.module for need in list_needs(config)} == needed
    assert {line.split(" needs ")[1].split(",")[0] for line in list_lines(config)} == (
        needed - {"vllm"}
    )


def test_a_build_for_another_torch_is_seen(composed, packages):
    packages(cupy="", flash_attn="raise ImportError('undefined symbol: _ZN3c10')")
    (line,) = list_lines(composed(CUDA, FLASH))
    assert "cannot be imported (ImportError: undefined symbol: _ZN3c10)" in line


def test_a_package_that_lacks_another_is_not_called_missing(packages):
    packages(cupy="import fastrlock_of_cupy")
    assert find_fault("cupy") == (
        "cannot be imported (ModuleNotFoundError: No module named 'fastrlock_of_cupy')"
    )
    assert find_fault("megatron.core") == "is not installed"


def test_a_critic_needs_flash_attention_whatever_is_chosen(composed, packages):
    packages(cupy="")
    (line,) = list_lines(composed(CUDA, "algorithm.adv_estimator=gae"))
    assert line.startswith("the critic's model: needs flash_attn")


@pytest.mark.parametrize("strategy", STRATEGY_MODULES)
def test_other_trainers_need_their_own(composed, packages, strategy):
    config = composed(CUDA, FLASH)
    config.actor_rollout_ref.actor.strategy = strategy
    modules = [need.module for need in list_needs(config)]
    assert STRATEGY_MODULES[strategy] in modules and "flash_attn" not in modules


def test_a_machine_without_a_device_is_not_judged(composed, monkeypatch):
    monkeypatch.setattr(device_packages, "has_device", lambda: False)
    findings = list(check_packages(composed(CUDA, FLASH)))
    assert all(isinstance(finding, NotChecked) for finding in findings)
    note = "which is not installed here; this machine has no device, so the nodes may have it"
    assert list(map(str, findings)) == [
        f"{BACKEND}=nccl: needs cupy, {note}",
        f"{FLASH}: needs flash_attn, {note}",
    ]


def test_a_colocated_run_sends_no_weights_between_pools(composed, packages):
    (line,) = list_lines(composed(CUDA, FLASH, "trainer.v1.trainer_mode=sync"))
    assert "flash_attn" in line


@pytest.mark.parametrize(
    ("overrides", "start"),
    [
        (
            [f"{ROLLOUT}.name=sglang"],
            f"{ROLLOUT}.name=sglang: needs sglang, which is not installed",
        ),
        (
            ["actor_rollout_ref.actor.strategy=megatron"],
            "actor_rollout_ref.actor.strategy=megatron",
        ),
        ([f"{BACKEND}=nixl"], f"{BACKEND}=nixl: needs cupy, which is not installed"),
        (
            ["reward.reward_model.enable=True", "reward.reward_model.rollout.name=trtllm"],
            "reward.reward_model.rollout.name=trtllm: needs tensorrt_llm, which is not installed",
        ),
    ],
)
def test_cpus_need_the_engines_that_are_asked_for(composed, overrides, start):
    assert list_lines(composed()) == []
    assert list_lines(composed(*overrides))[0].startswith(start)


def test_the_check_is_on_the_list_of_every_mode(composed):
    for mode in ("one_off_pipeline", "sync"):
        names = [
            check.name
            for check in check_list.list_checks(composed(f"trainer.v1.trainer_mode={mode}"))
        ]
        assert "packages" in names


def test_doctor_names_what_the_default_needs(packages):
    packages(cupy="")
    cupy, flash_attn, others = examine_device_packages()
    assert cupy.ok and others.ok and "vllm" in others.detail
    assert flash_attn.state is State.MISSING and flash_attn.fix and flash_attn.consequence


def test_every_module_has_a_fix_and_every_rollout_of_verl_is_known():
    modules = {module for names in BACKEND_MODULES.values() for module in names}
    modules |= {*ROLLOUT_MODULES.values(), *STRATEGY_MODULES.values(), "flash_attn"}
    assert modules == set(FIXES)
    assert set(RolloutReplicaRegistry._registry) == set(ROLLOUT_MODULES)


def test_what_verls_engines_import_is_what_we_look_for():
    """By their source: none of them can be imported here."""
    always = {*sys.stdlib_module_names, "ray", "torch", "verl", "zmq", "numpy"}
    # Either of the two engines will do.
    always |= {"vllm", "sglang"}
    found = {}
    for file in Path(checkpoint_engine.__file__).parent.glob("*_checkpoint_engine.py"):
        tree = ast.parse(file.read_text())
        backend, imported = None, set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.split(".")[0])
            elif isinstance(node, ast.ClassDef):
                for call in node.decorator_list:
                    if "Registry" in ast.unparse(call):
                        backend = call.args[0].value
        if not file.name.startswith("hccl"):  # for Ascend
            found[backend] = imported - always
    assert found == {name: set(modules) for name, modules in BACKEND_MODULES.items()}


def test_vllms_kernels_for_cpus_need_a_library_of_the_system(composed, monkeypatch):
    settings = ("trainer.device=cpu", f"{ROLLOUT}.name=vllm")
    assert list_lines(composed(*settings)) == []
    (finding,) = examine_cpu_library()
    assert finding.ok
    monkeypatch.setattr(device_packages, "CPU_LIBRARY", "libnone.so.9")
    (line,) = list_lines(composed(*settings))
    assert line.startswith(f"{ROLLOUT}.name=vllm: vLLM's kernels for CPUs need libnone.so.9, which")
    assert "No such file" in line and line.endswith(device_packages.CPU_LIBRARY_FIX)
    (finding,) = examine_cpu_library()
    assert not finding.ok and "libnone.so.9 cannot be loaded" in finding.detail
