"""Says in words how two sets of settings differ."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

_HASH = re.compile(r"[0-9a-f]{40,64}")
# Characters of a hash that tell it from another.
HASH_CHARACTERS = 12


def list_differences(
    first: Mapping[str, Any], second: Mapping[str, Any], sides: tuple[str, str]
) -> list[str]:
    """Return one text per field that differs, as ``limit: 5 there, 3 now``.

    Fields of nested mappings have dotted names.

    Args:
        sides: what the texts call the two.
    """
    before, after = dict(_flatten(first)), dict(_flatten(second))
    return [
        f"{name}: {show_value(before.get(name))} {sides[0]}, {show_value(after.get(name))} "
        f"{sides[1]}"
        for name in dict.fromkeys((*before, *after))
        if before.get(name) != after.get(name)
    ]


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def is_hash(value: Any) -> bool:
    """Whether a setting's value is a hash."""
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


def show_value(value: Any) -> str:
    """Return a setting's value for readers."""
    if value is None or value in ({}, [], ""):
        return "none"
    if is_hash(value):
        return f"{value[:HASH_CHARACTERS]}... (hash)"
    if isinstance(value, list | tuple):
        return ", ".join(map(show_value, value))
    return str(value)
