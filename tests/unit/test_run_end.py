"""What a run's end removes from the temporary folder: its engines' sockets, and nothing else."""

import socket
import tempfile
from pathlib import Path

import pytest

from verl_pipeline import run_end
from verl_pipeline.leftovers import SOCKET_FOLDER

NAMES = ["1b4e28ba-2fa1-4d31-8c5e-0242ac120002", "rl-colocate-zmq-0-1.sock"]


def bind(path):
    """A socket without a listener, once it is closed."""
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(path))
    return bound


@pytest.fixture
def folder(monkeypatch):
    # pytest's folders are too long for a socket's name, which may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="s") as name:
        monkeypatch.setattr("tempfile.tempdir", name)
        yield Path(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_socket_without_a_listener_is_removed(folder, name):
    bound = bind(folder / name)
    run_end.remove_sockets()
    assert (folder / name).exists()
    bound.close()
    run_end.remove_sockets()
    assert not (folder / name).exists()


def test_verls_sockets_lie_in_one_folder_whatever_the_temporary_one_is(folder):
    path = SOCKET_FOLDER / f"rl-colocate-zmq-test-{folder.name}.sock"
    bind(path).close()
    run_end.remove_sockets()
    assert not path.exists()


def test_what_is_no_engines_socket_stays(folder):
    bind(folder / "other.sock").close()
    (folder / NAMES[0]).write_text("a file of that name")
    (folder / NAMES[1]).mkdir()
    run_end.remove_sockets()
    assert {path.name for path in folder.iterdir()} == {"other.sock", *NAMES}
