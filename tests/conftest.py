"""What all tests share: the environment of the processes that they start.

Invariant: no test reaches for a model hub, and every process imports this checkout.
"""

import os
from pathlib import Path

import pytest

from verl_pipeline.fork_server.client import stop_server

ROOT = Path(__file__).parents[1]
# The tests' processes import `tests` and the packages of this checkout, whatever their folder is.
paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path for path in paths if path))
os.environ["HF_HUB_OFFLINE"] = "1"
# As runs on CPUs have it: with more, two processes on two cores wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# As verl sets it for its workers; a fork server must have imported vLLM with the same.
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARN")


@pytest.fixture(scope="session", autouse=True)
def end_fork_server():
    """Ends the fork server that a test may have started."""
    yield
    stop_server()
