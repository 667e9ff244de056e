"""What the fork server and its forks do when something is in the way."""

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psutil
import pytest

from tests.helpers.forked_programs import MARK, own_server, run
from tests.helpers.patience import scale_deadline
from verl_pipeline.fork_server import client, warm_imports
from verl_pipeline.fork_server.launcher import describe_process, read_number, send_request
from verl_pipeline.fork_server.server import Server


@pytest.fixture(scope="module")
def server():
    with own_server([MARK, "numpy", "multiprocessing.spawn"]) as running:
        yield running
    assert not psutil.pid_exists(running.process.pid) and not running.address.parent.exists()


def test_a_folder_without_programs_is_named(monkeypatch):
    monkeypatch.setattr(client.os, "access", lambda _path, _mode: False)
    with pytest.raises(PermissionError, match="noexec"), own_server([MARK]):
        pass


@contextmanager
def server_thread(address):
    """A server in a thread of this process, for requests that it refuses."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(address))
    listener.listen()
    reading, writing = os.pipe()
    with ThreadPoolExecutor() as executor:
        served = executor.submit(Server(listener, reading).serve)
        yield
        os.close(writing)
        assert served.result(scale_deadline(10)) is None
    listener.close()
    os.close(reading)


def test_the_server_goes_on_after_a_request_that_it_cannot_fulfil(tmp_path, monkeypatch, capfd):
    failures = []

    def fail():
        failures.append("fork")
        raise BlockingIOError("planted: no more processes")

    monkeypatch.setattr(os, "fork", fail)
    monkeypatch.setattr(
        warm_imports, "imported_with", warm_imports.select_import_variables(os.environ)
    )
    request = describe_process(["-c", "pass"], dict(os.environ))
    with server_thread(tmp_path / "socket"):
        for wrong in (request, {}, {**request, "environment": None}, request):
            connection = send_request(str(tmp_path / "socket"), wrong, [1], [1])
            assert read_number(connection) == 0
            connection.close()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(str(tmp_path / "socket"))
            connection.sendall((3).to_bytes(8, "big") + b"no.")
            assert connection.recv(2) == b"0\n"
    assert len(failures) == 2
    said = capfd.readouterr().err
    assert said.count("planted: no more processes") == 2 and "JSONDecodeError" in said


def test_a_fork_has_the_variables_that_imports_set_whoever_set_them(tmp_path, monkeypatch):
    (tmp_path / "sets_variable.py").write_text("import os; os.environ['MKL_PLANTED'] = 'set'")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ['PYTHONPATH']}")
    program = f"import os, sys; print(os.environ['MKL_PLANTED'], {MARK!r} in sys.modules)"
    with own_server([MARK, "numpy", "sets_variable"]) as server:
        for extra in ({}, {"MKL_PLANTED": "set"}):
            done = run(server, "-c", program, forked=True, env={**os.environ, **extra})
            assert done.stdout == "set True\n", done.stderr
        env = {**os.environ, "MKL_PLANTED": "other"}
        assert run(server, "-c", program, forked=True, env=env).stdout == "other False\n"


IN_A_FORK_OF_A_FORK = f"""
import os, sys
paths = [f"/proc/self/fd/{{number}}" for number in os.listdir("/proc/self/fd")]
held = [os.readlink(path) for path in paths if os.path.exists(path)]
print({MARK!r} in sys.modules, [name for name in held if name.endswith("lock")], flush=True)
"""
IN_A_FORK = f"""
import fcntl, os, tempfile
from pathlib import Path
from verl_pipeline.fork_server import client
from verl_pipeline.temporary_folders import remove_at_exit
folder = Path(tempfile.mkdtemp())
remove_at_exit(folder)
lock = open(folder / "lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
print("before")
server = client.start_server([], {{}})
process = client.ForkedProcess(server, ["-c", {IN_A_FORK_OF_A_FORK!r}],
                               environment=dict(os.environ), folder=folder, output=1)
print(process.wait(60), folder.exists(), flush=True)
client.stop_server()
"""


def test_a_server_within_a_fork_holds_nothing_of_its_owner(server):
    done = run(server, "-c", IN_A_FORK, forked=True)
    assert done.stdout.splitlines() == ["before", "True []", "0 True"], done.stderr


def test_a_fork_can_set_its_title():
    """The end of a run, and Ray's and vLLM's own tools, know processes by their titles."""
    program = (
        "import setproctitle; setproctitle.setproctitle('planted');"
        "print(open('/proc/self/comm').read().strip(), open('/proc/self/cmdline').read()[:7])"
    )
    with own_server([MARK, "numpy", "setproctitle"]) as server:
        assert run(server, "-c", program, forked=True).stdout == "planted planted\n"
