"""What all tests share: the environment of their processes, and who runs beside whom.

Invariants:
* No test reaches for a model hub, and every process imports this checkout.
* With several pytest workers, the tests of a file run on one of them, and so do all of ``e2e``:
  training runs and engines fill two cores, and each checks what is left in shared memory.
* Deadlines grow with the machine's load (``tests/helpers/patience.py``), those of whole tests too.
"""

import os
from pathlib import Path

import pytest
import pytest_timeout
from xdist.scheduler import LoadScopeScheduling

from tests.helpers.patience import scale_deadline
from verl_pipeline.fork_server.client import stop_server

pytest.register_assert_rewrite("tests.helpers.training_run")

ROOT = Path(__file__).parents[1]
E2E = "tests/e2e/"
# The tests' processes import `tests` and the packages of this checkout, whatever their folder is.
paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path for path in paths if path))
os.environ["HF_HUB_OFFLINE"] = "1"
# As runs on CPUs have it: with more, two processes on two cores wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# As runs on CPUs have it: at Ray's own 15, workers get no time beside other work.
os.environ.setdefault("RAY_worker_niceness", "0")
# As verl sets it for its workers; a fork server must have imported vLLM with the same.
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARN")


@pytest.fixture(scope="session", autouse=True)
def end_fork_server():
    """Ends the fork server that a test may have started."""
    yield
    stop_server()


class FilesByLoad(LoadScopeScheduling):
    """Units of work for ``--dist=loadscope``: a file, or all of ``tests/e2e``."""

    def _split_scope(self, nodeid):
        path = nodeid.split("::")[0]
        return E2E if path.startswith(E2E) else path


def pytest_xdist_make_scheduler(config, log):
    """Called by the process that hands out tests."""
    return FilesByLoad(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item, settings):
    """Scale the deadline of a test, which the timer would otherwise take as it is."""
    if settings.timeout:
        settings = settings._replace(timeout=scale_deadline(settings.timeout))
    return pytest_timeout.pytest_timeout_set_timer(item, settings)
