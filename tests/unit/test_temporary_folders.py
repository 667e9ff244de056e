"""Temporary folders go with their process, also if it is killed."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from verl_pipeline.temporary_folders import SOCKETS_PREFIX, make_temporary_folder
from verl_pipeline.verl_adapter.cpu.environment import SOCKETS, remove_sockets_folder

MAKER = """
import sys
from pathlib import Path
from verl_pipeline.temporary_folders import SOCKETS_PREFIX, make_temporary_folder
from verl_pipeline.verl_adapter.cpu.environment import SOCKETS, remove_sockets_folder
folder = make_temporary_folder("test-", Path(sys.argv[1]))
(folder / "file").write_text("")
print(folder, flush=True)
sys.stdin.readline()
"""
EVALUATION = """
from verl_pipeline.verl_adapter.cpu.environment import set_environment
set_environment()
print(__import__("os").environ["VLLM_RPC_BASE_PATH"], flush=True)
input()
"""


def start_maker(program, *arguments, **environment):
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "VLLM_RPC_BASE_PATH"}
        | environment,
    )
    return process, Path(process.stdout.readline().strip())


def end_maker(process, number=None):
    if number:
        process.send_signal(number)
    process.communicate("\n")


def test_the_next_process_removes_what_a_killed_one_has_left(tmp_path):
    (tmp_path / "test-of-an-earlier-version").mkdir()
    (tmp_path / "other").mkdir()
    killed, left = start_maker(MAKER, str(tmp_path))
    alive, used = start_maker(MAKER, str(tmp_path))
    assert left.is_dir() and used.is_dir()
    end_maker(killed, signal.SIGKILL)
    assert left.is_dir()
    ours = make_temporary_folder("test-", tmp_path)
    assert {*tmp_path.iterdir()} == {used, ours, tmp_path / "other"}
    assert (used / "file").exists()
    end_maker(alive)
    assert not used.exists()


def test_a_killed_run_on_cpus_leaves_no_folder_for_long(tmp_path):
    """vLLM's sockets: the path of a socket is limited, so the folder is in the system's."""
    base = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    try:
        killed, left = start_maker(EVALUATION, TMPDIR=str(base))
        end_maker(killed, signal.SIGKILL)
        assert left.parent == base and left.is_dir()
        process, used = start_maker(EVALUATION, TMPDIR=str(base))
        assert {*base.iterdir()} == {used}
        end_maker(process)
        assert not any(base.iterdir())
    finally:
        base.rmdir()


def test_without_locks_one_folder_is_made_and_none_removed(tmp_path, monkeypatch):
    def refuse(*_arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    (tmp_path / "test-of-another").mkdir()
    monkeypatch.setattr(fcntl, "flock", refuse)
    made = make_temporary_folder("test-", tmp_path)
    assert {*tmp_path.iterdir()} == {made, tmp_path / "test-of-another"}


def test_a_program_that_replaces_this_one_inherits_no_folder_of_ours(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    made = make_temporary_folder(SOCKETS_PREFIX)
    monkeypatch.setenv(SOCKETS, str(made))
    remove_sockets_folder()
    assert SOCKETS not in os.environ and list(tmp_path.iterdir()) == []
    monkeypatch.setenv(SOCKETS, str(tmp_path))  # the user's
    remove_sockets_folder()
    assert os.environ[SOCKETS] == str(tmp_path) and tmp_path.is_dir()
