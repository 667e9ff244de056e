"""Writes and checks the lock files: ``make lock`` and ``make lock-check``.

The locks hold all packages that pyproject.toml requires, directly or indirectly, except those in
:data:`EXCLUDED_PACKAGES` and whatever only they require. cpu.lock holds the dependencies and the
extra ``cpu``; dev.lock holds what the extra ``dev`` adds. Run it with the Python version that the
locks are for; it needs the package ``packaging``, which the project's .venv has.
"""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

FOLDER = Path(__file__).resolve().parent
LOCK_NAMES = ("cpu", "dev")

# Packages that some metadata requires but nothing here needs, with the reason that the locks state.
EXCLUDED_PACKAGES = {
    "torchvision": (
        "the package index has a CUDA build only; beside the CPU torch it breaks `import "
        "transformers`"
    ),
    "torchaudio": "as torchvision; nothing here handles sound",
    "torchcodec": "as torchvision; nothing here handles video",
    "triton": "a compiler for GPUs, 0.9 GB; xgrammar imports it for its GPU kernel only",
    "fastapi-cloud-cli": (
        "the command line of a hosting service; FastAPI has the same extra without it"
    ),
    "fastar": "as fastapi-cloud-cli",
    "cwevals": "the client of an evaluation service; wandb never imports it",
}

# Changing this text, a title or a reason above changes the lock files.
HEADER = """\
# {title}
#
# Made by `make lock` (requirements/lock.py) from pyproject.toml; do not edit. For CPython 3.11 on
# Linux x86-64. `make lock` lets pip resolve today's releases (a dry run: it downloads about 1 GB
# and installs nothing), drops the packages below and rewrites cpu.lock and dev.lock. Then: `make
# venv lock-check test-all`.
#
# Install with --no-deps, for these are left out on purpose though some package asks for them:
{absent}
#
# torch must be the CPU build. The pin matches its version too (+cpu), and pip prefers that one
# wherever it sees it: in the PyTorch project's CPU wheel index (give it to pip with
# PIP_EXTRA_INDEX_URL) or a folder (PIP_FIND_LINKS).
"""
TITLES = {
    "cpu": "Everything a run on the CPU needs: pip install --no-deps -r requirements/cpu.lock",
    "dev": (
        "What the tests and checks need on top of cpu.lock: "
        "pip install --no-deps -r requirements/cpu.lock -r requirements/dev.lock"
    ),
}

# Returns the Requires-Dist lines of a package.
ReadRequirements = Callable[[str], Iterable[str]]
# For each package, who requires it, and with which requirement.
Dependents = dict[str, set[tuple[str, Requirement]]]


def read_roots() -> dict[str, list[Requirement]]:
    """Return the requirements in pyproject.toml by lock."""
    with open(FOLDER.parent / "pyproject.toml", "rb") as file:
        pyproject = tomllib.load(file)
    project = pyproject["project"]
    extras = project["optional-dependencies"]
    lines = {
        "cpu": pyproject["build-system"]["requires"] + project["dependencies"] + extras["cpu"],
        "dev": extras["dev"],
    }
    return {lock: [Requirement(line) for line in lines[lock]] for lock in LOCK_NAMES}


def compute_closure(
    roots: Iterable[Requirement], read_requirements: ReadRequirements
) -> Dependents:
    """Return all packages that ``roots`` require, directly or indirectly.

    :data:`EXCLUDED_PACKAGES` are left out.
    """
    dependents: Dependents = {}
    pending = [("pyproject.toml", requirement) for requirement in roots]
    visited = set()
    while pending:
        parent, requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        if name in EXCLUDED_PACKAGES:
            continue
        dependents.setdefault(name, set()).add((parent, requirement))
        for extra in {"", *requirement.extras}:
            if (name, extra) in visited:
                continue
            visited.add((name, extra))
            for line in read_requirements(name):
                child = Requirement(line)
                if child.marker is None or child.marker.evaluate({"extra": extra}):
                    pending.append((name, child))
    return dependents


def read_locks() -> dict[str, dict[str, str]]:
    """Return the locked version of each package, by lock and package."""
    pins: dict[str, dict[str, str]] = {}
    for lock in LOCK_NAMES:
        lines = [
            line
            for line in (FOLDER / f"{lock}.lock").read_text().splitlines()
            if line and not line.startswith("#")
        ]
        pins[lock] = {
            canonicalize_name(name): version
            for name, version in (line.split("==") for line in lines)
        }
    return pins


def write_locks() -> None:
    """Let pip resolve pyproject.toml from scratch, and write both lock files."""
    roots = read_roots()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--dry-run",
            "--ignore-installed",
            "--report",
            str(report),
        ]
        subprocess.run(
            command + [str(requirement) for lock in LOCK_NAMES for requirement in roots[lock]],
            check=True,
        )
        metadata = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    versions = {canonicalize_name(entry["name"]): Version(entry["version"]) for entry in metadata}
    requirements = {
        canonicalize_name(entry["name"]): entry.get("requires_dist", []) for entry in metadata
    }
    locked_names: set[str] = set()
    for lock in LOCK_NAMES:
        names = set(compute_closure(roots[lock], requirements.__getitem__)) - locked_names
        locked_names |= names
        absent = "\n".join(f"#   {name}: {why}" for name, why in EXCLUDED_PACKAGES.items())
        pins = "".join(f"{name}=={versions[name].public}\n" for name in sorted(names))
        header = HEADER.format(title=TITLES[lock], absent=absent)
        (FOLDER / f"{lock}.lock").write_text(header + pins)
        print(f"requirements/{lock}.lock: {len(names)} packages")


def find_problems() -> list[str]:
    """Compare pyproject.toml, the locks and the packages installed in this Python.

    Returns:
        A message for each contradiction.
    """
    pins = {name: version for names in read_locks().values() for name, version in names.items()}
    problems = []
    installed: dict[str, Version] = {}
    for name, version in pins.items():
        try:
            installed[name] = Version(importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            problems.append(f"{name}=={version} is locked, but not installed")
            continue
        if installed[name].public != Version(version).public:
            problems.append(f"{name}=={version} is locked, but {installed[name]} is installed")

    def read_requirements(name: str) -> Iterable[str]:
        return (importlib.metadata.requires(name) or []) if name in installed else []

    roots = [requirement for group in read_roots().values() for requirement in group]
    dependents = compute_closure(roots, read_requirements)
    for name, parents in sorted(dependents.items()):
        for parent, requirement in parents:
            if name not in pins:
                problems.append(f"{parent} requires {requirement}, but no lock pins it")
            elif name in installed and not requirement.specifier.contains(
                installed[name], prereleases=True
            ):
                problems.append(
                    f"{parent} requires {requirement}, but {installed[name]} is installed"
                )
    problems += [
        f"{name} is locked, but nothing requires it"
        for name in sorted(pins.keys() - dependents.keys())
    ]
    return problems


def main() -> int:
    """Run the command line, and return its exit code."""
    match sys.argv[1:]:
        case ["write"]:
            write_locks()
            return 0
        case ["check"]:
            problems = find_problems()
            print(
                "\n".join(problems)
                or "the locks agree with pyproject.toml and with the installed packages"
            )
            return 1 if problems else 0
    print("usage: python requirements/lock.py write|check", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
