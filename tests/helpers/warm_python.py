"""A Python that starts with everything imported, for tests that run commands.

Invariant: a command behaves as with a plain Python (``tests/unit/fork_server``); one whose
environment differs where imports would read it gets a plain Python.
"""

from verl_pipeline.fork_server.client import find_server
from verl_pipeline.testing.runs import warm_up_runs


def find_python() -> str:
    """The program to run Python command lines with; the first call begins to import."""
    warm_up_runs()
    server = find_server()
    assert server is not None, "it was started above"
    return str(server.launcher)
