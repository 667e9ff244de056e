"""A lost replica starts again: on its devices, from the weights that the node stores.

Invariants:
* It begins where the others are: it joins the dispatcher without weights, and loads the newest.
* A replica on a node that is gone does not start, nor one that has started :data:`MOST_STARTS`
  times again.
* Who waits for a restart has no part in it: it runs in a thread of its own.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import ray
from ray.util import placement_group_table

from verl_pipeline.trainer.pipeline_config import OneOffPipelineConfig
from verl_pipeline.verl_adapter.rollout.replica_end import end_footprints, note_footprints
from verl_pipeline.verl_adapter.rollout.replica_ports import make_port
from verl_pipeline.verl_adapter.weights.publication import WeightPublisher

MOST_STARTS = 3
# For Ray to give the names of dead actors free, in seconds, and between two looks.
NAMES_S, POLL_S = 60.0, 0.5


class NoRestart(RuntimeError):
    """A replica cannot start again; the text is a clause."""


@dataclass(frozen=True)
class StartedReplica:
    """A replica that has started again: verl's object, its address, and the dispatcher's port."""

    replica: Any
    address: str
    port: Any


class ReplicaRestart:
    """Starts replicas again.

    Args:
        manager: which started them first (:class:`.rollout_servers.PlacedServerManager`).
        publisher: of the weights, whose nodes the replica loads from.
        settings: ours.
    """

    def __init__(self, manager: Any, publisher: WeightPublisher, settings: OneOffPipelineConfig):
        self._manager, self._publisher, self._settings = manager, publisher, settings
        self._starts: dict[int, int] = {}

    def start(self, rank: int, dead: Any) -> StartedReplica:
        """Start replica ``rank`` in the place of ``dead``, whose processes have ended.

        Raises:
            NoRestart: it cannot be.
            Exception: whatever the engine's start ended with.
        """
        number = self._starts.get(rank, 0)
        if number >= MOST_STARTS:
            raise NoRestart(f"it has started again {number} times")
        self._starts[rank] = number + 1
        groups = dead.resource_pool.pgs
        if any(placement_group_table(group)["state"] != "CREATED" for group in groups):
            raise NoRestart("its devices are gone, with their node")
        _wait_for_ends([*dead.servers, *dead.workers], self._publisher.is_storing)
        replica = self._manager.make_replica(rank, number + 1)
        deadlines = self._settings.deadlines
        try:
            asyncio.run(asyncio.wait_for(replica.init_standalone(), deadlines.start_s))
            address = replica.server_address
            self._publisher.add_workers(replica.workers, f"rollout replica {rank} at {address}")
        except BaseException:
            started = [*replica.servers, *replica.workers]
            end_footprints(note_footprints(started, deadlines.health_check_s))
            raise
        port = make_port(self._manager, self._settings, rank, replica, address)
        return StartedReplica(replica, address, port)


def _wait_for_ends(actors: list[Any], lives_on: Any) -> None:
    """Names of actors that live on are not those that the new ones take."""
    deadline = time.monotonic() + NAMES_S
    left = [actor for actor in actors if not lives_on(actor)]
    while left:
        for actor in list(left):
            try:
                ray.get(actor.__ray_ready__.remote(), timeout=POLL_S)
            except (ray.exceptions.ActorUnavailableError, ray.exceptions.GetTimeoutError):
                continue
            except ray.exceptions.RayActorError:
                # This process, which started the actor, would go on to take its name for given.
                ray.kill(actor)
                left.remove(actor)
        if left and time.monotonic() > deadline:
            raise NoRestart(f"{len(left)} of its processes have not ended after {NAMES_S:g} s")
        time.sleep(POLL_S if left else 0.0)
