"""Filters by name or by class path, with their settings.

One entry of the list in the configuration: ``overlong``, ``{name: overlong, mode: deepcoder}``,
``my_package.filters.NoShortAnswers`` or ``{name: my_package.filters.NoShortAnswers, shortest:
20}``.
"""

import difflib
import importlib
import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from verl_pipeline.filters.protocol import Filter

_FILTERS: dict[str, type] = {}


def register_filter(name: str) -> Callable[[type], type]:
    """Class decorator: makes a filter available under ``name``.

    Raises:
        ValueError: the name belongs to another class.
    """

    def decorator(cls: type) -> type:
        if _FILTERS.setdefault(name, cls) is not cls:
            raise ValueError(f"filter name {name!r} belongs to {_FILTERS[name].__qualname__}")
        return cls

    return decorator


def load_filters(entries: Sequence[str | Mapping[str, Any]]) -> list[Filter]:
    """Instantiate filters in order.

    Args:
        entries: names or class paths, or mappings of ``name`` and the settings of that filter.

    Raises:
        ValueError: a name is neither registered nor importable, a setting is unknown or wrong, or
            two filters have one name, so that their metrics would overwrite each other.
    """
    filters = [_make_filter(entry) for entry in entries]
    names = Counter(entry.name for entry in filters)
    for name, count in names.items():
        if count > 1:
            raise ValueError(f"{count} filters are named {name}: list it once")
    return filters


def _make_filter(entry: str | Mapping[str, Any]) -> Filter:
    settings: dict[Any, Any] = dict(entry) if isinstance(entry, Mapping) else {"name": entry}
    name = settings.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(
            f"filter {entry!r}: a name is needed, as in {{name: overlong, mode: drop}}"
        )
    cls = _find_class(name)
    try:
        made = cls(**settings)
    except TypeError as error:  # an unknown setting, or one of the wrong type
        takes = ", ".join(inspect.signature(cls).parameters) or "no settings"
        raise ValueError(f"filter {name}: {error}; it takes {takes}") from error
    if not isinstance(getattr(made, "name", None), str):
        raise ValueError(f"filter {name} needs an attribute `name`: its metrics go under it")
    if name in _FILTERS and made.name != name:
        raise ValueError(f"filter {name}: its attribute `name` is {made.name!r}; make them equal")
    return made


def _find_class(name: str) -> type:
    if name in _FILTERS:
        return _FILTERS[name]
    module, _, attribute = name.rpartition(".")
    if not module:
        near = difflib.get_close_matches(name, _FILTERS, n=1)
        hint = (
            f"did you mean {near[0]}?"
            if near
            else f"registered: {', '.join(sorted(_FILTERS))}, or give a class path"
        )
        raise ValueError(f"unknown filter {name!r}; {hint}")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"filter {name!r} cannot be imported: {error}") from error
    if not isinstance(found, type) or not hasattr(found, "decide"):
        raise ValueError(f"filter {name!r} is no filter: a class with a method decide is needed")
    return found
