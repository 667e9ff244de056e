"""One file a task; ``--tasks`` takes the names below, or the path of any module that has a TASK.

To add one: a module with ``TASK = Task(...)`` and the function that loads its items; it is found by
itself.
"""

import difflib
import importlib
import pkgutil

from verl_pipeline.evaluation.errors import Refused
from verl_pipeline.evaluation.task import Task


class UnknownTask(Refused):
    """No task of that name; the message lists those there are."""


def names() -> list[str]:
    """The tasks of this folder."""
    return sorted(
        module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")
    )


def task_of(name: str) -> Task:
    """The task ``name``, or ``TASK`` of the module ``name`` if it has a dot.

    Raises:
        UnknownTask: there is none.
    """
    path = name if "." in name else f"{__name__}.{name}"
    if "." not in name and name not in names():
        near = difflib.get_close_matches(name, names(), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UnknownTask(
            f"no task {name!r}{hint} There are: {', '.join(names())}; or the path of a module with "
            "TASK"
        )
    try:
        task = importlib.import_module(path).TASK
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        hint = "a module with a TASK is needed; is its folder in PYTHONPATH?"
        raise UnknownTask(f"task {name!r}: {error!r}; {hint}") from error
    return task
