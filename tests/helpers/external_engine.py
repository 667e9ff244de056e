"""Stands for an engine of a job: ``python -m tests.helpers.external_engine FOLDER``.

It notes its process and its shared memory in the folder, and on SIGTERM that it has ended in order;
with a file :data:`STUBBORN` in the folder it goes on.
"""

import json
import os
import signal
import sys
from multiprocessing import resource_tracker, shared_memory
from pathlib import Path

STUBBORN = "stubborn"


def run_engine(folder: Path) -> None:
    """Hold shared memory until SIGTERM."""
    segment = shared_memory.SharedMemory(create=True, size=4096)
    resource_tracker.unregister(f"/{segment.name}", "shared_memory")
    Path("/proc/self/comm").write_text("VLLM::EngineCore")

    def end(_number, _frame):
        if (folder / STUBBORN).exists():
            return
        segment.close()
        segment.unlink()
        (folder / f"{os.getpid()}.ended").touch()
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    note(folder, "engine", os.getpid(), f"/dev/shm/{segment.name}")
    while True:
        signal.pause()


def note(folder, role, pid, segment=None):
    """Written at once: the test reads it while it is there."""
    path = folder / f"{pid}.part"
    path.write_text(json.dumps({"role": role, "pid": pid, "segment": segment}))
    path.rename(folder / f"{pid}.json")


if __name__ == "__main__":
    run_engine(Path(sys.argv[1]))
