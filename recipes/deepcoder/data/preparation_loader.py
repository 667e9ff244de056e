"""Reads the settings of a preparation, from a file (``--config``) and ``key=value`` behind the
command.

Invariants:
* An unknown setting, source or profile is refused with the nearest name.
* A contradiction is found here, before any data is looked for.
"""

import datetime
import difflib
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from recipes.deepcoder.data.data_sources import SOURCES
from recipes.deepcoder.data.preparation_config import PrepareConfig, SourceConfig
from verl_pipeline.evaluation.config import BadSetting

PROFILES = Path(__file__).parents[1] / "config"


def load_config(file: str | None, overrides: list[str]) -> PrepareConfig:
    """Defaults, then the file or the profile of that name, then the overrides
    (``length.max_tokens=1024``).

    Raises:
        BadSetting: no such file, an unknown field, a value of the wrong type, or a contradiction.
    """
    try:
        layers = [OmegaConf.load(profile(file))] if file else []
        merged = OmegaConf.merge(
            OmegaConf.structured(PrepareConfig), *layers, OmegaConf.from_dotlist(overrides)
        )
        config = OmegaConf.to_object(merged)
    except OSError as error:
        raise BadSetting(f"--config {file}: {error}") from error
    except ConfigKeyError as error:
        raise BadSetting(_unknown(error.full_key or str(error.key))) from error
    except OmegaConfBaseException as error:
        raise BadSetting(f"{error.full_key or 'settings'}: {str(error).splitlines()[0]}") from error
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise BadSetting(f"settings: {' '.join(str(error).split())}") from error
    assert isinstance(config, PrepareConfig)
    _check(config)
    return config


def profile(name: str) -> Path:
    """The file ``name``, or that of the built-in profile.

    Raises:
        BadSetting: neither is there.
    """
    built_in = {
        path.stem.removeprefix("prepare-"): path for path in sorted(PROFILES.glob("prepare-*.yaml"))
    }
    if name in built_in:
        return built_in[name]
    if not Path(name).is_file():
        raise BadSetting(f"--config {name}: no such file, and no profile{_nearest(name, built_in)}")
    return Path(name)


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return (f"; did you mean {near[0]}?" if near else ";") + f" There are: {', '.join(known)}"


def _unknown(key: str) -> str:
    *path, name = key.split(".")
    node: Any = PrepareConfig
    for part in path:
        kinds = {one.name: one for one in fields(node)} if is_dataclass(node) else {}
        if part in kinds and kinds[part].default_factory is not dict:
            node = kinds[part].default_factory
        else:
            node = SourceConfig
    return f"{key}: no such setting{_nearest(name, [one.name for one in fields(node)])}"


def _check(config: PrepareConfig) -> None:
    for name in config.sources:
        if name not in SOURCES:
            raise BadSetting(f"sources.{name}: no such source{_nearest(name, SOURCES)}")
    if not config.sources:
        raise BadSetting(
            f"sources: name at least one, as in --config cpu; there are {', '.join(SOURCES)}"
        )
    if not config.model:
        raise BadSetting(
            "model: name a folder, a model of the hub, or 'quickstart'; its tokenizer counts tokens"
        )
    one_of: dict[str, tuple[str | None, tuple[str | None, ...]]] = {
        "prompt.style": (config.prompt.style, ("instructed", "released")),
        "contamination.missing": (config.contamination.missing, ("refuse", "warn")),
        "verify.on_disagreement": (config.verify.on_disagreement, ("drop", "mark")),
        "verify.without_solution": (config.verify.without_solution, ("drop", "keep")),
        "difficulty.mode": (config.difficulty.mode, ("measure", "given", "none")),
        "grader.tier": (config.grader.tier, ("namespaces", "rlimits", "remote")),
        **{
            f"sources.{name}.without_solution": (source.without_solution, (None, "drop", "keep"))
            for name, source in config.sources.items()
        },
    }
    for name, (value, allowed) in one_of.items():
        if value not in allowed:
            raise BadSetting(f"{name}={value!r}: must be one of {', '.join(filter(None, allowed))}")
    at_least: dict[str, tuple[float | None, float]] = {
        "tests.min": (config.tests.min, 1),
        "length.max_tokens": (config.length.max_tokens, 1),
        "verify.solutions": (config.verify.solutions, 1),
        "near.words": (config.near.words, 1),
        "near.permutations": (config.near.permutations, 16),
        "contamination.gram": (config.contamination.gram, 1),
        "difficulty.k": (config.difficulty.k, 1),
        "difficulty.max_tokens": (config.difficulty.max_tokens, 1),
        "split.heldout": (config.split.heldout, 0),
        **{f"sources.{name}.limit": (source.limit, 1) for name, source in config.sources.items()},
    }
    for name, (number, least) in at_least.items():
        if number is not None and number < least:
            raise BadSetting(f"{name}={number}: must be at least {least:g}")
    for name, share in {
        "contamination.threshold": config.contamination.threshold,
        "contamination.agreeing": config.contamination.agreeing,
        "contamination.share": config.contamination.share,
        "near.threshold": config.near.threshold,
        "near.agreeing": config.near.agreeing,
    }.items():
        if not 0 < share <= 1:
            raise BadSetting(f"{name}={share}: must be above 0 and at most 1")
    if not config.difficulty.low < config.difficulty.high:
        raise BadSetting(
            f"difficulty.low={config.difficulty.low} must be below high={config.difficulty.high}"
        )
    if (config.difficulty.mode == "given") != (config.difficulty.rates is not None):
        raise BadSetting(
            "difficulty.rates: name a file of rates with difficulty.mode=given, and only with it"
        )
    for name, source in config.sources.items():
        for key in ("start", "end"):
            _date(f"sources.{name}.{key}", getattr(source, key))
        if (source.start or source.end) and not SOURCES[name].dated:
            raise BadSetting(f"sources.{name}.start, end: its rows have no date")


def _date(name: str, text: str | None) -> None:
    try:
        datetime.date.fromisoformat(text or "2000-01-01")
    except ValueError as error:
        raise BadSetting(f"{name}={text!r}: an ISO date like 2024-08-01 is needed") from error
