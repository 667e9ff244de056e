"""How a version of the weights gets from the trainer into the host memory of the rollout nodes.

Between nodes, :mod:`.leader_transport` does it.

Invariants:
* It waits for no replica that loads or samples.
* Whoever cannot store a version, or dies meanwhile, is named.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayTaskError

from verl_pipeline.trainer.pipeline_config import PIPELINE_KEY
from verl_pipeline.weight_sync.buckets import WeightSyncError

# Before all that a run sends.
ANY_VERSION = -1


class VersionTransport(ABC):
    """Sends versions, and drops them.

    Attributes:
        places: where they are stored, for errors.
        bytes_per_version: of the weights; None if nobody knows before they are sent.
    """

    places: list[str]
    bytes_per_version: int | None = None

    @abstractmethod
    def send(self, version: int) -> dict[str, float]:
        """Send the actor's weights as ``version``, until they are stored.

        Returns:
            What the engine reports.

        Raises:
            WeightSyncError: they cannot be stored.
            RolloutServerDead: a process that stores has died.
        """

    @abstractmethod
    def add_workers(self, workers: Sequence[Any], name: str) -> None:
        """See :meth:`~.publication.WeightPublisher.add_workers`."""

    @abstractmethod
    def find_first_version(self, workers: Sequence[Any]) -> int | None:
        """See :meth:`~.publication.WeightPublisher.find_first_version`."""

    @abstractmethod
    def call_stores(self, method: str, argument: int) -> list[ray.ObjectRef]:
        """Call a method of :class:`~.storing_engine.StoringEngine` where versions are stored, in
        the order of ``places``; returns at once.
        """

    @abstractmethod
    def drop(self, version: int) -> list[ray.ObjectRef]:
        """Free the memory of ``version`` wherever it is stored; returns at once."""

    def is_storing(self, worker: Any) -> bool:
        """Whether a replica's worker stores versions for the others of its node."""
        return False


class LocalTransport(VersionTransport):
    """The sender, which is on the same node as all rollout workers, stores versions itself.

    Args:
        actor_wg: the worker group whose actor the weights come from.
        workers: of all replicas.
        node: on which all of them are.
        versions, timeout_s: as of :meth:`~.storing_engine.StoringEngine.open_store`.
        backend: of the checkpoint engine.
    """

    def __init__(
        self,
        actor_wg: Any,
        workers: list[Any],
        node: str,
        versions: int,
        timeout_s: float,
        backend: str,
    ):
        self.places = ["the node of trainer and replicas"]
        self._actor_wg = actor_wg
        self._backend = backend
        size = actor_wg.world_size
        opened = actor_wg.execute_checkpoint_engine(
            ["keep_sends"] * size, [versions] * size, [timeout_s] * size
        )
        self._opened, self._node, self._timeout_s = opened, node, timeout_s
        self.add_workers(workers, "")

    def add_workers(self, workers: Sequence[Any], name: str) -> None:
        if set(find_nodes(workers)) != {self._node}:
            raise WeightSyncError(
                f"{name}: no weights are sent to its node, since the run began on one node; set "
                f"{PIPELINE_KEY}.max_replicas to the number of replicas that it may have"
            )
        joined = [
            worker.execute_checkpoint_engine.remote("join_store", self._opened[0], self._timeout_s)
            for worker in workers
        ]
        ray.get([*self._opened, *joined])

    def find_first_version(self, workers: Sequence[Any]) -> int | None:
        return ANY_VERSION

    def send(self, version: int) -> dict[str, float]:
        try:
            reports = ray.get(
                self._actor_wg.update_weights(global_steps=version, mode=self._backend)
            )
        except RayTaskError as error:
            if isinstance(error.cause, WeightSyncError):
                raise WeightSyncError(
                    f"v_{version} is not stored on {self.places[0]}: {error.cause}"
                ) from error
            raise
        return reports[0] or {}

    def drop(self, version: int) -> list[ray.ObjectRef]:
        return self.call_stores("drop_version", version)

    def call_stores(self, method: str, argument: int) -> list[ray.ObjectRef]:
        size = self._actor_wg.world_size
        return self._actor_wg.execute_checkpoint_engine([method] * size, [argument] * size)[:1]


def find_nodes(workers: Sequence[Any]) -> list[str]:
    """Ray's id of the node of each of a replica's workers."""
    return ray.get([worker.execute_checkpoint_engine.remote("find_node") for worker in workers])
