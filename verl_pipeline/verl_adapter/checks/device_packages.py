"""Packages that a run's engines need beside those that every run imports.

verl imports them where they are used: in the trainer's and the rollout's processes, after models
have loaded.

Invariants:
* A missing package is one line that names the setting that needs it, the package and what to do.
* A machine without a device is not the one that the engines run on: what it lacks is no error.
"""

import ctypes
import importlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from omegaconf import DictConfig, OmegaConf
from verl.trainer.ppo.utils import need_critic

from verl_pipeline.findings import Finding, State
from verl_pipeline.trainer.pipeline_config import ROLLOUT, TRAINER_MODE, ConfigError
from verl_pipeline.verl_adapter.checks.check_report import Findings, NotChecked, describe_exception
from verl_pipeline.verl_adapter.checks.data_parallel import list_sections
from verl_pipeline.verl_adapter.checks.machine_checks import has_device

BACKEND = f"{ROLLOUT}.checkpoint_engine.backend"
ATTENTION = "actor_rollout_ref.model.override_config.attn_implementation"
# What transformers takes if no other attention is chosen for verl.
FLASH_ATTENTION = "flash_attention_2"
# By checkpoint engine, what its module in verl/checkpoint_engine imports.
BACKEND_MODULES = {
    "nccl": ("cupy",),
    "delta_sharded": ("cupy",),
    "nixl": ("cupy", "nixl"),
    "mooncake": ("mooncake",),
    "kimi_ckpt_engine": ("checkpoint_engine",),
}
ROLLOUT_MODULES = {"vllm": "vllm", "sglang": "sglang", "trtllm": "tensorrt_llm"}
STRATEGY_MODULES = {
    "megatron": "megatron.core",
    "veomni": "veomni",
    "torchtitan": "torchtitan",
    "automodel": "nemo_automodel",
}
_CUDA = (torch.version.cuda or "13").split(".")[0]
FIXES = {
    "cupy": f"pip install cupy-cuda{_CUDA}x (verl tests 14.0.1)",
    "nixl": "pip install nixl",
    "mooncake": "pip install mooncake-transfer-engine",
    "checkpoint_engine": "pip install checkpoint-engine",
    "flash_attn": (
        "pip install flash-attn==2.8.3 --no-build-isolation, built for this torch, or choose "
        f"+{ATTENTION}=sdpa"
    ),
    "vllm": "pip install 'verl[vllm]'",
    "sglang": "pip install 'verl[sglang]'",
    "tensorrt_llm": "use NVIDIA's TensorRT-LLM container, or pip install tensorrt-llm",
    "megatron.core": "pip install 'verl[megatron]'",
    "veomni": "pip install veomni",
    "torchtitan": "pip install torchtitan",
    "nemo_automodel": "pip install nemo-automodel",
}
# vLLM's build for CPUs links it, and without it goes on without its kernels: the engine then fails
# at its start, for another reason.
CPU_LIBRARY = "libnuma.so.1"
CPU_LIBRARY_FIX = "install it from the distribution (Debian, Ubuntu: apt install libnuma1)"
# To import an engine takes long and changes the process: these are only looked for.
_LOOKED_FOR = {*ROLLOUT_MODULES.values(), *STRATEGY_MODULES.values()}


@dataclass(frozen=True)
class Need:
    """A module that a setting needs."""

    module: str
    setting: str

    @property
    def fix(self) -> str:
        return FIXES[self.module]


