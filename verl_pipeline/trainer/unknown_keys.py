"""Keys of a section of settings that no dataclass knows, with the one that was probably meant."""

import difflib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import OmegaConf


def find_unknown_keys(section: Any, schema: type, prefix: str) -> Iterator[str]:
    """One line for each key that ``schema``, or a dataclass below it, does not have.

    Args:
        prefix: the section's own name.
    """
    known = {entry.name: entry.type for entry in fields(schema)}
    for key in section:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = (
                f"did you mean {prefix}.{near[0]}?" if near else f"known keys: {', '.join(known)}"
            )
            yield f"{prefix}.{key}: unknown key; {hint}"
        elif is_dataclass(known[key]) and OmegaConf.is_dict(section[key]):
            yield from find_unknown_keys(section[key], known[key], f"{prefix}.{key}")  # type: ignore[arg-type]
