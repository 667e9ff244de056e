"""Values of settings that are of the right type and still mean nothing: empty texts, huge numbers.

An empty text most often comes from a variable of the shell that is not set; ``data=$DATA`` would
then mean the current folder.
"""

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

# What verl, vLLM and torch keep counts in.
LARGEST = 2**31 - 1


def list_values(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the names and values of the fields of a dataclass, at every depth.

    Values within other mappings and lists are left out: they are not this command's own.
    """
    for entry in fields(settings):
        name, value = f"{prefix}{entry.name}", getattr(settings, entry.name)
        if is_dataclass(value):
            yield from list_values(value, f"{name}.")
        elif isinstance(value, dict):
            for key, item in value.items():
                if is_dataclass(item):
                    yield from list_values(item, f"{name}.{key}.")
        else:
            yield name, value


def list_empty_texts(settings: Any) -> Iterator[str]:
    """Yield the names of the fields of a dataclass that are an empty text."""
    for name, value in list_values(settings):
        if value == "":
            yield name


def list_impossible_numbers(settings: Any) -> Iterator[str]:
    """Say which fields of a dataclass are numbers that nothing can be computed with."""
    for name, value in list_values(settings):
        if isinstance(value, float) and not math.isfinite(value):
            yield f"{name}={value}: must be a finite number"
        elif isinstance(value, int | float) and abs(value) > LARGEST:
            yield f"{name}={value}: must be at most {LARGEST}"
