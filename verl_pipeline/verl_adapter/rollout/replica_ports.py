"""What the dispatcher knows of a replica: where requests go, and how it loads weights.

A port travels to the dispatcher's process, so it holds handles of actors only.

Invariant: a load neither aborts a request nor gives memory back.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from verl.workers.rollout.replica import RolloutReplica


class ReplicaPort(Protocol):
    """One replica."""

    name: str
    # What requests are sent to: has verl's ``generate.remote``.
    handle: Any

    async def load(self, version: int) -> None:
        """Load the published weights v_version, and return when requests meet them."""


def make_ports(
    replicas: Sequence[RolloutReplica], addresses: Sequence[str], mode: str
) -> list[ReplicaPort]:
    """The ports of a pool's replicas.

    Args:
        addresses: ``host:port`` of each.
        mode: ``rolling`` or ``in_flight``.
    """
    ports: list[ReplicaPort] = []
    for replica, address in zip(replicas, addresses, strict=True):
        # A replica class may stand for several replicas (emulated ones).
        make = getattr(replica, "make_ports", None)
        ports += make(address, mode) if make else [EnginePort.of(replica, address, mode)]
    return ports
