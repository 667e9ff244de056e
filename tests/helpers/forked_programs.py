"""Runs programs as forks of a fork server of the test's own, and plainly."""

import subprocess
import sys
from contextlib import contextmanager

from tests.helpers.patience import scale_deadline
from verl_pipeline.fork_server import client

# Imported by the server and by no program here: tells a fork from a plain Python.
MARK = "xml.dom.minidom"


@contextmanager
def own_server(modules):
    """A server of its own, whatever this process has started before."""
    before, client._running = client._running, None
    try:
        yield client.start_server(modules, {})
        client.stop_server()
    finally:
        client._running = before


def run(server, *arguments, forked, text="", **settings):
    program = str(server.launcher) if forked else sys.executable
    return subprocess.run(
        [program, *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=scale_deadline(60),
        **settings,
    )
