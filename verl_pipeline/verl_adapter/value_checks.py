"""Values of the wrong kind: a text where verl's default is a number, a name that nobody registered.

Invariants:
* verl's own defaults and registries say what is right; no list of ours repeats them.
* Every wrong value is found, not the first only.
"""

import math
from collections.abc import Collection, Iterator
from functools import cache
from importlib import resources
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from verl.utils.tracking import Tracking

from verl_pipeline.overrides import suggest_name
from verl_pipeline.trainer.pipeline_config import ROLLOUT, ConfigError
from verl_pipeline.verl_adapter.check_report import Findings

# verl's defaults in one file, which verl generates from its own.
DEFAULTS_FILE = "_generated_ppo_trainer.yaml"
EXTERNAL_LIB = "actor_rollout_ref.model.external_lib"
RESUME_MODES = ("auto", "disable", "resume_path")
# What other checks compute with; verl has no default for the optional ones.
SIZES = (
    "trainer.nnodes",
    "trainer.n_gpus_per_node",
    "data.train_batch_size",
    "data.max_prompt_length",
    "data.max_response_length",
    "actor_rollout_ref.actor.ppo_mini_batch_size",
    "critic.ppo_mini_batch_size",
    *(
        f"{ROLLOUT}.{name}"
        for name in (
            "n",
            "nnodes",
            "n_gpus_per_node",
            "prompt_length",
            "response_length",
            "tensor_model_parallel_size",
            "data_parallel_size",
            "pipeline_model_parallel_size",
        )
    ),
)
OPTIONAL_SIZES = (
    "data.gen_batch_size",
    f"{ROLLOUT}.max_model_len",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu",
    f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu",
    "actor_rollout_ref.model.override_config.max_position_embeddings",
    "trainer.total_training_steps",
)
EXAMPLES = {f"{ROLLOUT}.name": ", and may be vllm, sglang or trtllm"}
# verl takes a text such as 0.5_2.0, too.
RANGES = ("algorithm.rollout_correction.rollout_is_threshold",)


def check_references(config: DictConfig) -> Findings:
    """Every ``${...}`` resolves, and what has no default is set."""
    try:
        OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        text = str(error).splitlines()[0]
        raise ConfigError(f"{error.full_key}: {text}; correct the reference") from error
    for field in sorted(OmegaConf.missing_keys(config)):
        if config.reward.reward_model.enable or not field.startswith("reward.reward_model."):
            yield ConfigError(f"{field}: has no default{EXAMPLES.get(field, '')}; set it")


def check_numbers(config: DictConfig) -> Findings:
    """Numbers and switches are where verl has them."""
    for field in (*SIZES, *OPTIONAL_SIZES):
        value = OmegaConf.select(config, field)
        optional = field in OPTIONAL_SIZES
        if (value is None and not optional) or not isinstance(value, int | None) or value is True:
            kind = "a whole number, or null" if optional else "a whole number"
            yield ConfigError(f"{field}={value}: must be {kind}")
    for field, default in _load_defaults().items():
        value = OmegaConf.select(config, field, default=default)
        kind = "True or False" if isinstance(default, bool) else "a number"
        if field not in SIZES and not _is_of_kind(value, default):
            yield ConfigError(f"{field}={value}: must be {kind}, as verl's default {default} is")


@cache
def _load_defaults() -> dict[str, Any]:
    """verl's defaults that are numbers or switches, by field."""
    file = resources.files("verl.trainer.config") / DEFAULTS_FILE
    defaults = OmegaConf.to_container(OmegaConf.create(file.read_text()), resolve=False)
    return {
        field: value
        for field, value in _list_leaves(defaults)
        if isinstance(value, bool | int | float) and field not in RANGES
    }


def _list_leaves(node: Any, field: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _list_leaves(value, f"{field}.{name}" if field else str(name))
    else:
        yield field, node


def _is_of_kind(value: Any, default: bool | int | float) -> bool:
    """Whether verl could compute with ``value``; null stands for "not set" in many places."""
    if isinstance(default, bool):
        return value is None or isinstance(value, bool | int | float)
    if value is None:
        return True
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def check_names(config: DictConfig) -> Findings:
    """Refuse names that verl would look up in a registry, maybe hours later, and not find."""
    # Our own trainer checks with this module, and is imported with verl's.
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

    mode = config.trainer.v1.trainer_mode
    yield from _check_name("trainer.v1.trainer_mode", mode, TRAINER_REGISTRY)
    yield from _check_name("trainer.resume_mode", config.trainer.resume_mode, RESUME_MODES)
    loggers = config.trainer.logger
    for logger in [loggers] if isinstance(loggers, str) else loggers or []:
        if logger != "tracking":
            yield from _check_name("trainer.logger", logger, Tracking.supported_backend)
    if OmegaConf.select(config, EXTERNAL_LIB) is not None:
        return  # it may register more, in the processes that import it
    estimator = config.algorithm.adv_estimator
    yield from _check_name("algorithm.adv_estimator", estimator, ADV_ESTIMATOR_REGISTRY)
    loss = OmegaConf.select(config, "actor_rollout_ref.actor.policy_loss.loss_mode")
    if loss is not None:
        name = "actor_rollout_ref.actor.policy_loss.loss_mode"
        yield from _check_name(name, loss, POLICY_LOSS_REGISTRY)


def _check_name(field: str, name: Any, known: Collection[str]) -> Findings:
    if name not in known:
        yield ConfigError(f"{field}={name}: unknown; {suggest_name(str(name), known)}")
