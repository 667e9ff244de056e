"""What a sandbox has on this machine: its worker processes, their descendants, and files."""

from pathlib import Path

import psutil

from verl_pipeline.sandbox import RunLimits, Sandbox
from verl_pipeline.sandbox.sandbox_worker import SandboxWorker


def list_worker_pids(sandbox: Sandbox) -> set[int]:
    """Return the process ids of all workers of a sandbox of one or two.

    Starts workers and supervisors that are not running yet, so that later calls find the same
    processes.
    """
    with sandbox.lend_worker() as worker:
        _start_supervisors(worker)
        if sandbox.workers == 1:
            return {worker.pid}
        with sandbox.lend_worker() as other:
            _start_supervisors(other)
            return {worker.pid, other.pid}


def list_descendants(pids: set[int]) -> set[int]:
    """Return the process ids below ``pids``, which no namespace hides here."""
    return {child.pid for pid in pids for child in psutil.Process(pid).children(recursive=True)}


def list_left_files() -> set[Path]:
    """Return files that a program or a sandbox may have left, by their names.

    Other processes use the same folders, so unknown names do not count.
    """
    folders = (Path(folder) for folder in ("/tmp", "/dev/shm", "/var/tmp", "/run"))
    paths = (path for folder in folders if folder.is_dir() for path in folder.iterdir())
    return {
        path
        for path in paths
        if "attacker" in path.name or path.name.startswith("verl_pipeline_scratch_")
    }


def _start_supervisors(worker: SandboxWorker) -> None:
    """Start one supervisor for programs and one for the tests that call them."""
    with worker.load_program("pass") as program, worker.load_program("pass") as tests:
        for loaded in (program, tests):
            assert loaded.run(b"", RunLimits()).exit_code == 0
