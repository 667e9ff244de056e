"""Reads and checks the settings of a preparation: a file (``--config``), then ``key=value`` pairs.

Invariants:
* The error for an unknown setting, source or profile names the most similar known one.
* Contradictory settings are refused here, before any data is searched for.
"""

import datetime
import os
from pathlib import Path

from verl_pipeline.evaluation.eval_settings import BadSetting
from verl_pipeline.recipes.deepcoder.data.data_sources import SOURCES
from verl_pipeline.recipes.deepcoder.data.preparation_config import PrepareConfig
from verl_pipeline.recipes.deepcoder.settings_layers import (
    merge_settings,
    read_layer,
    suggest_known,
)
from verl_pipeline.settings_values import list_empty_texts

# An empty system message is one; the model, which has no default, has a message of its own.
MAY_BE_EMPTY = ("prompt.system", "model")
PROFILE_FOLDER = Path(__file__).parents[1] / "config"


def load_preparation(file: str | None, overrides: list[str]) -> PrepareConfig:
    """Merge the defaults, the file or built-in profile, and the overrides, and check the result.

    Args:
        file: a YAML file, or the name of a profile in :data:`PROFILE_FOLDER`.
        overrides: ``key=value`` pairs, for example ``length.max_tokens=1024``.

    Raises:
        BadSetting: the file does not exist, a field is unknown, a value has the wrong type, or
            settings contradict each other.
    """
    layers = [] if file is None else [read_layer(find_profile(file))]
    config = merge_settings(PrepareConfig, layers, overrides)
    _check_texts(config)
    _check_names(config)
    _check_choices(config)
    _check_numbers(config)
    _check_difficulty(config)
    _check_windows(config)
    return config


def find_profile(name: str) -> Path:
    """Return the file of the built-in profile ``name``, or ``name`` itself as a path.

    Raises:
        BadSetting: there is neither such a profile nor such a file.
    """
    profiles = {
        path.stem.removeprefix("prepare-"): path
        for path in sorted(PROFILE_FOLDER.glob("prepare-*.yaml"))
    }
    if name in profiles:
        return profiles[name]
    if not os.path.exists(name):
        raise BadSetting(
            f"--config {name}: no such file, and no profile{suggest_known(name, profiles)}"
        )
    return Path(name)


def _check_texts(config: PrepareConfig) -> None:
    for name in list_empty_texts(config):
        if name not in MAY_BE_EMPTY:
            raise BadSetting(f"{name} is empty: give it a value, or leave it out")


def _check_names(config: PrepareConfig) -> None:
    for name in config.sources:
        if name not in SOURCES:
            raise BadSetting(f"sources.{name}: no such source{suggest_known(name, SOURCES)}")
    if not config.sources:
        raise BadSetting(
            "sources: no data source is selected; name at least one, as in --config cpu. "
            f"Known: {', '.join(SOURCES)}"
        )
    if not config.model:
        raise BadSetting(
            "model: not set, but its tokenizer counts the prompt tokens; name a folder, a model on "
            "the hub, or 'quickstart'"
        )


def _check_choices(config: PrepareConfig) -> None:
    choices: dict[str, tuple[str | None, tuple[str | None, ...]]] = {
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
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            raise BadSetting(f"{name}={value!r}: must be one of {', '.join(filter(None, allowed))}")


def _check_numbers(config: PrepareConfig) -> None:
    minimums: dict[str, tuple[float | None, float]] = {
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
    for name, (number, minimum) in minimums.items():
        if number is not None and number < minimum:
            raise BadSetting(f"{name}={number}: must be at least {minimum:g}")
    for name, share in {
        "contamination.threshold": config.contamination.threshold,
        "contamination.agreeing": config.contamination.agreeing,
        "contamination.share": config.contamination.share,
        "near.threshold": config.near.threshold,
        "near.agreeing": config.near.agreeing,
    }.items():
        if not 0 < share <= 1:
            raise BadSetting(f"{name}={share}: must be above 0 and at most 1")


def _check_difficulty(config: PrepareConfig) -> None:
    difficulty = config.difficulty
    if not difficulty.low < difficulty.high:
        raise BadSetting(
            f"difficulty.low={difficulty.low} must be below difficulty.high={difficulty.high}"
        )
    if (difficulty.mode == "given") != (difficulty.rates is not None):
        raise BadSetting(
            "difficulty.rates: name a file of pass rates if difficulty.mode=given, and only then"
        )


def _check_windows(config: PrepareConfig) -> None:
    for name, source in config.sources.items():
        for key in ("start", "end"):
            _check_date(f"sources.{name}.{key}", getattr(source, key))
        if (source.start or source.end) and not SOURCES[name].has_dates:
            raise BadSetting(
                f"sources.{name}.start, end: the rows of this source have no date; remove them"
            )


def _check_date(name: str, text: str | None) -> None:
    try:
        datetime.date.fromisoformat(text or "2000-01-01")
    except ValueError as error:
        raise BadSetting(f"{name}={text!r}: not an ISO date; write one like 2024-08-01") from error
