"""Classes that a setting names: by a registered name or by class path, with their own settings.

One entry of a setting: ``overlong``, ``{name: overlong, mode: drop}``, ``my_package.filters.Mine``
or ``{name: my_package.filters.Mine, shortest: 20}``.
"""

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class NamedClasses:
    """The classes of one kind.

    Attributes:
        kind: what messages call one, as in ``filter``.
        method: that every class of the kind has.
        example: of an entry with settings.
        use: what the attribute ``name`` of an object is for.
    """

    kind: str
    method: str
    example: str
    use: str
    _classes: dict[str, type] = field(default_factory=dict)

    def register(self, name: str) -> Callable[[type], type]:
        """Class decorator: makes a class available under ``name``.

        Raises:
            ValueError: the name belongs to another class.
        """

        def decorator(cls: type) -> type:
            if (owner := self._classes.setdefault(name, cls)) is not cls:
                raise ValueError(f"{self.kind} name {name!r} belongs to {owner.__qualname__}")
            return cls

        return decorator

    def make(self, entry: str | Mapping[str, Any]) -> Any:
        """Make the object of an entry.

        Args:
            entry: a name or class path, or a mapping of ``name`` and the settings of that class.

        Raises:
            ValueError: the name is neither registered nor importable, or a setting is unknown or
                wrong; one line.
        """
        settings: dict[Any, Any] = dict(entry) if isinstance(entry, Mapping) else {"name": entry}
        name = settings.pop("name", None)
        if not isinstance(name, str):
            raise ValueError(f"{self.kind} {entry!r}: a name is needed, as in {self.example}")
        cls = self._find(name)
        try:
            made = cls(**settings)
        except TypeError as error:  # an unknown setting, or one of the wrong type
            takes = ", ".join(inspect.signature(cls).parameters) or "no settings"
            raise ValueError(f"{self.kind} {name}: {error}; it takes {takes}") from error
        except ValueError as error:
            raise ValueError(f"{self.kind} {name}: {error}") from error
        found = getattr(made, "name", None)
        if not isinstance(found, str):
            raise ValueError(f"{self.kind} {name} needs an attribute `name`: {self.use}")
        if name in self._classes and found != name:
            raise ValueError(
                f"{self.kind} {name}: its attribute `name` is {found!r}; make them equal"
            )
        return made

    def _find(self, name: str) -> type:
        if name in self._classes:
            return self._classes[name]
        module, _, attribute = name.rpartition(".")
        if not module:
            near = difflib.get_close_matches(name, self._classes, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            known = ", ".join(sorted(self._classes))
            raise ValueError(
                f"unknown {self.kind} {name!r}; {hint}registered: {known}, or give a class path"
            )
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"{self.kind} {name!r} cannot be imported: {error}") from error
        if not isinstance(found, type) or not hasattr(found, self.method):
            raise ValueError(
                f"{self.kind} {name!r} is no {self.kind}: "
                f"a class with a method {self.method} is needed"
            )
        return found
