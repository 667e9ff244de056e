"""Reads and checks the settings of a generation: a file (``--config``), then ``key=value`` pairs.

Invariants:
* Settings that begin with ``prepare.`` are those of the preparation that follows, and are checked
  by it, before anything runs.
* The error for an unknown setting names the most similar known one.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_pipeline.evaluation.eval_settings import BadSetting
from verl_pipeline.evaluation.override_texts import escape_references, format_override
from verl_pipeline.recipes.deepcoder.data.data_sources import SOURCES
from verl_pipeline.recipes.deepcoder.data.preparation_config import PrepareConfig
from verl_pipeline.recipes.deepcoder.data.preparation_loader import load_preparation
from verl_pipeline.recipes.deepcoder.generation.generation_config import GenerateConfig
from verl_pipeline.recipes.deepcoder.settings_layers import (
    merge_settings,
    read_layer,
    suggest_known,
)
from verl_pipeline.settings_values import list_empty_texts

# Data source of the preparation by method.
METHOD_SOURCES = {
    "codeio": "codeio",
    "families": "families",
    "model": "model_made",
    "strengthen": "strengthened",
}
WAYS = ("evolve", "compose", "translate")
PREPARE = "prepare."
# Of the preparation; the other settings with these names are the generation's own.
PREPARATION_PROFILE = "generated"
_MAY_BE_EMPTY = ("model.name", "model.solver")


def load_generation(
    file: str | None, overrides: Iterable[str]
) -> tuple[GenerateConfig, PrepareConfig]:
    """Merge the defaults, the file and the overrides; check the result.

    Args:
        file: a YAML file, which may have a section ``prepare``; None: defaults.
        overrides: ``key=value`` pairs, for example ``methods=[codeio]`` or ``prepare.model=DIR``.

    Raises:
        BadSetting: the file does not exist, a field is unknown, a value has the wrong type, or
            settings contradict each other.
    """
    overrides = list(overrides)
    own = [text for text in overrides if not text.startswith(PREPARE)]
    passed_on = [text.removeprefix(PREPARE) for text in overrides if text.startswith(PREPARE)]
    layer = OmegaConf.create({}) if file is None else read_layer(Path(file))
    section = layer.pop("prepare", {}) if isinstance(layer, DictConfig) else {}
    config = merge_settings(GenerateConfig, [layer], own)
    _check(config)
    content = OmegaConf.to_container(section) if isinstance(section, DictConfig) else {}
    settings = [f"{key}={json.dumps(value)}" for key, value in dict(content).items()]
    return config, _load_preparation(config, [*settings, *passed_on])


def _load_preparation(config: GenerateConfig, passed_on: list[str]) -> PrepareConfig:
    shared: dict[str, Any] = {
        "output": config.output,
        "work": config.work,
        "data": config.data,
        "hub": config.hub,
        "seed": config.seed,
        "grader.tier": config.grader.tier,
        "grader.url": config.grader.url,
        "grader.workers": config.grader.workers,
    }
    own = [f"{key}={json.dumps(escape_references(value))}" for key, value in shared.items()]
    for text in passed_on:
        name = text.partition("=")[0]
        if name in shared or name.partition(".")[0] == "sources":
            raise BadSetting(f"{PREPARE}{name}: the generation sets it; use {name} without prepare")
    for method in config.methods:
        source = METHOD_SOURCES[method]
        own.append(format_override(f"sources.{source}.file", str(find_rows_file(config, method))))
    return load_preparation(PREPARATION_PROFILE, [*own, *passed_on])


def find_rows_file(config: GenerateConfig, method: str) -> Path:
    """Return the file of a method's rows."""
    return Path(config.output) / "rows" / f"{METHOD_SOURCES[method]}.jsonl"


def _check(config: GenerateConfig) -> None:
    for name in list_empty_texts(config):
        if name not in _MAY_BE_EMPTY:
            raise BadSetting(f"{name} is empty: give it a value, or leave it out")
    _check_list("methods", config.methods, METHOD_SOURCES)
    _check_list("model.ways", config.model.ways, WAYS)
    for setting, sources in (
        ("model.seeds", config.model.seeds),
        ("strengthen.sources", config.strengthen.sources),
    ):
        for name in sources:
            if name not in SOURCES:
                raise BadSetting(f"{setting}.{name}: no such source{suggest_known(name, SOURCES)}")
    choices = {
        "codeio.form": (config.codeio.form, ("mixed", "call", "stdin")),
        "strengthen.generator": (config.strengthen.generator, ("derived", "model")),
        "grader.tier": (config.grader.tier, ("namespaces", "rlimits", "remote")),
    }
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            raise BadSetting(f"{name}={value!r}: must be one of {', '.join(allowed)}")
    _check_numbers(config)
    if "strengthen" in config.methods and not config.strengthen.sources:
        raise BadSetting(
            "strengthen.sources: no data source is selected; name one, as in "
            "strengthen.sources={mbpp: {}}"
        )
    needs_model = "model" in config.methods or (
        "strengthen" in config.methods and config.strengthen.generator == "model"
    )
    if needs_model and not config.model.name:
        raise BadSetting("model.name: not set; name the model that the server serves")
    if needs_model and config.model.engine.kind == "server" and not config.model.engine.url:
        raise BadSetting(
            "model.engine.url: not set; name the server, as in http://localhost:8000/v1"
        )


def _check_list(setting: str, names: list[str], known: Iterable[str]) -> None:
    if not names:
        raise BadSetting(f"{setting}: empty; name at least one of {', '.join(known)}")
    for name in names:
        if name not in known:
            raise BadSetting(f"{setting}: {name!r} is not known{suggest_known(name, known)}")
    if len(set(names)) < len(names):
        raise BadSetting(f"{setting}={names}: each may be named once")


def _check_numbers(config: GenerateConfig) -> None:
    tests, model, strengthen = config.tests, config.model, config.strengthen
    minimums: dict[str, tuple[float | None, float]] = {
        "tests.draws": (tests.draws, 1),
        "tests.min": (tests.min, 1),
        "tests.distinct": (tests.distinct, 2),
        "tests.repeats": (tests.repeats, 1),
        "tests.characters": (tests.characters, 1),
        "tests.keep": (tests.keep, tests.min),
        "mutation.mutants": (config.mutation.mutants, 1),
        "time.generator_s": (config.time.generator_s, 0.1),
        "time.reference_s": (config.time.reference_s, 0.1),
        "time.mutant_s": (config.time.mutant_s, 2 * config.time.reference_s),
        "codeio.limit": (config.codeio.limit, 1),
        "model.problems": (model.problems, 1),
        "model.agree": (model.agree, 1),
        "model.solvers": (model.solvers, model.agree),
        "model.max_tokens": (model.max_tokens, 1),
        "model.rounds": (model.rounds, 1),
        "strengthen.draws": (strengthen.draws, 1),
        "strengthen.keep": (strengthen.keep, 1),
        "strengthen.opinions": (strengthen.opinions, 1),
        "strengthen.mutants": (strengthen.mutants, 1),
        "seed": (config.seed, 0),
    }
    for name, (number, minimum) in minimums.items():
        # Comparisons with NaN are false.
        if number is not None and not number >= minimum:
            raise BadSetting(f"{name}={number}: must be at least {minimum:g}")
    if not 0 <= config.mutation.min_score <= 1:
        raise BadSetting(f"mutation.min_score={config.mutation.min_score}: must be from 0 to 1")
