"""Reads profiles: YAML files, or those that come with the package by their name.

Invariant: what cannot be simulated is refused here, in one line that names the field and the fix.
"""

import dataclasses
import difflib
import os
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from verl_pipeline.input_files import InputError, read_settings_file
from verl_pipeline.planner.distributions import Distribution, read_distribution, read_number
from verl_pipeline.planner.profile import Profile, check_profile
from verl_pipeline.planner.profile_error import ProfileError

FOLDER = Path(__file__).parent / "profiles"
MAX_TEXT = 10_000


def list_profiles() -> list[str]:
    """Names of the profiles that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find_profile(name: Path) -> Path:
    """Return the file of a profile: ``name`` itself, or one of the package's by its name."""
    own = FOLDER / f"{name}.yaml"
    # os.path: a name that no file can have is no file.
    return own if not os.path.exists(name) and str(name) in list_profiles() else name


def load_profile(name: Path) -> Profile:
    """Read and check a profile.

    Args:
        name: a YAML file, or the name of a profile of the package.

    Raises:
        ProfileError: a field is missing, wrong, or contradicts another.
        InputError: the file cannot be read.
    """
    path = find_profile(name)
    try:
        content = read_settings_file(path, yaml.safe_load)
    except InputError as error:
        others = "" if os.path.lexists(path) else f"; or name one of {', '.join(list_profiles())}"
        raise InputError(f"--profile {error}{others}") from error
    try:
        return make_profile(content)
    except ProfileError as error:
        raise ProfileError(f"{path}: {error}") from error


def make_profile(content: Any) -> Profile:
    """Make a profile of a mapping and check it.

    Raises:
        ProfileError: a field is missing, wrong, or contradicts another.
    """
    profile = _read_section(Profile, content, "")
    check_profile(profile)
    return profile


def list_fields(kind: Any = Profile, prefix: str = "") -> list[tuple[str, Mapping[str, Any]]]:
    """Dotted names of all fields of a profile, with what is declared about each."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    hints = typing.get_type_hints(kind)
    for entry in dataclasses.fields(kind):
        name = f"{prefix}{entry.name}"
        if dataclasses.is_dataclass(hints[entry.name]) and hints[entry.name] is not Distribution:
            found += list_fields(hints[entry.name], f"{name}.")
        else:
            found.append((name, entry.metadata))
    return found


def _read_section(kind: Any, content: Any, prefix: str) -> Any:
    place = prefix.rstrip(".") or "the profile"
    if not isinstance(content, dict):
        raise ProfileError(f"{place}: must be names with values, as name: value")
    hints = typing.get_type_hints(kind)
    entries = {entry.name: entry for entry in dataclasses.fields(kind)}
    for key in content:
        if key not in entries:
            near = difflib.get_close_matches(str(key), entries, 1)
            hint = (
                f"did you mean {prefix}{near[0]}?" if near else f"{place} has {', '.join(entries)}"
            )
            shown = key if isinstance(key, str) and key.isidentifier() else _shorten(key)
            raise ProfileError(f"{prefix}{shown}: no field of a profile; {hint}")
    values = {}
    for name, entry in entries.items():
        if name in content:
            values[name] = _read_value(
                hints[name], content[name], f"{prefix}{name}", entry.metadata
            )
        elif entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING:
            raise ProfileError(f"{prefix}{name} is missing: give it{_describe(entry.metadata)}")
    return kind(**values)


def _read_value(kind: Any, content: Any, name: str, declared: Mapping[str, Any]) -> Any:
    if kind is Distribution:
        return read_distribution(content, name, declared["low"])
    if dataclasses.is_dataclass(kind):
        return _read_section(kind, content, f"{name}.")
    if kind is bool:
        if not isinstance(content, bool):
            raise ProfileError(f"{name}={_shorten(content)}: must be true or false")
        return content
    if kind is str:
        return _read_text(content, name)
    if kind in (int, float):
        if kind is int and (isinstance(content, bool) or not isinstance(content, int)):
            raise ProfileError(
                f"{name}={_shorten(content)}: must be a whole number{_describe(declared)}"
            )
        value = read_number(content, name, declared["low"], declared["high"])
        return int(value) if kind is int else value
    if not isinstance(content, dict):
        raise ProfileError(f"{name}: must be names with values, as gpus: published, page")
    return {
        _read_text(key, name): _read_text(text, f"{name}.{key}") for key, text in content.items()
    }


def _read_text(content: Any, name: str) -> str:
    if not isinstance(content, str) or not content.strip() or len(content) > MAX_TEXT:
        raise ProfileError(f"{name}={_shorten(content)}: must be a text, not empty")
    return content


def _shorten(content: Any) -> str:
    text = repr(content) if not isinstance(content, int) or abs(content) < 1e15 else "a huge number"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _describe(declared: Mapping[str, Any]) -> str:
    unit, meaning = declared.get("unit"), declared.get("meaning")
    if not meaning:
        return ""
    return f" ({unit} {meaning})" if unit else f" ({meaning})"
