"""Selectors by name or by class path, with their settings.

The entry in the configuration: ``learnability``, ``{name: learnability, half_life: 100}``,
``my_package.selectors.Newest`` or ``{name: my_package.selectors.Newest, share: 0.5}``.
"""

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from verl_pipeline.curriculum.protocol import Selector

_SELECTORS: dict[str, type] = {}


def register_selector(name: str) -> Callable[[type], type]:
    """Class decorator: makes a selector available under ``name``.

    Raises:
        ValueError: the name belongs to another class.
    """

    def decorator(cls: type) -> type:
        if _SELECTORS.setdefault(name, cls) is not cls:
            raise ValueError(f"selector name {name!r} belongs to {_SELECTORS[name].__qualname__}")
        return cls

    return decorator


def load_selector(entry: str | Mapping[str, Any]) -> Selector:
    """Make a selector.

    Args:
        entry: a name or class path, or a mapping of ``name`` and the selector's settings.

    Raises:
        ValueError: the name is neither registered nor importable, or a setting is unknown or wrong;
            one line.
    """
    settings: dict[Any, Any] = dict(entry) if isinstance(entry, Mapping) else {"name": entry}
    name = settings.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(
            f"{entry!r}: a name is needed, as in {{name: learnability, half_life: 64}}"
        )
    cls = _find_class(name)
    try:
        made = cls(**settings)
    except TypeError as error:  # an unknown setting, or one of the wrong type
        takes = ", ".join(inspect.signature(cls).parameters) or "no settings"
        raise ValueError(f"selector {name}: {error}; it takes {takes}") from error
    except ValueError as error:
        raise ValueError(f"selector {name}: {error}") from error
    if not isinstance(getattr(made, "name", None), str):
        raise ValueError(f"selector {name} needs an attribute `name`: checkpoints are known by it")
    return made


def _find_class(name: str) -> type:
    if name in _SELECTORS:
        return _SELECTORS[name]
    module, _, attribute = name.rpartition(".")
    if not module:
        near = difflib.get_close_matches(name, _SELECTORS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        known = ", ".join(sorted(_SELECTORS))
        raise ValueError(f"unknown selector {name!r}; {hint}registered: {known}, or a class path")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"selector {name!r} cannot be imported: {error}") from error
    if not isinstance(found, type) or not hasattr(found, "observe"):
        raise ValueError(f"selector {name!r} is none: a class with a method observe is needed")
    return found
