"""Reads and checks runs and hardware profiles, from ``stages.yaml`` and ``hardware/<name>.yaml``.

Invariants:
* The error for an unknown field names the most similar known one.
* Contradictions within the files are found here, before verl is imported. What needs verl's
  configuration, a model or data is checked in :mod:`.stage_checks`.
"""

import difflib
from collections.abc import Iterable
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from verl_pipeline.errors import UserError
from verl_pipeline.input_files import InputError, read_settings_file
from verl_pipeline.recipes.deepcoder.stages.stage_config import EndRules, HardwareConfig, RunConfig
from verl_pipeline.settings_values import list_empty_texts, list_impossible_numbers

_RECIPE_FOLDER = Path(__file__).parents[1]
STAGES_FILE = _RECIPE_FOLDER / "stages.yaml"
# A model may begin its answers without a text.
MAY_BE_EMPTY = ("answer_prefix",)
HARDWARE_FOLDER = _RECIPE_FOLDER / "hardware"


class StageFileError(UserError):
    """A file of stages or hardware is wrong; the message names file, field and remedy."""


def load_runs(path: Path) -> dict[str, RunConfig]:
    """Read the runs of a stages file, by name.

    Raises:
        StageFileError: the file does not exist, a field is unknown, a value has the wrong type, or
            values contradict each other.
    """
    runs = {
        name: _build_dataclass(RunConfig, value, f"{path}: {name}")
        for name, value in _load_mapping(path, "--stages").items()
    }
    for name, run in runs.items():
        _check_run(run, f"{path}: {name}")
    return runs


def load_hardware(name: str) -> HardwareConfig:
    """Read the built-in hardware profile ``name``, or the file ``name``.

    Raises:
        StageFileError: as in :func:`load_runs`.
    """
    profiles = sorted(path.stem for path in HARDWARE_FOLDER.glob("*.yaml"))
    path = HARDWARE_FOLDER / f"{name}.yaml" if name in profiles else Path(name)
    if path.suffix != ".yaml":
        raise StageFileError(
            f"--hardware {name}: unknown; {suggest_name(name, profiles)} A file must end in .yaml"
        )
    hardware = _build_dataclass(HardwareConfig, _load_mapping(path, "--hardware"), str(path))
    if hardware.device not in ("cuda", "cpu"):
        raise StageFileError(f"{path}: device={hardware.device}: must be cuda or cpu")
    _check_positive(
        hardware, ("nodes", "devices", "tensor_parallel", "sequence_parallel"), str(path)
    )
    return hardware


def select_run(runs: dict[str, RunConfig], name: str, path: Path) -> RunConfig:
    """Return the run ``name`` among the runs of the file ``path``.

    Raises:
        StageFileError: there is no such run.
    """
    if name not in runs:
        raise StageFileError(f"--run {name}: not in {path}; {suggest_name(name, runs)}")
    return runs[name]


def check_stage_name(run: RunConfig, name: str | None) -> None:
    """Refuse the name of a stage that the run does not have; None stands for all stages.

    Raises:
        StageFileError: there is no such stage.
    """
    if name is not None and name not in run.stages:
        raise StageFileError(f"--stage {name}: unknown; {suggest_name(name, run.stages)}")


def suggest_name(name: str, known_names: Iterable[str]) -> str:
    """Return the end of an error message about an unknown name."""
    known_names = list(known_names)
    matches = difflib.get_close_matches(name, known_names, 1)
    return f"did you mean {matches[0]}?" if matches else f"known: {', '.join(known_names)}"


def _load_mapping(path: Path, option: str) -> dict[str, Any]:
    """Read a file that ``option`` names."""
    try:
        content = read_settings_file(path, yaml.safe_load)
    except InputError as error:
        raise StageFileError(f"{option} {error}") from error
    if not isinstance(content, dict) or not content:
        raise StageFileError(f"{option} {path}: must be a mapping of names, as in {STAGES_FILE}")
    return content


