"""Runs a command on a disk of its own that is full or read-only, and reports what it left there.

The disk is a tmpfs in user and mount namespaces of this process alone, so no privileges are needed.

    unshare --user --map-root-user --mount python -m tests.helpers.small_disk MODE FOLDER -- COMMAND
"""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.patience import scale_deadline

ROOT = Path(__file__).parents[2]
DISK_KIB = 256
# Free space of a full disk: room for a folder and the begin of a file.
FREE_KIB = 8


@dataclass(frozen=True)
class DiskRun:
    """A command on a small disk, with :func:`take_snapshot` of the disk before and after."""

    exit_code: int
    output: str
    before: dict[str, str]
    after: dict[str, str]


def take_snapshot(folder: Path) -> dict[str, str]:
    """Return kind and content of everything below ``folder``, by relative path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode):
            content = path.read_bytes().hex()
        else:
            content = os.readlink(path) if stat.S_ISLNK(mode) else ""
        found[str(path.relative_to(folder))] = f"{stat.S_IFMT(mode):o} {content}"
    return found


def run_on_disk(mode: str, folder: Path, *command: str) -> DiskRun:
    """Run a command while ``folder``, with its content, is on a small disk.

    Args:
        mode: ``full`` or ``read-only``.
    """
    namespaces = ["unshare", "--user", "--map-root-user", "--mount"]
    run = subprocess.run(
        [*namespaces, sys.executable, "-m", "tests.helpers.small_disk", mode, folder, *command],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "300"},
        capture_output=True,
        text=True,
        timeout=scale_deadline(200),
    )
    assert run.returncode == 0, run.stderr
    return DiskRun(**json.loads(run.stdout))


def _main(mode: str, folder: Path, command: list[str]) -> None:
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(folder, copy, symlinks=True, dirs_exist_ok=True)
        _mount(folder, f"size={DISK_KIB}k")
        shutil.copytree(copy, folder, symlinks=True, dirs_exist_ok=True)
    if mode == "read-only":
        _mount(folder, "remount,ro")
    else:
        disk = os.statvfs(folder)
        free = disk.f_bavail * disk.f_frsize
        (folder / "filler").write_bytes(bytes(max(0, free - FREE_KIB * 1024)))
    before = take_snapshot(folder)
    # As an ordinary user: the sandbox's tier rlimits refuses root.
    run = subprocess.run(
        ["unshare", "--user", "--map-user=1000", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    after = take_snapshot(folder)
    output = run.stdout.decode(errors="replace")
    json.dump(vars(DiskRun(run.returncode, output, before, after)), sys.stdout)


def _mount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "small_disk", folder], check=True)


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
