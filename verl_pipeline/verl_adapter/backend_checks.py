"""The packages that the chosen engines need: rollout engine, trainer's engine, weight backend.

Invariants:
* A package that is missing here is named before a model is loaded, with the setting that needs it.
* A machine without a device is not the one that the engines run on: what it lacks is no error.
"""

from importlib.util import find_spec

from omegaconf import DictConfig, OmegaConf
from verl.checkpoint_engine.base import CheckpointEngineRegistry
from verl.workers.rollout.replica import RolloutReplicaRegistry

from verl_pipeline.overrides import suggest_name
from verl_pipeline.trainer.pipeline_config import ROLLOUT, TRAINER_MODE, ConfigError
from verl_pipeline.verl_adapter.check_report import Findings, NotChecked
from verl_pipeline.verl_adapter.machine_checks import has_device

BACKEND = f"{ROLLOUT}.checkpoint_engine.backend"
# Derived or registered by our own module, which is loaded with the engines.
_OWN_BACKENDS = ("naive", "gloo")
# By engine, the package whose module it is.
_ROLLOUT_PACKAGES = {"vllm": "vllm", "sglang": "sglang", "trtllm": "tensorrt_llm"}
_TRAINER_PACKAGES = {"megatron": "megatron", "veomni": "veomni", "torchtitan": "torchtitan"}


def check_rollout_engine(config: DictConfig) -> Findings:
    """The rollout engine is one of verl's, and installed."""
    field, name = f"{ROLLOUT}.name", config.actor_rollout_ref.rollout.name
    known = RolloutReplicaRegistry._registry
    if name not in known:
        yield ConfigError(f"{field}={name}: unknown; {suggest_name(str(name), known)}")
    elif name in _ROLLOUT_PACKAGES:
        yield from _find_missing(config, f"{field}={name}", _ROLLOUT_PACKAGES[name])


def check_trainer_engine(config: DictConfig) -> Findings:
    """The engine of the trainer's ranks is installed."""
    field = "actor_rollout_ref.actor.strategy"
    strategy = OmegaConf.select(config, field)
    if strategy in _TRAINER_PACKAGES:
        yield from _find_missing(config, f"{field}={strategy}", _TRAINER_PACKAGES[strategy])


def check_weight_backend(config: DictConfig) -> Findings:
    """The backend of weight syncs is registered, and what it needs is installed.

    ``check_weight_sync_module`` has imported a module of the user's.
    """
    backend = OmegaConf.select(config, BACKEND)
    is_separate = config.trainer.v1.trainer_mode == TRAINER_MODE
    if backend == "naive" and is_separate and config.trainer.device != "cpu":
        backend = "nccl"  # as it is derived
    known = CheckpointEngineRegistry._registry
    if backend in _OWN_BACKENDS or backend in known:
        return
    error = CheckpointEngineRegistry._import_errors.get(f"{backend}_checkpoint_engine")
    if error is None:
        names = {*known, *_OWN_BACKENDS}
        yield ConfigError(f"{BACKEND}={backend}: unknown; {suggest_name(str(backend), names)}")
    else:
        text = f"{BACKEND}={backend}: cannot be imported here ({error})"
        yield from _report(config, text, "install what it needs on every node")


def _find_missing(config: DictConfig, setting: str, package: str) -> Findings:
    if find_spec(package) is None:
        text = f"{setting}: the package {package} is not installed here"
        yield from _report(config, text, "install it on every node, as verl's documents say")


def _report(config: DictConfig, text: str, advice: str) -> Findings:
    if config.trainer.device == "cpu" or has_device():
        yield ConfigError(f"{text}; {advice}")
    else:
        yield NotChecked(f"{text}, and this machine has no device: it may be there on the others")