def _build_dataclass(schema: type, value: Any, location: str) -> Any:
    """Convert a mapping into the dataclass ``schema``; ``location`` begins error messages."""
    _check_fields(schema, value, location)
    try:
        settings = OmegaConf.to_object(
            OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.create(value))
        )
    except OmegaConfBaseException as error:
        raise StageFileError(
            f"{location}: {error.full_key}: {str(error).splitlines()[0]}"
        ) from error
    except (ValueError, TypeError, OverflowError) as error:  # a value that no field can hold
        raise StageFileError(f"{location}: {' '.join(str(error).split())}") from error
    for name in list_empty_texts(settings):
        if name not in MAY_BE_EMPTY:
            raise StageFileError(f"{location}: {name} is empty: give it a value, or leave it out")
    for text in list_impossible_numbers(settings):
        raise StageFileError(f"{location}: {text}")
    return settings


def _check_fields(kind: Any, value: Any, location: str) -> None:
    """Refuse unknown and missing fields at every depth.

    OmegaConf would refuse them as well, but its errors name neither the file nor a similar field.

    Args:
        kind: a dataclass, or a type that contains one: ``dict[str, X]`` or ``X | None``.
        value: what the file has for it.
        location: begins error messages.
    """
    if get_origin(kind) is dict and isinstance(value, dict):
        for name, item in value.items():
            _check_fields(get_args(kind)[1], item, f"{location}.{name}")
    schema = next((one for one in (kind, *get_args(kind)) if is_dataclass(one)), None)
    is_absent_option = value is None and type(None) in get_args(kind)
    if schema is None or get_origin(kind) is dict or is_absent_option:
        return
    types = get_type_hints(schema)
    if not isinstance(value, dict):
        raise StageFileError(f"{location}={value}: must be a mapping of {', '.join(types)}")
    for key, item in value.items():
        if key not in types:
            raise StageFileError(
                f"{location}.{key}: unknown field; {suggest_name(str(key), types)}"
            )
        _check_fields(types[key], item, f"{location}.{key}")
    for entry in fields(schema):
        has_default = entry.default is not MISSING or entry.default_factory is not MISSING
        if entry.name not in value and not has_default:
            raise StageFileError(
                f"{location}.{entry.name}: is missing; stage_config.py explains the field"
            )


def _check_positive(config: Any, names: Iterable[str], location: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise StageFileError(f"{location}: {name}={value}: must be at least 1")


def _check_run(run: RunConfig, location: str) -> None:
    if not run.stages:
        raise StageFileError(f"{location}: stages: name at least one")
    _check_positive(run, ("prompt_length", "save_every"), location)
    previous_step = 0
    for name, stage in run.stages.items():
        stage_location = f"{location}.stages.{name}"
        if not name or "/" in name or name.startswith("."):
            raise StageFileError(
                f"{stage_location}: a stage's name is also the name of its folder; use one without "
                "'/' that does not begin with '.'"
            )
        _check_positive(
            stage,
            ("last_step", "response_length", "batch", "mini_batch", "samples", "tokens_per_device"),
            stage_location,
        )
        for pool in ("train", "rollout"):
            _check_positive(
                getattr(stage.pools, pool), ("nodes", "devices"), f"{stage_location}.pools.{pool}"
            )
        if stage.last_step <= previous_step:
            raise StageFileError(
                f"{stage_location}: last_step={stage.last_step}: must exceed {previous_step}, the "
                "last step of the stage before"
            )
        previous_step = stage.last_step
        _check_end_rules(stage.until, stage_location)


def _check_end_rules(rules: EndRules, location: str) -> None:
    share = rules.truncated_share
    if share is not None:
        _check_positive(share, ("window",), f"{location}.until.truncated_share")
        if (share.above is None) == (share.below is None):
            raise StageFileError(f"{location}.until.truncated_share: give one of above and below")
    if rules.plateau is not None:
        _check_positive(rules.plateau, ("window",), f"{location}.until.plateau")
