"""Segments that somebody maps are used; the others are not."""

import os
import subprocess
import sys
from pathlib import Path

import psutil

from verl_pipeline.shared_memory import find_mapped_segments, find_unused_segments

CHILD = """
import signal
from multiprocessing import resource_tracker, shared_memory
segment = shared_memory.SharedMemory(create=True, size=4096)
resource_tracker.unregister(segment._name, "shared_memory")
print(segment.name, flush=True)
signal.pause()
"""


def test_a_killed_process_leaves_an_unused_segment():
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True)
    path = Path("/dev/shm") / child.stdout.readline().strip()
    os.utime(path, (0, 0))
    try:
        assert find_mapped_segments(psutil.Process(child.pid)) == {path}
        assert path not in find_unused_segments()
        child.kill()
        child.wait()
        assert path in find_unused_segments()
        os.utime(path)  # as if it had just been made
        assert path not in find_unused_segments()
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
        path.unlink(missing_ok=True)
    assert path not in find_unused_segments()


def test_a_process_that_has_ended_maps_nothing():
    child = subprocess.Popen([sys.executable, "-c", ""])
    process = psutil.Process(child.pid)
    child.wait()
    assert find_mapped_segments(process) == set()
