"""verl's own default of every setting."""

import re
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any

from omegaconf import OmegaConf

# verl's defaults in one file, which verl generates from its own.
DEFAULTS_FILE = "_generated_ppo_trainer.yaml"
_PATH = re.compile(r"(?:[._])(?:path|dir)$")


def list_defaults() -> list[tuple[str, Any]]:
    """Every section and setting of verl's at any depth, with its default."""
    return list(_list_nodes(_read_defaults()))


@cache
def list_paths() -> list[str]:
    """verl's settings that name a file or folder."""
    return [field for field, _value in list_defaults() if _PATH.search(field)]


@cache
def _read_defaults() -> Any:
    file = resources.files("verl.trainer.config") / DEFAULTS_FILE
    return OmegaConf.to_container(OmegaConf.create(file.read_text()), resolve=False)


def _list_nodes(section: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        yield f"{prefix}{name}", value
        if isinstance(value, dict):
            yield from _list_nodes(value, f"{prefix}{name}.")
