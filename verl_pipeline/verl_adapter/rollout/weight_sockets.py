"""The sockets over which weights go from a replica's workers to vLLM's, named after the run.

verl names them after Ray's job and the replica. The first job of every Ray cluster has the same
number, so that two runs on one machine, each with a Ray of its own, would take each other's weights
or wait for ever.

Invariants:
* Both sides form the name from the same two parts, verl's and the run's.
* Replicas of other engines, and of classes that others derive from vLLM's, keep verl's names.
"""

import os
from typing import Any

import ray
from verl.workers.rollout.replica import RolloutReplica

# What verl's server takes the job's part of the name from, in vLLM's worker processes.
JOB_VARIABLE = "VERL_RAY_JOB_ID"


def name_server_sockets(replica: RolloutReplica, run: str) -> None:
    """Let the servers that ``replica`` will start listen under names of the run.

    Args:
        run: unique among the runs of a machine.
    """
    if replica.config.name != "vllm":
        return
    # verl's, or ours below it: the plain class inside Ray's.
    found = replica.server_class.__ray_metadata__.modified_class

    class RunNamedServer(found):  # type: ignore[valid-type,misc]
        """The server, whose workers form their sockets' names with the run's."""

        def __init__(self, *args: Any, **kwargs: Any):
            super().__init__(*args, **kwargs)
            os.environ[JOB_VARIABLE] = add_run(os.environ[JOB_VARIABLE], run)

    # Ray shows processes under their class's name.
    RunNamedServer.__name__ = found.__name__
    replica.server_class = ray.remote(RunNamedServer)


def name_sender_sockets(replica: RolloutReplica, run: str) -> list[ray.ObjectRef]:
    """Let the workers of ``replica`` send weights to sockets of these names."""
    if replica.config.name != "vllm":
        return []
    return [worker.__ray_call__.remote(_rename_socket, run) for worker in replica.workers]


def add_run(job: str, run: str) -> str:
    """The part of a socket's name that stands for Ray's job in verl's."""
    return f"{job}-{run}"


def _rename_socket(worker: Any, run: str) -> None:
    """Runs in the process of a checkpoint engine's worker."""
    adapter = worker.server_adapter
    job = ray.get_runtime_context().get_job_id()
    adapter.zmq_handle = adapter.zmq_handle.replace(job, add_run(job, run), 1)
