"""What the fork server imports, and which variables decide about the result.

Invariant: a fork and a plain Python with the same environment have the same modules and variables.
"""

import contextlib
import gc
import importlib
import importlib.abc
import os
import sys
from collections.abc import Mapping
from typing import Any

# Read by modules while they are imported; a process that has another value must import for itself.
# Not among them: LD_PRELOAD and KMP_*, with which vLLM tunes its engine's memory allocator and the
# threads of OpenMP. A fork goes without: its results are the same, and it has one thread.
IMPORT_VARIABLES = {
    "PYTHONHASHSEED",
    "PYTHONPATH",
    "TORCH_LOGS",
    "VLLM_CONFIGURE_LOGGING",
    "VLLM_LOGGING_CONFIG_PATH",
    "VLLM_LOGGING_LEVEL",
    "VLLM_LOGGING_PREFIX",
    "VLLM_PLUGINS",
    "XDG_CACHE_HOME",
}
# All variables that begin so are read then, too.
IMPORT_PREFIXES = ("HF_", "HUGGINGFACE_", "MKL_", "OMP_", "OPENBLAS_", "TRANSFORMERS_")
# Variables that the imports have set; those of a plain Python would set them too.
set_by_imports: dict[str, str] = {}
# Variables that the imports have read.
imported_with: dict[str, str] = {}


def find_differing_variables(environment: Mapping[str, str]) -> list[str]:
    """Variables that modules would have read otherwise in this environment."""
    read = select_import_variables(environment)
    # A process that has imported the modules itself hands on what they have set.
    own = {k: v for k, v in read.items() if set_by_imports.get(k) != v}
    return sorted(
        k for k in own.keys() | imported_with.keys() if own.get(k) != imported_with.get(k)
    )


def select_import_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that modules read while they are imported."""
    return {
        name: value
        for name, value in environment.items()
        if name in IMPORT_VARIABLES or name.startswith(IMPORT_PREFIXES)
    }


class ExcludedPackage(BaseException):
    """An import has reached a package that forks must import for themselves.

    No Exception: a module that could do without the package must not settle for that.
    """


class ExclusionFinder(importlib.abc.MetaPathFinder):
    """Stops every import of some packages."""

    def __init__(self, packages: set[str]):
        self.packages = packages

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname in self.packages:
            raise ExcludedPackage(fullname)


def import_modules(names: list[str], excluded: set[str]) -> None:
    """Import what forks will need, as far as that needs no excluded package.

    A module that needs one is left out, but not the modules that it imported before that. A module
    that is missing here is missing in the forks as well.
    """
    before = dict(os.environ)
    imported_with.clear()
    imported_with.update(select_import_variables(before))
    finder = ExclusionFinder(excluded)
    sys.meta_path.insert(0, finder)
    for name in names:
        with contextlib.suppress(ImportError, ExcludedPackage):
            importlib.import_module(name)
    sys.meta_path.remove(finder)
    set_by_imports.update({k: v for k, v in os.environ.items() if k not in before})
    gc.collect()
    # Without it, the first collection in each fork would copy every page that holds an object.
    gc.freeze()
