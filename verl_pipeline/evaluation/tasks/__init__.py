"""The tasks, one module per task; ``--tasks`` takes their names.

A new module here with ``TASK = Task(...)`` is found automatically. ``--tasks`` also takes the
import path of any other module with a TASK.
"""

import importlib
import pkgutil

from verl_pipeline.errors import UserError
from verl_pipeline.evaluation.suggestions import suggest_name
from verl_pipeline.evaluation.task import Task


class UnknownTask(UserError):
    """There is no task of that name; the message lists the tasks."""


def list_task_names() -> list[str]:
    """Return the names of the tasks in this package."""
    return sorted(
        module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")
    )


def find_task(name: str) -> Task:
    """Return the task ``name``; a name with a dot is the path of a module with a TASK.

    Raises:
        UnknownTask: there is no such task or module.
    """
    path = name if "." in name else f"{__name__}.{name}"
    if "." not in name and name not in list_task_names():
        raise UnknownTask(
            f"tasks: no task {name!r}; {suggest_name(name, list_task_names())}name one of "
            f"{', '.join(list_task_names())}, or the path of a module with TASK"
        )
    try:
        task = importlib.import_module(path).TASK
    except (Exception, SystemExit) as error:  # the user's module may raise anything
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        if isinstance(error, ImportError | AttributeError | TypeError | ValueError):
            cause = " ".join(str(error).split())
        raise UnknownTask(
            f"tasks: {name!r} cannot be loaded ({cause}); name a module with a TASK, and put its "
            "folder into PYTHONPATH"
        ) from error
    if not isinstance(task, Task):
        raise UnknownTask(f"tasks: TASK of {name!r} is no verl_pipeline.evaluation.task.Task")
    return task
