"""A replica starts while the run goes on: a lost one again on its devices, or one at a new place.

Invariants:
* It begins where the others are: it joins the dispatcher without weights, and loads the newest of
  what its node stores. A node that stores nothing yet does so from the next version on.
* One that has started again :data:`MOST_STARTS` times within :data:`RECENT_S` does not, nor one
  whose node is gone: for that there are new places.
* Who waits for a start has no part in it: it runs in a thread of its own.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup

from verl_pipeline.trainer.pipeline_config import OneOffPipelineConfig
from verl_pipeline.verl_adapter.rollout.replica_end import end_footprints, note_footprints
from verl_pipeline.verl_adapter.rollout.replica_growth import are_placed, remove_groups
from verl_pipeline.verl_adapter.rollout.replica_ports import make_port
from verl_pipeline.verl_adapter.weights.publication import WeightPublisher

MOST_STARTS, RECENT_S = 3, 3600.0
# For Ray to give the names of dead actors free, in seconds, and between two looks.
NAMES_S, POLL_S = 60.0, 0.5


class NoRestart(RuntimeError):
    """A replica cannot start again; the text is a clause."""


class DevicesGone(NoRestart):
    """Nor can it later, at this place."""


@dataclass(frozen=True)
class StartedReplica:
    """A replica that has started: verl's object, its address, and the dispatcher's port."""

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
        # By rank, when it has started again.
        self._starts: dict[int, list[float]] = defaultdict(list)

    def is_needed(self, worker: Any) -> bool:
        """Whether a replica's worker has to live on although the replica is lost."""
        return self._publisher.is_storing(worker)

    def start(self, rank: int, dead: Any) -> StartedReplica:
        """Start replica ``rank`` in the place of ``dead``, whose processes have ended.

        Raises:
            DevicesGone: the node of that place is gone.
            NoRestart: it cannot be.
            Exception: whatever the engine's start ended with.
        """
        now = time.monotonic()
        recent = sum(at > now - RECENT_S for at in self._starts[rank])
        groups = dead.resource_pool.pgs
        if is_gone := not are_placed(groups):
            remove_groups(groups)
        elif recent >= MOST_STARTS:
            raise NoRestart(f"it has started again {recent} times within {RECENT_S / 60:g} minutes")
        # Its successor takes their names, here or at a new place.
        _wait_for_ends([*dead.servers, *dead.workers], self._publisher.is_storing)
        if is_gone:
            raise DevicesGone("its devices are gone, with their node")
        return self._launch(rank)

    def start_at(self, rank: int, groups: list[PlacementGroup]) -> StartedReplica:
        """Start replica ``rank``, which is new or whose place is gone, in these groups.

        Raises:
            Exception: whatever the engine's start ended with.
        """
        self._manager.place_replica(rank, groups)
        return self._launch(rank)

    def wait_for_weights(self, started: StartedReplica, is_over: Callable[[], bool]) -> int | None:
        """Wait until its nodes store weights: for the next version, if one has none yet.

        Returns:
            The first version that it can load; None if the run is over before.

        Raises:
            WeightSyncError: a node of it stores no weights any more.
        """
        while not is_over():
            first = self._publisher.find_first_version(started.replica.workers)
            if first is not None:
                return first
            time.sleep(POLL_S)
        return None

    def _launch(self, rank: int) -> StartedReplica:
        self._starts[rank].append(time.monotonic())
        replica = self._manager.make_replica(rank, len(self._starts[rank]))
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
