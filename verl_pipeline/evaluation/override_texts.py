"""Settings as texts ``key=value``, whose values are YAML with OmegaConf's references ``${...}``.

Invariant: a value that comes from an option, a path above all, is taken as it is.
"""

import json
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from verl_pipeline.evaluation.eval_settings import BadSetting


def parse_overrides(texts: list[str]) -> DictConfig:
    """Return the settings of ``key=value`` texts.

    Raises:
        BadSetting: a text is no setting, empty, no YAML, or ends in what YAML takes for a comment.
    """
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise BadSetting(f"{text!r} is not a setting: write key=value, e.g. sampling.n=8")
        if not value.strip():  # YAML's null, but most often a variable that is not set
            raise BadSetting(f"{key}= is empty: give it a value, or write {key}=null")
        try:
            OmegaConf.from_dotlist([text])
            has_comment = " #" in value and _ends_early(value)
        except yaml.YAMLError as error:
            raise BadSetting(f"{text}: not valid YAML: {' '.join(str(error).split())}") from error
        if has_comment:
            raise BadSetting(
                f"{text}: YAML takes what follows # for a comment; put the value in quotes: "
                f"{key}='\"...\"'"
            )
    return OmegaConf.from_dotlist(texts)


def format_override(key: str, value: str | list[str]) -> str:
    """Return a setting as a text from which :func:`parse_overrides` reads exactly ``value``."""
    return f"{key}={json.dumps(escape_references(value), ensure_ascii=False)}"


def escape_references(value: Any) -> Any:
    """Return a value in which OmegaConf finds no reference ``${...}``."""
    if isinstance(value, str):
        return value.replace("${", "\\${")
    return [escape_references(item) for item in value] if isinstance(value, list) else value


def _ends_early(value: str) -> bool:
    """Whether YAML reads ``value`` only up to a ``#``."""
    return "#" not in str(yaml.safe_load(value))
