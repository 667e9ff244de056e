"""Filters by name or by class path, with their settings (:mod:`verl_pipeline.named_classes`)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from verl_pipeline.filters.protocol import Filter
from verl_pipeline.named_classes import NamedClasses

_FILTERS = NamedClasses(
    "filter", "decide", "{name: overlong, mode: drop}", "its metrics go under it"
)
register_filter = _FILTERS.register


def load_filters(entries: Sequence[str | Mapping[str, Any]]) -> list[Filter]:
    """Instantiate filters in order.

    Args:
        entries: names or class paths, or mappings of ``name`` and the settings of that filter.

    Raises:
        ValueError: a name is neither registered nor importable, a setting is unknown or wrong, or
            two filters have one name, so that their metrics would overwrite each other.
    """
    filters = [_FILTERS.make(entry) for entry in entries]
    names = Counter(entry.name for entry in filters)
    for name, count in names.items():
        if count > 1:
            raise ValueError(f"{count} filters are named {name}: list it once")
    return filters
