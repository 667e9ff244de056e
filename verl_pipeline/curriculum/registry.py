"""Selectors by name or by class path, with their settings (:mod:`verl_pipeline.named_classes`)."""

from collections.abc import Mapping
from typing import Any

from verl_pipeline.curriculum.protocol import Selector
from verl_pipeline.named_classes import NamedClasses

_SELECTORS = NamedClasses(
    "selector", "observe", "{name: learnability, half_life: 64}", "checkpoints are known by it"
)
register_selector = _SELECTORS.register


def load_selector(entry: str | Mapping[str, Any]) -> Selector:
    """Make a selector.

    Args:
        entry: a name or class path, or a mapping of ``name`` and the selector's settings.

    Raises:
        ValueError: the name is neither registered nor importable, or a setting is unknown or wrong;
            one line.
    """
    made: Selector = _SELECTORS.make(entry)
    return made
