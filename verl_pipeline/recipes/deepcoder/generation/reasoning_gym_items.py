"""Items of reasoning-gym's generators, as JSON on standard output: run as a program of its own.

    python reasoning_gym_items.py FOLDER < requests

Importing ``reasoning_gym`` imports all of its 106 generators and a package for each of the odd ones
(ARC grids, Rubik's cubes, satisfiability). The generators used here need the standard library and
sympy, so this program imports their modules alone, in a process whose ``reasoning_gym`` is a
package without its ``__init__``.
"""

import importlib
import inspect
import json
import sys
import types
from pathlib import Path
from typing import Any

_FOLDERS = ("algebra", "algorithmic", "arithmetic")


def list_items(module_name: str, config: dict[str, Any], seed: int, size: int) -> list[Any]:
    """Return answer and metadata of the first items of a generator, by its module's name."""
    module = importlib.import_module(f"reasoning_gym.{module_name}")
    classes: list[Any] = [
        one
        for one in vars(module).values()
        if inspect.isclass(one) and one.__module__ == module.__name__
    ]
    dataset_class = next(one for one in classes if one.__name__.endswith("Dataset"))
    config_class = next(one for one in classes if one.__name__.endswith("Config"))
    dataset = dataset_class(config_class(seed=seed, size=size, **config))
    return [
        {"answer": item["answer"], "metadata": item["metadata"]}
        for item in (dataset[index] for index in range(size))
    ]


def _pretend_package(name: str, folder: Path) -> None:
    module = types.ModuleType(name)
    module.__path__ = [str(folder)]
    sys.modules[name] = module


def main() -> None:
    """Read one request a line, ``[module, config, seed, size]``; print the items, one line each."""
    folder = Path(sys.argv[1])
    _pretend_package("reasoning_gym", folder)
    for name in _FOLDERS:
        _pretend_package(f"reasoning_gym.{name}", folder / name)
    for line in sys.stdin:
        print(json.dumps(list_items(*json.loads(line)), default=str))


if __name__ == "__main__":
    main()
