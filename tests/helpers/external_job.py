"""A job on a Ray cluster that runs already, with what stands for an engine on each node.

``python -m tests.helpers.external_job ADDRESS FOLDER HOW``: ``HOW`` is "success", "error", or
"wait" until a signal comes. The job ends as ``verl_pipeline.main`` ends a run.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tests.helpers.external_engine import note
from verl_pipeline import main


class Server:
    """Has an engine, and a process that lost its parent."""

    def __init__(self, folder):
        note(folder, "server", os.getpid())
        command = [sys.executable, "-m", "tests.helpers.external_engine", str(folder)]
        self.engine = subprocess.Popen(command, start_new_session=True)
        orphan = subprocess.run(
            ["sh", "-c", "sleep 1000 > /dev/null 2>&1 & echo $!"],
            capture_output=True,
            text=True,
            # Ray gives no job's id to a worker that it started before there was a job.
            env=os.environ | {"RAY_JOB_ID": ray.get_runtime_context().get_job_id()},
        )
        note(folder, "orphan", int(orphan.stdout))

    def get_ready(self):
        """Answers once the server is there."""


class Runner:
    """Stands for the task runner: all other actors and the placement group belong to it."""

    def run(self, folder, how):
        """Start a server on each node."""
        note(folder, "runner", os.getpid())
        self.group = ray.util.placement_group([{"CPU": 1}])
        self.servers = [
            ray.remote(Server)
            .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
            .remote(folder)
            for node in ray.nodes()
        ]
        ray.get([server.get_ready.remote() for server in self.servers])
        while len(list(folder.glob("*.json"))) < 1 + 3 * len(self.servers):
            signal.sigtimedwait([], 0.05)
        (folder / "ready").touch()
        if how == "error":
            raise ValueError("the training failed")
        while how == "wait":
            signal.sigtimedwait([], 0.1)


def run_job(address: str, folder: Path, how: str) -> None:
    """As main.main, without a training."""
    ray.init(address=address, log_to_driver=False)
    main._handle_signals()
    runner = ray.remote(Runner).remote()
    try:
        ray.get(runner.run.remote(folder, how))
    except KeyboardInterrupt:
        sys.exit(main.EXIT_INTERRUPTED)
    finally:
        main._ignore_signals()
        main.end_run([runner])


if __name__ == "__main__":
    run_job(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
