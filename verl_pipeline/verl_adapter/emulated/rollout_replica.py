"""verl's rollout replica whose server is :class:`~.rollout_server.EmulatedServer`.

verl starts as many of these as the processes of the pool allow, which is one: it stands for all of
the emulated replicas.
"""

from dataclasses import dataclass
from typing import Any

import ray
from verl.workers.rollout.replica import RolloutReplica

from verl_pipeline.verl_adapter.emulated.plugin import load_run
from verl_pipeline.verl_adapter.emulated.rollout_server import EmulatedServer
from verl_pipeline.verl_adapter.emulated.router import ReplicaHandle, list_replicas

# More requests than any run has open.
MOST_CALLS = 200_000


def name_server(replica_rank: int) -> str:
    """Ray's name of a replica's server."""
    return f"emulated_server_{replica_rank}"


@dataclass(frozen=True)
class EmulatedPort:
    """What the dispatcher knows of one of the replicas behind a server."""

    address: str
    handle: ReplicaHandle

    async def load(self, version: int, _request: Any) -> list[Any]:
        """See :class:`~..rollout.replica_ports.ReplicaPort`; there is nothing to read."""
        await self.handle.server.load_weights.remote(self.handle.replica, version)
        return []


class EmulatedRolloutReplica(RolloutReplica):
    """See the module."""

    async def launch_servers(self) -> None:
        """Start the server."""
        options = {"name": name_server(self.replica_rank), "max_concurrency": MOST_CALLS}
        server = ray.remote(EmulatedServer).options(**options).remote(str(self.model_config.path))
        self.servers = [server]
        self._server_handle = server
        self._server_address = await server.start.remote()

    async def abort_all_requests(self, reject_request: bool = False) -> dict[str, Any]:  # type: ignore[override]
        """The server's answer, which tells how many requests were aborted."""
        return await self.servers[0].abort_all_requests.remote(reject_request=reject_request)

    def make_ports(self, address: str) -> list[EmulatedPort]:
        """A port for each emulated replica: past the barrier all modes are emulated alike."""
        names = list_replicas(address, load_run().replicas)
        handles = [ReplicaHandle(self.servers[0], number) for number in range(len(names))]
        return [EmulatedPort(*port) for port in zip(names, handles, strict=True)]
