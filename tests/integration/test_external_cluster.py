"""What a run leaves on a Ray cluster that somebody else started: what is others', and no more."""

import contextlib
import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.helpers import external_engine, external_job
from tests.helpers.fake_cluster import connect
from tests.helpers.patience import scale_deadline, wait_until
from verl_pipeline.processes import has_ended
from verl_pipeline.verl_adapter.placement.ray_cluster import read_nodes

pytestmark = pytest.mark.timeout(300)


@dataclass
class Job:
    """A driver and the processes that its actors noted."""

    driver: subprocess.Popen
    folder: Path
    processes: dict[str, list[psutil.Process]]
    segments: list[Path]

    def count_ended(self):
        """Engines that ended in order."""
        return len(list(self.folder.glob("*.ended")))

    def is_alive(self):
        below = [process for processes in self.processes.values() for process in processes]
        is_intact = all(path.exists() for path in self.segments)
        return self.driver.poll() is None and is_intact and not any(map(has_ended, below))


@contextlib.contextmanager
def start_job(cluster, folder, how, files=()):
    """A job of :mod:`tests.helpers.external_job` with all of its processes."""
    folder.mkdir()
    for name in files:
        (folder / name).touch()
    command = [sys.executable, "-m", external_job.__name__, cluster.address, str(folder), how]
    with open(folder / "output.log", "w") as output:
        driver = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    job = Job(driver, folder, {}, [])
    try:
        wait_until(
            lambda: (folder / "ready").exists() or driver.poll() is not None, 120, "the job's start"
        )
        for path in folder.glob("*.json"):
            noted = json.loads(path.read_text())
            # The job may have ended by now.
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(noted["pid"])
                job.processes.setdefault(noted["role"], []).append(process)
            if noted["segment"]:
                job.segments.append(Path(noted["segment"]))
        yield job
    finally:
        driver.kill()
        driver.wait()
        for process in [each for processes in job.processes.values() for each in processes]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for path in job.segments:
            path.unlink(missing_ok=True)


def check_ended(job, status, in_order):
    """Nothing of the job is left; so many engines have ended in order."""
    assert job.driver.wait(scale_deadline(90)) == status, (job.folder / "output.log").read_text()
    assert len(job.segments) == 2
    assert [path for path in job.segments if path.exists()] == []
    assert job.count_ended() == in_order
    below = [process for processes in job.processes.values() for process in processes]
    wait_until(lambda: all(map(has_ended, below)), 20, "the job's processes to end")
    assert "warning" not in (job.folder / "output.log").read_text()


@pytest.mark.slow
def test_an_interrupted_job_ends_what_it_started_and_nothing_else(tmp_path):
    with connect((4, 0), (4, 0)) as cluster:
        everything = read_nodes("GPU")
        with (
            start_job(cluster, tmp_path / "other", "wait") as other,
            start_job(cluster, tmp_path / "job", "wait") as job,
        ):
            assert {role: len(found) for role, found in job.processes.items()} == {
                "runner": 1,
                "server": 2,
                "engine": 2,
                "orphan": 2,
            }
            job.driver.send_signal(signal.SIGINT)
            check_ended(job, 130, in_order=2)
            assert other.is_alive()
            other.driver.send_signal(signal.SIGTERM)
            check_ended(other, 130, in_order=2)
        wait_until(lambda: read_nodes("GPU", free=True) == everything, 60, "all slots to be free")


@pytest.mark.slow
@pytest.mark.parametrize(("how", "status"), [("success", 0), ("error", 1)])
def test_a_job_that_ends_by_itself_leaves_nothing(tmp_path, how, status):
    with (
        connect((4, 0), (4, 0)) as cluster,
        start_job(cluster, tmp_path / "other", "wait") as other,
        start_job(cluster, tmp_path / "job", how) as job,
    ):
        check_ended(job, status, in_order=2)
        assert other.is_alive()


@pytest.mark.slow
def test_shared_memory_of_an_engine_that_does_not_end_is_removed(tmp_path):
    with (
        connect((4, 0), (4, 0)) as cluster,
        start_job(cluster, tmp_path / "job", "wait", [external_engine.STUBBORN]) as job,
    ):
        job.driver.send_signal(signal.SIGTERM)
        check_ended(job, 130, in_order=0)
