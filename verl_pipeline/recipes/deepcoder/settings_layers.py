"""Settings of a command in layers: defaults, then a file, then ``key=value`` pairs; later ones win.

Invariant: whatever is wrong with them is one line, which names the setting; of an unknown one also
the most similar known one.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from verl_pipeline.evaluation.eval_settings import BadSetting
from verl_pipeline.evaluation.override_texts import parse_overrides
from verl_pipeline.input_files import InputError, read_config

T = TypeVar("T")


def read_layer(file: Path) -> DictConfig | ListConfig:
    """Read the file of ``--config``.

    Raises:
        BadSetting: it cannot be read, or is no YAML.
    """
    try:
        return read_config(file)
    except InputError as error:
        raise BadSetting(f"--config {error}") from error


def merge_settings(
    schema: type[T], layers: Sequence[DictConfig | ListConfig], overrides: Iterable[str]
) -> T:
    """Merge the defaults of a dataclass, the layers and the overrides.

    Raises:
        BadSetting: a setting is unknown, or a value has the wrong type.
    """
    try:
        merged = OmegaConf.merge(
            OmegaConf.structured(schema), *layers, parse_overrides(list(overrides))
        )
        config = OmegaConf.to_object(merged)
    except BadSetting:
        raise
    except ConfigKeyError as error:
        key = error.full_key or str(error.key)
        raise BadSetting(_describe_unknown_key(schema, key)) from error
    except OmegaConfBaseException as error:
        raise BadSetting(f"{error.full_key or 'settings'}: {str(error).splitlines()[0]}") from error
    # The last two are OmegaConf's for a value that is not a mapping.
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise BadSetting(f"settings: {' '.join(str(error).split())}") from error
    assert isinstance(config, schema)
    return config


def suggest_known(name: str, known: Iterable[str]) -> str:
    """Return the end of an error message about an unknown name."""
    known = list(known)
    matches = difflib.get_close_matches(name, known, 1)
    suggestion = f"; did you mean {matches[0]}?" if matches else ";"
    return f"{suggestion} Known: {', '.join(known)}"


def _describe_unknown_key(schema: Any, key: str) -> str:
    *path, name = key.split(".")
    node = schema
    for part in path:
        # Below a mapping stand names of the user's.
        node = get_args(node)[1] if get_origin(node) is dict else get_type_hints(node)[part]
    return f"{key}: no such setting{suggest_known(name, [one.name for one in fields(node)])}"
