"""Filters by name or by class path."""

import importlib
from collections.abc import Callable

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


def load_filters(names: list[str]) -> list[Filter]:
    """Instantiate filters in order.

    Args:
        names: registered names, or class paths such as ``my_package.filters.NoShortAnswers``.

    Raises:
        ValueError: a name is neither registered nor importable.
    """
    return [_load(name)() for name in names]


def _load(name: str) -> type:
    if name in _FILTERS:
        return _FILTERS[name]
    module, _, attribute = name.rpartition(".")
    if not module:
        raise ValueError(f"unknown filter {name!r}; registered: {', '.join(sorted(_FILTERS))}, or give a class path")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"filter {name!r} cannot be imported: {error}") from error
