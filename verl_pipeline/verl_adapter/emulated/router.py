"""verl's load balancer over emulated replicas, of which one server holds many.

It is named in ``rollout.router_config_path``. The choice is verl's: the replica with the fewest
requests in flight, and the same one for a request that was interrupted.
"""

from typing import Any

from verl.workers.rollout.router import GlobalRequestLoadBalancer


class _Method:
    """A server's method as Ray's handles have it, for one of its replicas."""

    def __init__(self, method: Any, replica: int):
        self._method, self._replica = method, replica

    def remote(self, **kwargs: Any) -> Any:
        """Call it."""
        return self._method.remote(replica=self._replica, **kwargs)


class ReplicaHandle:
    """What clients get instead of the server's handle; travels between processes."""

    def __init__(self, server: Any, replica: int):
        self.server, self.replica = server, replica

    @property
    def generate(self) -> _Method:
        """The call of the clients."""
        return _Method(self.server.generate, self.replica)


def list_replicas(server: str, replicas: int) -> list[str]:
    """Names of a server's replicas at the load balancer."""
    return [f"{server}/{number}" for number in range(replicas)]


class EmulatedRouter(GlobalRequestLoadBalancer):
    """See the module.

    Args:
        servers: handles by ``host:port``.
        config: of ``router_config_path``; has ``replicas``, the number that each server holds.
    """

    def __init__(self, servers: dict[str, Any], config: dict[str, Any]):
        self._replicas = int(config["replicas"])
        super().__init__(self._expand(servers))

    def _expand(self, servers: dict[str, Any]) -> dict[str, Any]:
        return {
            name: ReplicaHandle(handle, number)
            for server, handle in servers.items()
            for number, name in enumerate(list_replicas(server, self._replicas))
        }

    def add_servers(self, servers: dict[str, Any]) -> None:
        """verl's, for all replicas of the servers."""
        super().add_servers(self._expand(servers))

    def remove_servers(self, server_ids: list[str]) -> None:
        """verl's, for all replicas of the servers."""
        super().remove_servers(
            [name for server in server_ids for name in list_replicas(server, self._replicas)]
        )
