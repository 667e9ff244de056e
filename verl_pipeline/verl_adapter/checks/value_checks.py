"""Values of the wrong kind: a text where verl's default is a number, a name that nobody registered.

Invariants:
* verl's own defaults and registries say what is right; no list of ours repeats them.
* Every wrong value is found, not the first only.
"""

import math
import re
from collections.abc import Collection, Iterator
from functools import cache
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import (
    InterpolationToMissingValueError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)
from verl.utils.tracking import Tracking

from verl_pipeline.overrides import suggest_name
from verl_pipeline.trainer.pipeline_config import ROLLOUT, ConfigError
from verl_pipeline.verl_adapter.checks.check_report import Findings
from verl_pipeline.verl_adapter.settings.verl_defaults import list_defaults

EXTERNAL_LIB = "actor_rollout_ref.model.external_lib"
REWARD_MODEL = "reward.reward_model"
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
# verl, vLLM and torch keep sizes in 32 bits in places, and other whole numbers in 64.
LARGEST_SIZE = 2**31 - 1
LARGEST_NUMBER = 2**63 - 1
# What verl would take and fail with, once models are loaded; check_pools and others bound the rest.
LOWEST = {
    "data.max_prompt_length": 1,
    "data.max_response_length": 1,
    "trainer.total_training_steps": 1,
    "trainer.total_epochs": 1,
    "actor_rollout_ref.actor.optim.lr": 0,
    "critic.optim.lr": 0,
    f"{ROLLOUT}.temperature": 0,
}
EXAMPLES = {f"{ROLLOUT}.name": ", and may be vllm, sglang or trtllm"}
# OmegaConf's words before the cause of a reference that cannot be resolved.
_RESOLVING = re.compile(r"^\w+ (?:raised )?while resolving interpolation: ")
# verl takes a text such as 0.5_2.0, too.
RANGES = ("algorithm.rollout_correction.rollout_is_threshold",)


def check_readable(config: DictConfig) -> Findings:
    """Sections are sections, every ``${...}`` resolves, and what has no default is set."""
    for field in _load_sections():
        value = OmegaConf.select(config, field, throw_on_resolution_failure=False)
        if not OmegaConf.is_dict(value) and (value is not None or "." not in field):
            yield ConfigError(
                f"{field}={value}: must be a section of settings, as in {field}.<name>=..."
            )
    enabled = OmegaConf.select(config, f"{REWARD_MODEL}.enable", throw_on_resolution_failure=False)
    without_default = [field for field, value in list_defaults() if value == "???"]
    for field, error in _list_unreadable(config):
        if isinstance(error, InterpolationToMissingValueError):
            continue  # the missing value is named itself
        if not isinstance(error, MissingMandatoryValue):
            text = _RESOLVING.sub("", str(error).splitlines()[0])
            yield ConfigError(f"{field}: {text}; correct the reference")
        elif enabled or not (field in without_default and field.startswith(f"{REWARD_MODEL}.")):
            yield ConfigError(f"{field}: has no default{EXAMPLES.get(field, '')}; set it")


def _list_unreadable(
    section: DictConfig | ListConfig, prefix: str = ""
) -> Iterator[tuple[str, OmegaConfBaseException]]:
    """Every value at any depth that cannot be read, and why."""
    for key in section if isinstance(section, DictConfig) else range(len(section)):
        field = f"{prefix}{key}"
        try:
            value = section[key]
        except OmegaConfBaseException as error:
            yield field, error
            continue
        # What stands elsewhere is looked at there.
        if OmegaConf.is_config(value) and not OmegaConf.is_interpolation(section, key):
            yield from _list_unreadable(value, f"{field}.")


def check_numbers(config: DictConfig) -> Findings:
    """Numbers and switches are where verl has them."""
    unreadable: OmegaConfBaseException | None = None
    for field in dict.fromkeys((*SIZES, *OPTIONAL_SIZES, *_load_defaults())):
        default = _load_defaults().get(field)
        try:
            value = OmegaConf.select(config, field, default=default, throw_on_missing=True)
        except OmegaConfBaseException as error:
            unreadable = error
            continue
        kind = _find_expected_kind(field, value, default)
        if kind and not (value is None and _is_within_value(config, field)):
            yield ConfigError(f"{field}={value}: must be {kind}")
    if unreadable is not None:  # check_readable names it; what builds on numbers cannot go on
        raise unreadable


def _is_within_value(config: DictConfig, field: str) -> bool:
    """Whether one of the sections of a field is none, which has a finding of its own."""
    while "." in field:
        field = field.rpartition(".")[0]
        section = OmegaConf.select(config, field)
        if section is not None:
            return not OmegaConf.is_dict(section)
    return True


def _find_expected_kind(field: str, value: Any, default: Any) -> str:
    """What the value of a field must be; "" if it is."""
    if field in SIZES or field in OPTIONAL_SIZES:
        kind = "a whole number" + ", or null" * (field in OPTIONAL_SIZES)
        if value is None:
            return "" if field in OPTIONAL_SIZES else kind
        if not isinstance(value, int) or isinstance(value, bool):
            return kind
        if value > LARGEST_SIZE:
            return f"at most {LARGEST_SIZE}"
        return _find_bound(field, value)
    kind = "True or False" if isinstance(default, bool) else "a number"
    if not _is_of_kind(value, default):
        return f"{kind}, as verl's default {default} is"
    return _find_bound(field, value)


def _find_bound(field: str, value: float | None) -> str:
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
        return f"at most {LARGEST_NUMBER}"
    lowest = LOWEST.get(field)
    return "" if lowest is None or lowest <= value < math.inf else f"finite, and {lowest} or more"


@cache
def _load_defaults() -> dict[str, Any]:
    """verl's defaults that are numbers or switches, by field."""
    return {
        field: value
        for field, value in list_defaults()
        if isinstance(value, bool | int | float) and field not in RANGES
    }


@cache
def _load_sections() -> list[str]:
    """verl's sections, at every depth."""
    return [field for field, value in list_defaults() if isinstance(value, dict) and value]


def _is_of_kind(value: Any, default: bool | int | float) -> bool:
    """Whether verl could compute with ``value``; null stands for "not set" in many places."""
    if isinstance(default, bool):
        return value is None or isinstance(value, bool | int | float)
    if value is None:
        return True
    if isinstance(value, float):
        return not math.isnan(value)
    return isinstance(value, int) and not isinstance(value, bool)


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
