"""The end of what a run started on the nodes of a Ray cluster that somebody else started.

Such a cluster outlives the run. Ray ends a job's actors when its driver leaves, but outright, and
an engine's shared memory would stay behind on each node.

Invariants:
* What is ended is an actor of this job, a process below one, or one that carries the job's id and
  its node's Ray in its environment, as Ray gives them to most workers and a worker to its children:
  no process of another job, also not of another cluster.
* Every wait has an end; what could not be ended in order is said, and left to Ray.
"""

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import psutil
import ray
from ray._private import state
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from verl_pipeline.run_end import RunEnd, remove_sockets
from verl_pipeline.trainer.deadlines import run_with_deadline

# For the nodes to start the process that ends the others.
START_S = 30.0
# For Ray to end a job's actors once the one that they belong to has been killed.
_GRACE_S = 2.0
_JOB, _RAYLET = "RAY_JOB_ID", "RAY_RAYLET_PID"


class NodeEnd:
    """An actor that ends the job's processes on its node, all but itself.

    Args:
        actors: process ids of the job's actors there.
    """

    def __init__(self, actors: Sequence[int]) -> None:
        job = ray.get_runtime_context().get_job_id()
        self._end = RunEnd(lambda: list_job_processes(job, actors))

    def end_engines(self, seconds: float) -> None:
        """As :meth:`RunEnd.end_engines`."""
        self._end.end_engines(seconds)

    def end_rest(self, seconds: float) -> None:
        """As :meth:`RunEnd.end_rest`, and the engines' sockets."""
        self._end.end_rest(_GRACE_S, seconds)
        remove_sockets()


def list_job_processes(job: str, actors: Sequence[int]) -> list[psutil.Process]:
    """Processes of a job on this node, all but this one.

    A worker that Ray started before there was a job carries none, so it is known by ``actors``.
    """
    raylet, found = os.environ[_RAYLET], set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # of another user, or it has ended
            environment = process.environ()
            if environment.get(_RAYLET) != raylet:
                continue
            if environment.get(_JOB) == job or process.pid in actors:
                found.update({process, *process.children(recursive=True)})
    found.discard(psutil.Process())
    return list(found)


def end_job(runners: Sequence[Any], seconds: float) -> None:
    """End this job's processes on all nodes; says on standard error what could not be ended.

    Args:
        runners: actors to which all others belong.
        seconds: the longest wait for processes to end, on top of :data:`START_S`.
    """
    try:
        run_with_deadline(
            lambda: _end_nodes(runners, seconds),
            START_S + seconds + _GRACE_S,
            "end of the run's processes on Ray's nodes",
            "Ray ends them when this command leaves; shared memory of their engines may stay "
            "behind in /dev/shm",
            watchdog=lambda: None,
            watch_every_s=seconds,
        )
    except Exception as error:
        print(f"warning: {error}", file=sys.stderr)


def _end_nodes(runners: Sequence[Any], seconds: float) -> None:
    job = ray.JobID(bytes.fromhex(ray.get_runtime_context().get_job_id()))
    actors: dict[str, list[int]] = {node["NodeID"]: [] for node in ray.nodes() if node["Alive"]}
    used = set()
    for actor in state.actors(job_id=job).values():
        node = actor["Address"]["NodeID"]
        used.add(node)
        if actor["State"] == "ALIVE" and node in actors:
            actors[node].append(actor["Pid"])
    enders = [
        ray.remote(NodeEnd)
        .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
        .remote(actors[node])
        for node in sorted(used & actors.keys())
    ]
    ray.get([ender.end_engines.remote(seconds / 3) for ender in enders])
    for runner in runners:
        ray.kill(runner)
    ray.get([ender.end_rest.remote(2 * seconds / 3) for ender in enders])
