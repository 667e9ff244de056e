"""Control groups exist where the judge may create them, and are removed with their worker."""

import os
import subprocess
import sys

import pytest

from verl_pipeline.sandbox import RunLimits, Sandbox, cgroup

pytestmark = pytest.mark.timeout(60)
FILLS_SOCKET_BUFFERS = """
import socket
kept = []
for _ in range(40):
    a, b = socket.socketpair()
    kept += [a, b]
    a.setblocking(False)
    try:
        while True:
            a.send(b'x' * 30000)
    except BlockingIOError:
        pass
print('full')
"""


@pytest.fixture
def worker():
    if not os.access(cgroup._find_parent_groups().get("memory", "/nowhere"), os.W_OK):
        pytest.skip("this user may not create control groups here")
    with Sandbox(1) as sandbox, sandbox.lend_worker() as started:
        yield started


def test_socket_buffers_count_and_the_limit_follows_the_problem(worker):
    folder = worker.cgroups.folders["memory"]
    before = int((folder / "memory.usage_in_bytes").read_text())
    with worker.load_program(FILLS_SOCKET_BUFFERS) as program:
        assert program.run(b"", RunLimits(cpu_s=2.0, memory_bytes=256 << 20)).stdout == b"full\n"
    assert int((folder / "memory.max_usage_in_bytes").read_text()) - before > 5 << 20
    assert int((folder / "memory.limit_in_bytes").read_text()) == (256 << 20) + cgroup.EXTRA_BYTES
    worker.close()
    assert not folder.exists()


def test_groups_of_a_killed_judge_are_removed(worker):
    parent = worker.cgroups.folders["memory"].parent
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    stale = parent / f"verl_pipeline_{ended.pid}_0"
    stale.mkdir()
    cgroup.WorkerCgroups(10).remove_groups()
    assert not stale.exists() and worker.cgroups.folders["memory"].exists()


def test_programs_run_without_control_groups(monkeypatch):
    monkeypatch.setattr(cgroup, "_find_parent_groups", dict)
    with (
        Sandbox(1) as sandbox,
        sandbox.lend_worker() as started,
        started.load_program("print(1)") as program,
    ):
        assert started.cgroups.folders == {} and program.run(b"", RunLimits()).stdout == b"1\n"
