"""Loads the settings of an evaluation, and refuses what cannot work before anything is loaded.

Invariants:
* A key that is no setting is refused by name, with the nearest setting.
* A message names the setting, its value and what was expected.
"""

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import (
    GrammarParseError,
    InterpolationResolutionError,
    OmegaConfBaseException,
)

from verl_pipeline.evaluation.eval_settings import (
    DROPPABLE_PARAMETERS,
    BadSetting,
    EvalConfig,
    is_preset_model,
)
from verl_pipeline.evaluation.override_texts import escape_references, parse_overrides
from verl_pipeline.evaluation.suggestions import suggest_name
from verl_pipeline.input_files import InputError, read_config
from verl_pipeline.settings_values import LARGEST, list_empty_texts

CHOICES = {
    "engine.kind": ("vllm", "server"),
    "style": ("chat", "prefill"),
    "purpose": ("report", "choose"),
    "grader.tier": ("namespaces", "rlimits", "remote"),
}
TYPES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list, e.g. [a,b]",
    dict: "names with values, e.g. {a: 1}",
}
# An empty system prompt is one; the model, which has no default, has a message of its own.
MAY_BE_EMPTY = ("system", "model")
# Bounds of numbers, as (lowest, highest); None in the settings is not checked.
BOUNDS: Mapping[str, tuple[float, float]] = {
    "limit": (1, LARGEST),
    "sampling.n": (1, LARGEST),
    "sampling.max_tokens": (1, LARGEST),
    "sampling.temperature": (0, LARGEST),
    "sampling.top_k": (-1, LARGEST),
    "engine.concurrency": (1, LARGEST),
    "engine.tries": (1, LARGEST),
    "engine.timeout_s": (1, LARGEST),
    "engine.threads": (1, LARGEST),
    "engine.max_model_len": (1, LARGEST),
    "engine.tensor_parallel_size": (1, LARGEST),
    "engine.trained_length": (1, LARGEST),
    "grader.workers": (1, LARGEST),
    "grader.reward_s": (1, LARGEST),
    "engine.top_logprobs": (0, 20),
    "refine.n": (0, LARGEST),
    "confidence.window": (1, LARGEST),
    "confidence.warmup": (1, LARGEST),
    "behaviour.inputs": (0, 1000),
    "behaviour.cpu_s": (0.1, LARGEST),
}
# Bounds of shares: above 0 up to 1, or from 0 to below 1.
SHARES = {
    "sampling.top_p": (False, True),
    "engine.gpu_memory_utilization": (False, True),
    "refine.agreement": (False, True),
    "confidence.keep": (False, True),
    "confidence.consensus": (False, True),
    "refine.confidence": (True, False),
}


def load_eval_config(
    file: str | None, overrides: list[str], options: Mapping[str, Any] | None = None
) -> EvalConfig:
    """Merge the defaults, the file, the overrides and the options; later ones win.

    Args:
        file: YAML file.
        overrides: ``key=value`` texts, as in ``engine.kind=server``.
        options: values of command-line options, by setting.

    Raises:
        BadSetting: an unknown setting, a value of the wrong type, or a contradiction.
    """
    values = {name: escape_references(value) for name, value in (options or {}).items()}
    layers: list[Any] = []
    try:
        defaults = OmegaConf.structured(EvalConfig)
        if file:
            layers.append(read_config(Path(file)))
        layers.append(parse_overrides(overrides))
        for layer in layers:
            names = OmegaConf.to_container(layer)
            if not isinstance(names, dict):
                raise BadSetting(f"--config {file}: expected settings by name, e.g. limit: 5")
            _check_names(names, OmegaConf.to_container(defaults))
        config = OmegaConf.to_object(OmegaConf.merge(defaults, *layers, values))
    except InputError as error:
        raise BadSetting(f"--config {error}") from error
    except OmegaConfBaseException as error:
        raise BadSetting(_explain(error, layers)) from error
    except BadSetting:
        raise
    # OmegaConf raises the last two for a value that is not a mapping.
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:
        raise BadSetting(f"settings: {' '.join(str(error).split())}") from error
    assert isinstance(config, EvalConfig)
    _check_values(config)
    _check_combinations(config)
    return config


def _explain(error: OmegaConfBaseException, layers: list[Any]) -> str:
    """Return what is wrong with the value that OmegaConf refuses."""
    name = error.full_key
    if isinstance(error, InterpolationResolutionError | GrammarParseError):
        return f"{name or 'settings'}: {str(error).splitlines()[0]}; quote a $ as \\$"
    kind: Any = EvalConfig
    for part in (name or "").split("."):
        kind = typing.get_type_hints(kind).get(part) if dataclasses.is_dataclass(kind) else None
    expected = next((text for one, text in TYPES.items() if one in _list_types(kind)), None)
    if not name or expected is None:
        return f"{name or 'settings'}: {str(error).splitlines()[0]}"
    found = (_find_value(layer, name) for layer in reversed(layers))
    value = next((one for one in found if one is not None), "")
    return f"{name}={value}: must be {expected}"


