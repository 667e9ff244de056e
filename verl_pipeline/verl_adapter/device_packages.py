"""Packages that a run on GPUs needs beside those that every run imports.

verl imports them where they are used: in the trainer's and the rollout's processes, after models
have loaded.

Invariant: a missing package is one line that names the setting that needs it, the package and what
to do.
"""

import importlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from omegaconf import DictConfig, OmegaConf
from verl.trainer.ppo.utils import need_critic

from verl_pipeline.findings import Finding, State
from verl_pipeline.trainer.pipeline_config import ROLLOUT, TRAINER_MODE, ConfigError
from verl_pipeline.verl_adapter.check_report import Findings, NotChecked, describe_exception
from verl_pipeline.verl_adapter.machine_checks import ACTOR, has_device

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
    """What a run on GPUs with this configuration needs."""
    rollout = config.actor_rollout_ref.rollout
    backend = rollout.checkpoint_engine.backend
    if backend == "naive" and config.trainer.v1.trainer_mode == TRAINER_MODE:
        backend = "nccl"  # as derived_settings.py chooses
    for module in BACKEND_MODULES.get(backend, ()):
        yield Need(module, f"{BACKEND}={backend}")
    if rollout.name in ROLLOUT_MODULES:
        yield Need(ROLLOUT_MODULES[rollout.name], f"{ROLLOUT}.name={rollout.name}")
    strategy = config.actor_rollout_ref.actor.strategy
    if strategy in STRATEGY_MODULES:
        yield Need(STRATEGY_MODULES[strategy], f"{ACTOR}.strategy={strategy}")
    attention = OmegaConf.select(config, ATTENTION, default=FLASH_ATTENTION)
    if strategy in ("fsdp", "fsdp2"):
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


def check_device_packages(config: DictConfig) -> Findings:
    """What verl will import on the GPUs is here."""
    if config.trainer.device != "cuda":
        return
    needs = list(dict.fromkeys(list_needs(config)))
    if not has_device():
        # The head node of a cluster may lack what its other nodes have.
        names = ", ".join(need.module for need in needs)
        yield NotChecked(f"packages for GPUs ({names}): this machine has no such device")
        return
    for need in needs:
        if (fault := find_fault(need.module)) is not None:
            yield ConfigError(f"{need.setting}: needs {need.module}, which {fault}; {need.fix}")


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
