"""What the dispatcher knows of a replica: where requests go, and how it loads weights.

A port travels to the dispatcher's process, so it holds handles of actors only.

Invariant: a load neither aborts a request nor gives memory back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from verl.workers.rollout.llm_server import LLMServerManager
from verl.workers.rollout.replica import RolloutReplica

from verl_pipeline.trainer.pipeline_config import Deadlines, OneOffPipelineConfig
from verl_pipeline.trainer.schedule import IN_FLIGHT
from verl_pipeline.verl_adapter.weights.replica_reading import ReadingRequest
from verl_pipeline.verl_adapter.weights.weight_loading import (
    ReplicaActors,
    load_weights,
    make_replica_actors,
)
from verl_pipeline.weight_sync.comparison import RankReading


class ReplicaPort(Protocol):
    """One replica."""

    @property
    def address(self) -> str:
        """Its name at the dispatcher."""

    @property
    def handle(self) -> Any:
        """What requests are sent to: has verl's ``generate.remote``."""

    async def load(self, version: int, request: ReadingRequest | None) -> list[RankReading]:
        """Load the published weights v_version, and return when requests meet them.

        Args:
            request: what to read of the replica then.

        Returns:
            The readings of its ranks, if there is a ``request``.
        """


@dataclass(frozen=True)
class EnginePort:
    """A replica of a real engine.

    Attributes:
        handle: the server that takes requests.
        keep_kv: see :func:`~..weights.weight_loading.load_weights`.
    """

    actors: ReplicaActors
    handle: Any
    deadlines: Deadlines
    keep_kv: bool | None

    @property
    def address(self) -> str:
        """See :class:`ReplicaPort`."""
        return self.actors.address

    async def load(self, version: int, request: ReadingRequest | None) -> list[RankReading]:
        """See :class:`ReplicaPort`."""
        return await load_weights(self.actors, version, self.deadlines, request, self.keep_kv)


def make_ports(manager: LLMServerManager, settings: OneOffPipelineConfig) -> Sequence[ReplicaPort]:
    """The ports of a pool's replicas, which have started."""
    replicas = zip(manager.get_replicas(), manager.get_addresses(), strict=True)
    ports: list[ReplicaPort] = []
    for rank, (replica, address) in enumerate(replicas):
        # A replica class may stand for several replicas (emulated ones).
        if (make := getattr(replica, "make_ports", None)) is not None:
            ports += make(address)
        else:
            ports.append(make_port(manager, settings, rank, replica, address))
    return ports


def make_port(
    manager: LLMServerManager,
    settings: OneOffPipelineConfig,
    rank: int,
    replica: RolloutReplica,
    address: str,
) -> ReplicaPort:
    """The port of one replica of a real engine, which has started."""
    freezes = settings.weight_sync_mode == IN_FLIGHT
    keep_kv = settings.kv == "keep" if freezes else None
    actors = make_replica_actors(str(manager.rollout_config.name), rank, replica, address)
    return EnginePort(actors, replica.server_handle, settings.deadlines, keep_kv)
