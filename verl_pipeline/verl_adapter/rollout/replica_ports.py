"""What the dispatcher knows of a replica: where requests go, and how it loads weights.

A port travels to the dispatcher's process, so it holds handles of actors only.

Invariant: a load neither aborts a request nor gives memory back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from verl.workers.rollout.replica import RolloutReplica


class ReplicaPort(Protocol):
    """One replica."""

    name: str
    # What requests are sent to: has verl's ``generate.remote``.
    handle: Any

    async def load(self, version: int) -> None:
        """Load the published weights v_version, and return when requests meet them."""


@dataclass(frozen=True)
class EnginePort:
    """A replica of a real engine.

    Attributes:
        servers: its servers, one a node; requests go to the first.
        workers: verl's checkpoint engine workers beside the engine's.
        keep_kv: what a load in flight does with the KV cache of running requests; None: nothing
            runs while it loads.
    """

    name: str
    handle: Any
    servers: tuple[Any, ...]
    workers: tuple[Any, ...]
    keep_kv: bool | None

    async def load(self, version: int) -> None:
        """See :class:`ReplicaPort`."""
        if self.keep_kv is None:
            await load_weights(self.servers, self.workers, version)
            return
        await asyncio.gather(*[server.freeze.remote(self.keep_kv) for server in self.servers])
        await load_weights(self.servers, self.workers, version)
        await asyncio.gather(*[server.thaw.remote(version) for server in self.servers])


def make_ports(
    replicas: Sequence[RolloutReplica],
    addresses: Sequence[str],
    handles: Sequence[Any],
    settings: OneOffPipelineConfig,
) -> list[ReplicaPort]:
    """The ports of a pool's replicas.

    Args:
        addresses: ``host:port`` of each.
        handles: what requests of each are sent to.
    """
    freezes = settings.weight_sync_mode == IN_FLIGHT
    keep_kv = settings.kv == "keep" if freezes else None
    ports: list[ReplicaPort] = []
    for replica, address, handle in zip(replicas, addresses, handles, strict=True):
        # A replica class may stand for several replicas (emulated ones).
        if (make := getattr(replica, "make_ports", None)) is not None:
            ports += make(address)
        else:
            actors = tuple(replica.servers), tuple(replica.workers)
            ports.append(EnginePort(address, handle, *actors, keep_kv))
    return ports
