"""What is left of a lost replica on its node: processes and shared memory."""

import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest

from tests.helpers.patience import wait_until
from verl_pipeline.run_end import note_processes
from verl_pipeline.shared_memory import find_mapped_segments
from verl_pipeline.verl_adapter.rollout import replica_end
from verl_pipeline.verl_adapter.rollout.replica_end import Footprint

MAP = "import mmap, sys, time; f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 0);"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(replica_end, "REST_S", 1.0)


@pytest.fixture
def segment():
    path = Path(f"/dev/shm/psm_{uuid.uuid4().hex[:8]}")
    path.write_bytes(bytes(4096))
    yield path
    path.unlink(missing_ok=True)


def start(segment, before=""):
    """A process that has mapped ``segment``."""
    process = subprocess.Popen([sys.executable, "-c", f"{before}{MAP}time.sleep(600)", segment])
    found = psutil.Process(process.pid)
    wait_until(lambda: segment in find_mapped_segments(found), 30, "the mapping")
    return process


def note(process):
    noted = note_processes([psutil.Process(process.pid)])
    return replica_end._make_footprint("this node", noted)


@pytest.mark.parametrize("before", ["", STUBBORN])
def test_processes_are_ended_and_their_memory_is_removed(segment, before):
    process = start(segment, before)
    replica_end._end_on_node([note(process)])
    assert process.wait(10) < 0
    assert not segment.exists()


def test_memory_of_one_that_was_killed_is_removed_too(segment):
    process = start(segment)
    footprint = note(process)
    process.kill()
    process.wait()
    replica_end._end_on_node([footprint])
    assert not segment.exists()


def test_another_process_with_the_same_id_is_left_alone(segment):
    process = start(segment)
    footprint = note(process)
    older = frozenset((pid, created - 1.0) for pid, created in footprint.processes)
    replica_end._end_on_node([Footprint(footprint.node, older, frozenset())])
    time.sleep(0.1)
    assert process.poll() is None and segment.exists()
    process.kill()
    process.wait()