def list_needs(config: DictConfig) -> Iterator[Need]:
    """What a run with this configuration needs."""
    is_cpu_run = config.trainer.device == "cpu"
    backend = config.actor_rollout_ref.rollout.checkpoint_engine.backend
    if backend == "naive" and config.trainer.v1.trainer_mode == TRAINER_MODE and not is_cpu_run:
        backend = "nccl"  # as derived_settings.py chooses
    for module in BACKEND_MODULES.get(backend, ()):
        yield Need(module, f"{BACKEND}={backend}")
    engines = [f"{ROLLOUT}.name"]
    if config.reward.reward_model.enable:
        engines.append("reward.reward_model.rollout.name")
    strategies = [f"{section}.strategy" for section in list_sections(config)]
    for modules, fields in ((ROLLOUT_MODULES, engines), (STRATEGY_MODULES, strategies)):
        for field in fields:
            value = str(OmegaConf.select(config, field))
            if value in modules:
                yield Need(modules[value], f"{field}={value}")
    attention = OmegaConf.select(config, ATTENTION, default=FLASH_ATTENTION)
    if not is_cpu_run and config.actor_rollout_ref.actor.strategy in ("fsdp", "fsdp2"):
        if attention == FLASH_ATTENTION:
            yield Need("flash_attn", f"{ATTENTION}={attention}")
        elif need_critic(config):  # verl leaves a value model no choice
            yield Need("flash_attn", "the critic's model")


def find_fault(module: str) -> str | None:
    """Why a module cannot be used here, as the end of a sentence; None if it can."""
    try:
        if importlib.util.find_spec(module) is None:
            return "is not installed"
        if module not in _LOOKED_FOR:
            importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name == module.partition(".")[0]:
            return "is not installed"
        return f"cannot be imported ({describe_exception(error)})"
    except Exception as error:  # a build for another torch or CUDA may raise anything
        return f"cannot be imported ({describe_exception(error)})"
    return None


def find_library_fault() -> str | None:
    """Why the library that vLLM's kernels for CPUs link cannot be used, as :func:`find_fault`."""
    try:
        ctypes.CDLL(CPU_LIBRARY)
    except OSError as error:
        return f"cannot be loaded ({describe_exception(error)})"
    return None


def check_packages(config: DictConfig) -> Findings:
    """What verl will import for the engines is here."""
    if config.trainer.device not in ("cpu", "cuda"):
        return
    needs: dict[str, Need] = {}
    for need in list_needs(config):
        needs.setdefault(need.module, need)
    for need in needs.values():
        if (fault := find_fault(need.module)) is not None:
            yield report_missing(config, f"{need.setting}: needs {need.module}", fault, need.fix)
    if config.trainer.device == "cpu" and "vllm" in needs and (fault := find_library_fault()):
        what = f"{needs['vllm'].setting}: vLLM's kernels for CPUs need {CPU_LIBRARY}"
        yield report_missing(config, what, fault, CPU_LIBRARY_FIX)


def report_missing(config: DictConfig, what: str, fault: str, fix: str) -> ConfigError | NotChecked:
    """An error, or only a note if the engines run on other machines than this one."""
    if config.trainer.device == "cpu" or has_device():
        return ConfigError(f"{what}, which {fault}; {fix}")
    return NotChecked(
        f"{what}, which {fault} here; this machine has no device, so the nodes may have it"
    )


def examine_cpu_library() -> list[Finding]:
    """Whether vLLM's kernels for CPUs can be loaded."""
    topic, fault = "vLLM's kernels for CPUs", find_library_fault()
    if fault is None:
        return [Finding(topic, State.OK, f"{CPU_LIBRARY} is here")]
    lost = "no rollout replica starts"
    return [Finding(topic, State.MISSING, f"{CPU_LIBRARY} {fault}", CPU_LIBRARY_FIX, lost)]


def examine_device_packages() -> list[Finding]:
    """What a run on GPUs needs without further settings, and which other engines are here."""
    findings = []
    for module, lost in (
        ("cupy", f"no weight sync with {BACKEND}=nccl, the default on GPUs"),
        ("flash_attn", f"the trainer's models do not load with {FLASH_ATTENTION}, the default"),
    ):
        fault = find_fault(module)
        if fault is None:
            findings.append(Finding(f"package {module}", State.OK, "can be imported"))
        else:
            findings.append(Finding(f"package {module}", State.MISSING, fault, FIXES[module], lost))
    others = [module for module in FIXES if module not in ("cupy", "flash_attn")]
    here = [module for module in others if find_fault(module) is None]
    detail = f"found: {', '.join(here) or 'none'} (of {', '.join(others)})"
    findings.append(Finding("packages of other engines", State.OK, detail))
    return findings
