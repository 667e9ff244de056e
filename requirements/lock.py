"""Writes and checks the lock files: `make lock`, `make lock-check`.

What is locked is the dependency closure of pyproject.toml: its dependencies and the extra `cpu` in
cpu.lock, what the extra `dev` adds in dev.lock; less the packages in ABSENT and whatever only they
need. Run it with a Python of the version the locks are for, which has `packaging` (the project's
.venv has).
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

HERE = Path(__file__).resolve().parent
LOCKS = ("cpu", "dev")

# Required by somebody's metadata, needed by nothing that runs here.
ABSENT = {
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

Requires = Callable[[str], Iterable[str]]  # the Requires-Dist lines of a package


def roots() -> dict[str, list[Requirement]]:
    """What pyproject.toml asks for, by lock file."""
    with open(HERE.parent / "pyproject.toml", "rb") as file:
        pyproject = tomllib.load(file)
    project = pyproject["project"]
    extras = project["optional-dependencies"]
    lines = {
        "cpu": pyproject["build-system"]["requires"] + project["dependencies"] + extras["cpu"],
        "dev": extras["dev"],
    }
    return {lock: [Requirement(line) for line in lines[lock]] for lock in LOCKS}


def closure(
    wanted: Iterable[Requirement], requires: Requires
) -> dict[str, set[tuple[str, Requirement]]]:
    """All packages reached from `wanted`, without those in ABSENT: name -> who asks for it, and
    how.
    """
    asked: dict[str, set[tuple[str, Requirement]]] = {}
    todo = [("pyproject.toml", requirement) for requirement in wanted]
    walked = set()
    while todo:
        parent, requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name in ABSENT:
            continue
        asked.setdefault(name, set()).add((parent, requirement))
        for extra in {"", *requirement.extras}:
            if (name, extra) in walked:
                continue
            walked.add((name, extra))
            for line in requires(name):
                child = Requirement(line)
                if child.marker is None or child.marker.evaluate({"extra": extra}):
                    todo.append((name, child))
    return asked


def read() -> dict[str, dict[str, str]]:
    """The pins: lock -> name -> version."""
    pins: dict[str, dict[str, str]] = {}
    for lock in LOCKS:
        lines = [
            line
            for line in (HERE / f"{lock}.lock").read_text().splitlines()
            if line and not line.startswith("#")
        ]
        pins[lock] = {
            canonicalize_name(name): version
            for name, version in (line.split("==") for line in lines)
        }
    return pins


def write() -> None:
    """Let pip resolve pyproject.toml afresh and write both lock files."""
    wanted = roots()
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
            command + [str(requirement) for lock in LOCKS for requirement in wanted[lock]],
            check=True,
        )
        metadata = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    versions = {canonicalize_name(entry["name"]): Version(entry["version"]) for entry in metadata}
    lines = {canonicalize_name(entry["name"]): entry.get("requires_dist", []) for entry in metadata}
    done: set[str] = set()
    for lock in LOCKS:
        names = set(closure(wanted[lock], lines.__getitem__)) - done
        done |= names
        absent = "\n".join(f"#   {name}: {why}" for name, why in ABSENT.items())
        pins = "".join(f"{name}=={versions[name].public}\n" for name in sorted(names))
        (HERE / f"{lock}.lock").write_text(HEADER.format(title=TITLES[lock], absent=absent) + pins)
        print(f"requirements/{lock}.lock: {len(names)} packages")


def problems() -> list[str]:
    """What is wrong between pyproject.toml, the locks and what is installed in this Python; empty
    if nothing is.
    """
    pins = {name: version for names in read().values() for name, version in names.items()}
    found = []
    installed: dict[str, Version] = {}
    for name, version in pins.items():
        try:
            installed[name] = Version(importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name}=={version} is locked, but not installed")
            continue
        if installed[name].public != Version(version).public:
            found.append(f"{name}=={version} is locked, but {installed[name]} is installed")

    def requires(name: str) -> Iterable[str]:
        return (importlib.metadata.requires(name) or []) if name in installed else []

    asked = closure([requirement for group in roots().values() for requirement in group], requires)
    for name, askers in sorted(asked.items()):
        for parent, requirement in askers:
            if name not in pins:
                found.append(f"{parent} asks for {requirement}, which no lock pins")
            elif name in installed and not requirement.specifier.contains(
                installed[name], prereleases=True
            ):
                found.append(f"{parent} asks for {requirement}, but {installed[name]} is installed")
    found += [
        f"{name} is locked, but nothing asks for it" for name in sorted(pins.keys() - asked.keys())
    ]
    return found


def main() -> int:
    match sys.argv[1:]:
        case ["write"]:
            write()
            return 0
        case ["check"]:
            found = problems()
            print(
                "\n".join(found) or "the locks agree with pyproject.toml and with what is installed"
            )
            return 1 if found else 0
    print("usage: python requirements/lock.py write|check", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