def _find_value(layer: Any, name: str) -> Any:
    value = OmegaConf.to_container(layer)
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _list_types(annotation: Any) -> list[Any]:
    """Return the types of an annotation such as ``list[str] | None``."""
    members = typing.get_args(annotation) if isinstance(annotation, UnionType) else [annotation]
    return [typing.get_origin(member) or member for member in members]


def _check_names(settings: Any, defaults: Any) -> None:
    names = dict(_list_names(defaults))
    known = [name for name, is_section in names.items() if not is_section]
    for name, is_section in _list_names(settings):
        # Below a setting whose value is a mapping of its own, names are free.
        is_free = any(name.startswith(f"{prefix}.") for prefix in known)
        if is_section or is_free or name in known:
            continue
        if name in names:
            members = [other for other in known if other.startswith(f"{name}.")]
            raise BadSetting(f"{name}: set its members, {', '.join(members)}")
        raise BadSetting(
            f"{name} is not a setting; {suggest_name(name, known)}docs/evaluation/settings.md "
            "lists all settings"
        )


def _list_names(settings: Any, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Yield the dotted names of all settings, and whether they are sections."""
    for key, value in settings.items():
        is_section = isinstance(value, dict) and bool(value)
        yield f"{prefix}{key}", is_section
        if is_section:
            yield from _list_names(value, f"{prefix}{key}.")


def _check_values(config: EvalConfig) -> None:
    for name, allowed in CHOICES.items():
        if (value := _read_value(config, name)) not in allowed:
            raise BadSetting(f"{name}={value!r}: must be one of {', '.join(allowed)}")
    for name, (lowest, highest) in BOUNDS.items():
        value = _read_value(config, name)
        # Comparisons with NaN are false.
        if value is not None and not lowest <= value <= highest:
            bound = f"at most {highest}" if value > highest else f"at least {lowest}"
            raise BadSetting(f"{name}={value}: must be a number of {bound}")
    for name, (with_0, with_1) in SHARES.items():
        value = _read_value(config, name)
        if value is None or 0 < value < 1 or (value == 0 and with_0) or (value == 1 and with_1):
            continue
        bounds = f"{'at least' if with_0 else 'above'} 0 and {'at most' if with_1 else 'below'} 1"
        raise BadSetting(f"{name}={value}: must be {bounds}")
    for name in list_empty_texts(config):
        if name not in MAY_BE_EMPTY:
            raise BadSetting(f"{name} is empty: give it a value, or leave it out")
    if not config.model:
        raise BadSetting(
            "model is missing: name a folder, a model of the hub, 'canonical', 'empty', or a JSONL "
            "file of answers"
        )
    for name in ("tasks", "train_data", "engine.may_drop"):
        for item in _read_value(config, name):
            if not isinstance(item, str):
                raise BadSetting(f"{name}: {item!r}: must be text")
    if not all(config.tasks):
        raise BadSetting(f"tasks={','.join(config.tasks)}: a name is empty; remove a comma")
    if not config.tasks:
        raise BadSetting("tasks is empty: name at least one (verl-pipeline eval --list)")
    if len(set(config.tasks)) < len(config.tasks):
        raise BadSetting(f"tasks={','.join(config.tasks)}: a task is named twice; remove one")
    for name in ("options", "engine.chat_template_kwargs", "engine.rope_parameters"):
        value = _read_value(config, name)
        if not isinstance(value, dict | None):
            raise BadSetting(f"{name}={value}: must be {TYPES[dict]}")
    for name, options in config.options.items():
        if not isinstance(options, dict):
            raise BadSetting(f"options.{name}={options!r}: must be option=value pairs")
    for name in config.engine.may_drop:
        if name not in DROPPABLE_PARAMETERS:
            raise BadSetting(
                f"engine.may_drop: {name} is none of {', '.join(DROPPABLE_PARAMETERS)}"
            )


def _read_value(config: EvalConfig, name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _check_combinations(config: EvalConfig) -> None:
    if (config.engine.kind == "server") != (config.engine.url is not None):
        raise BadSetting("engine.url: set it together with engine.kind=server, and only then")
    if config.engine.url and not config.engine.url.startswith(("http://", "https://")):
        raise BadSetting(
            f"engine.url={config.engine.url}: expected the address with its scheme, "
            "e.g. http://HOST:8000/v1"
        )
    if (config.grader.tier == "remote") != (config.grader.url is not None):
        raise BadSetting("grader.url: set it together with grader.tier=remote, and only then")
    if config.engine.kind == "server" and config.engine.rope_parameters:
        raise BadSetting(
            "engine.rope_parameters has no effect on a server: set RoPE scaling on the server"
        )
    rope = config.engine.rope_parameters
    # LongRoPE has lists of factors instead of one; vLLM checks the rest.
    if rope is not None and not (
        "rope_type" in rope and isinstance(rope.get("factor", 1.0), int | float)
    ):
        raise BadSetting(
            f"engine.rope_parameters={rope}: give rope_type (e.g. yarn) and factor (a number)"
        )
    if config.refine.n and is_preset_model(config.model):
        raise BadSetting(
            f"refine.n: model={config.model} cannot generate a second round; set refine.n=0"
        )
