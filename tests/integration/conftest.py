"""Real runs: Ray, vLLM, FSDP2 and TransferQueue on a tiny model. Each run takes one to three minutes on two cores."""

import glob
import os
from pathlib import Path

import pytest

from verl_pipeline.testing import equivalence, runs


def leftovers() -> set[str]:
    """Shared memory and temporary files that runs could leave (Ray's own session folder aside)."""
    patterns = ("/dev/shm/psm_*", "/dev/shm/verl_weights_*", "/dev/shm/sem.mp-*", "/tmp/rl-colocate-zmq-*", "/tmp/tmp*")
    return {path for pattern in patterns for path in glob.glob(pattern)}


def check_clean(run: runs.Run, before: set[str]) -> None:
    """No process, shared memory or temporary file of the run is left."""
    assert run.survivors == []
    assert leftovers() - before == set()


def tail(run: runs.Run) -> str:
    """The end of a run's output, for assertion messages."""
    return run.output[-6000:]


@pytest.fixture(scope="session")
def runs_directory(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def sync_run(runs_directory):
    """verl's own sync trainer, seeded; what ours is compared with."""
    return equivalence.run(runs_directory, "sync")


@pytest.fixture
def tests_on_path(monkeypatch):
    """Lets Ray's workers import ``tests``."""
    root = str(Path(__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", root + os.pathsep + os.environ.get("PYTHONPATH", ""))
