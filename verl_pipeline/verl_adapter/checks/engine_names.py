"""The names of the engines that sample and that send weights: each is registered with verl, and can
do what the run asks of it.

Invariant: whether a known engine's packages are here is :mod:`.device_packages`' to say.
"""

from omegaconf import DictConfig, OmegaConf
from verl.checkpoint_engine.base import CheckpointEngineRegistry
from verl.workers.rollout.replica import RolloutReplicaRegistry

from verl_pipeline.overrides import suggest_name
from verl_pipeline.trainer.pipeline_config import (
    PIPELINE_KEY,
    ROLLOUT,
    ConfigError,
    load_pipeline_config,
)
from verl_pipeline.verl_adapter.checks.check_report import Findings
from verl_pipeline.verl_adapter.checks.device_packages import (
    BACKEND,
    BACKEND_MODULES,
    report_missing,
)
from verl_pipeline.verl_adapter.emulated.plugin import ROLLOUT_NAME as EMULATED

# Derived, or registered by our own module, which is loaded with the engines.
_OWN_BACKENDS = ("naive", "gloo")


def check_rollout_name(config: DictConfig) -> Findings:
    """The rollout engine is one of verl's."""
    name, known = OmegaConf.select(config, f"{ROLLOUT}.name"), RolloutReplicaRegistry._registry
    if name is not None and name not in known:
        yield ConfigError(f"{ROLLOUT}.name={name}: unknown; {suggest_name(str(name), known)}")


def check_seeds(config: DictConfig) -> Findings:
    """The rollout engine takes a seed with each request, if the run wants it."""
    name = OmegaConf.select(config, f"{ROLLOUT}.name")
    if load_pipeline_config(config).seeded_sampling and name not in ("vllm", EMULATED):
        yield ConfigError(
            f"{PIPELINE_KEY}.seeded_sampling=true: {ROLLOUT}.name={name} takes no seed with a "
            f"request; set seeded_sampling=false, or {ROLLOUT}.name=vllm"
        )


def check_backend_name(config: DictConfig) -> Findings:
    """The backend of weight syncs is registered.

    ``check_weight_sync_module`` has imported a module of the user's.
    """
    backend = OmegaConf.select(config, BACKEND)
    known = {*CheckpointEngineRegistry._registry, *_OWN_BACKENDS, *BACKEND_MODULES}
    if backend is None or backend in known:
        return
    error = CheckpointEngineRegistry._import_errors.get(f"{backend}_checkpoint_engine")
    if error is None:
        yield ConfigError(f"{BACKEND}={backend}: unknown; {suggest_name(str(backend), known)}")
    else:
        fault = f"cannot be imported ({error})"
        yield report_missing(
            config, f"{BACKEND}={backend}: needs its engine", fault, "install what it needs"
        )
