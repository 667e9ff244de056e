"""Processes are pinned by their titles, with all their threads."""

import os
import subprocess
import sys

import psutil
import pytest

from benchmarks import pinning

# A process with a second thread that ends when its standard input closes.
CHILD = """
import sys, threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core")
@pytest.mark.parametrize(
    ("title", "core_index"),
    [("VLLM::Worker", 1), ("ray::WorkerDict.update", 0), ("ray::IDLE", None)],
)
def test_only_workers_of_both_pools_are_pinned(title, core_index):
    cores = sorted(os.sched_getaffinity(0))[:2]
    command = [title, "-c", CHILD]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, executable=sys.executable, **pipes) as child:
        assert child.stdout.readline() == "ready\n"
        before = os.sched_getaffinity(child.pid)
        pinning.pin_workers([psutil.Process(child.pid)], {cores[0]}, {cores[1]})
        expected = before if core_index is None else {cores[core_index]}
        tasks = os.listdir(f"/proc/{child.pid}/task")
        assert len(tasks) == 2
        assert all(os.sched_getaffinity(int(task)) == expected for task in tasks)
        child.stdin.close()
