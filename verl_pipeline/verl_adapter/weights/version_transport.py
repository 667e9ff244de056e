"""How a version of the weights gets from the trainer into the host memory of the rollout nodes.

Invariants:
* A transport sends to the same processes throughout the run: engines assert it.
* It waits for no replica that loads or samples.
* Whoever cannot store a version, or dies meanwhile, is named.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError
from verl.checkpoint_engine.base import CheckpointEngineManager, CheckpointEngineWorker
from verl.single_controller.ray import RayClassWithInitArgs, RayWorkerGroup

from verl_pipeline.verl_adapter.rollout.replica_probe import RolloutServerDead, describe_death
from verl_pipeline.verl_adapter.weights.storing_engine import StoreReport
from verl_pipeline.weight_sync.buckets import WeightSyncError

# Between two questions whether a leader has stored what was sent, in seconds: while the trainer
# sends, they only find those that died.
POLL_SENDING_S = 0.5
POLL_S = 0.005


class VersionTransport(ABC):
    """Sends versions, and drops them.

    Attributes:
        places: where they are stored, for errors.
    """

    places: list[str]

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
    def call_stores(self, method: str, argument: int) -> list[ray.ObjectRef]:
        """Call a method of :class:`~.storing_engine.StoringEngine` where versions are stored, in
        the order of ``places``; returns at once.
        """


class LocalTransport(VersionTransport):
    """The sender, which is on the same node as all rollout workers, stores versions itself.

    Args:
        actor_wg: the worker group whose actor the weights come from.
        workers: of all replicas.
        versions, timeout_s: as of :meth:`~.storing_engine.StoringEngine.open_store`.
        backend: of the checkpoint engine.
    """

    def __init__(
        self, actor_wg: Any, workers: list[Any], versions: int, timeout_s: float, backend: str
    ):
        self.places = ["the node of trainer and replicas"]
        self._actor_wg = actor_wg
        self._backend = backend
        size = actor_wg.world_size
        opened = actor_wg.execute_checkpoint_engine(
            ["keep_sends"] * size, [versions] * size, [timeout_s] * size
        )
        joined = [
            worker.execute_checkpoint_engine.remote("join_store", opened[0], timeout_s)
            for worker in workers
        ]
        ray.get([*opened, *joined])

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

    def call_stores(self, method: str, argument: int) -> list[ray.ObjectRef]:
        size = self._actor_wg.world_size
        return self._actor_wg.execute_checkpoint_engine([method] * size, [argument] * size)[:1]


class LeaderTransport(VersionTransport):
    """One rollout worker of each node, its leader, receives versions through the engine's network.

    The network's group is the senders and the leaders alone.

    Args:
        actor_wg: the worker group whose actor the weights come from.
        sync: verl's manager of its checkpoint engine.
        nodes: of each worker of all replicas, its node.
        names: of each worker, what errors call its replica.
        versions, timeout_s: as of :meth:`~.storing_engine.StoringEngine.open_store`.
    """

    def __init__(
        self,
        actor_wg: Any,
        sync: CheckpointEngineManager,
        nodes: Mapping[Any, str],
        names: Mapping[Any, str],
        versions: int,
        timeout_s: float,
    ):
        self._actor_wg = actor_wg
        self._sync = sync
        self._leaders: dict[Any, str] = {}
        paths: dict[str, ray.ObjectRef] = {}
        joined = []
        for worker, node in nodes.items():
            call = worker.execute_checkpoint_engine.remote
            if node not in paths:
                paths[node] = call("open_store", versions, timeout_s)
                self._leaders[worker] = f"the node of {names[worker]}"
            else:
                joined.append(call("join_store", paths[node], timeout_s))
        ray.get([*paths.values(), *joined])
        self.places = list(self._leaders.values())
        self._group = RayWorkerGroup(
            worker_handles=list(self._leaders),
            ray_cls_with_init=RayClassWithInitArgs(cls=ray.remote(CheckpointEngineWorker)),
        )

    def send(self, version: int) -> dict[str, float]:
        self._sync.build_process_group(self._group)
        ray.get(self._call_leaders("begin_storing", version))
        sends = self._actor_wg.update_weights(global_steps=version, mode=self._sync.backend)
        self._wait_until_stored(version, sends)
        size = self._actor_wg.world_size
        ray.get(
            self._actor_wg.execute_checkpoint_engine(["finalize"] * size)
            + self._call_leaders("finalize")
        )
        metrics: dict[str, float] = {}
        for report in ray.get(sends):
            metrics.update(report or {})
        return metrics

    def _wait_until_stored(self, version: int, sends: list[ray.ObjectRef]) -> None:
        """Wait for the trainer's ranks and for the leaders, whose errors name more."""
        is_sent = False
        storing = dict(self._leaders)
        while storing:
            if not is_sent:
                done, sending = ray.wait(sends, num_returns=len(sends), timeout=POLL_SENDING_S)
                is_sent = not sending
            else:
                time.sleep(POLL_S)
            for leader, node in list(storing.items()):
                if self._take_stored(leader, node, version) is not None:
                    del storing[leader]
            if is_sent:
                ray.get(sends)

    def _take_stored(self, leader: Any, node: str, version: int) -> StoreReport | None:
        try:
            return ray.get(leader.execute_checkpoint_engine.remote("take_stored"))
        except RayTaskError as error:
            raise WeightSyncError(f"v_{version} is not stored on {node}: {error.cause}") from error
        except RayActorError as error:
            seen = f"the process that stores v_{version} ended: {str(error).splitlines()[0]}"
            raise RolloutServerDead(
                describe_death(node, "checkpoint engine", "stores nothing any more", seen)
            ) from error

    def call_stores(self, method: str, argument: int) -> list[ray.ObjectRef]:
        return self._call_leaders(method, argument)

    def _call_leaders(self, method: str, *arguments: Any) -> list[ray.ObjectRef]:
        return [
            leader.execute_checkpoint_engine.remote(method, *arguments) for leader in self._leaders
        ]
