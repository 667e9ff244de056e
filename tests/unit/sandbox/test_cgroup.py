"""Control groups: there where the judge may make them, and gone with their worker."""

import os
import subprocess
import sys

import pytest

from verl_pipeline.sandbox import Limits, Sandbox, cgroup

pytestmark = pytest.mark.timeout(60)
SOCKETS = (
    "import socket\nkept = []\nfor _ in range(40):\n    a, b = socket.socketpair()\n    kept += [a,"
    " b]\n    a.setblocking(False)\n    try:\n        while True:\n            a.send(b'x' * "
    "30000)\n    except BlockingIOError:\n        pass\nprint('full')"
)


@pytest.fixture
def worker():
    if not os.access(cgroup._homes().get("memory", "/nowhere"), os.W_OK):
        pytest.skip("this user may make no control groups here")
    with Sandbox(1) as sandbox, sandbox.worker() as made:
        yield made


def test_socket_buffers_count_and_the_limit_follows_the_problem(worker):
    folder = worker.groups._folders["memory"]
    before = int((folder / "memory.usage_in_bytes").read_text())
    with worker.program(SOCKETS) as program:
        assert program.run(b"", Limits(cpu_s=2.0, memory_bytes=256 << 20)).stdout == b"full\n"
    assert int((folder / "memory.max_usage_in_bytes").read_text()) - before > 5 << 20
    assert int((folder / "memory.limit_in_bytes").read_text()) == (256 << 20) + cgroup.BESIDE_BYTES
    worker.close()
    assert not folder.exists()


def test_what_a_killed_judge_left_is_removed(worker):
    home = worker.groups._folders["memory"].parent
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = home / f"verl_pipeline_{ended.pid}_0"
    left.mkdir()
    cgroup.Groups(10).remove()
    assert not left.exists() and worker.groups._folders["memory"].exists()


def test_without_any_nothing_is_missing(monkeypatch):
    monkeypatch.setattr(cgroup, "_homes", dict)
    with Sandbox(1) as sandbox, sandbox.worker() as made, made.program("print(1)") as program:
        assert made.groups._folders == {} and program.run(b"", Limits()).stdout == b"1\n"
