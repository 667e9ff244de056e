"""Sends versions of the weights to one rollout worker of each node, which stores them for all.

Invariants:
* It sends to the same processes throughout the run, but for those that have died: their nodes get
  no version any more, so that no replica there can load one. Then an engine that can
  (``leave_group``) builds another group and sends again.
* It does so, too, for a node that joins, which stores the next version that is sent.
"""

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import (
    ActorUnavailableError,
    GetTimeoutError,
    RayActorError,
    RayError,
    RayTaskError,
)
from verl.checkpoint_engine.base import CheckpointEngineManager, CheckpointEngineWorker
from verl.single_controller.ray import RayClassWithInitArgs, RayWorkerGroup

from verl_pipeline.trainer.pipeline_config import TRAINER_MODE
from verl_pipeline.verl_adapter.rollout.replica_probe import RolloutServerDead, describe_death
from verl_pipeline.verl_adapter.weights.storing_engine import StoreReport
from verl_pipeline.verl_adapter.weights.version_transport import (
    ANY_VERSION,
    VersionTransport,
    find_nodes,
)
from verl_pipeline.weight_sync.buckets import WeightSyncError

# For the dead of a failed send to be known as such, and for the living to end it, in seconds.
SETTLE_S = 60.0
# Between two questions whether a leader has stored what was sent, in seconds: while the trainer
# sends, they only find those that died.
POLL_SENDING_S = 0.5
POLL_S = 0.005


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
        # Of nodes that have joined since the last version was sent.
        self._newcomers: dict[Any, str] = {}
        self._versions, self._timeout_s = versions, timeout_s
        # By node, what its workers join the store with, and the first version that it stores; by
        # worker, its node.
        self._paths: dict[str, ray.ObjectRef] = {}
        self._firsts: dict[str, int] = dict.fromkeys(nodes.values(), ANY_VERSION)
        self._nodes = dict(nodes)
        # Replicas start in threads of their own.
        self._lock = threading.Lock()
        joined = []
        for worker, node in nodes.items():
            call = worker.execute_checkpoint_engine.remote
            if node not in self._paths:
                self._paths[node] = call("open_store", versions, timeout_s)
                self._leaders[worker] = f"the node of {names[worker]}"
            else:
                joined.append(call("join_store", self._paths[node], timeout_s))
        ray.get([*self._paths.values(), *joined])
        self._set_leaders(self._leaders)
        self._sends: list[ray.ObjectRef] = []

    def add_workers(self, workers: Sequence[Any], name: str) -> None:
        found = find_nodes(workers)
        joined, opened = [], {}
        with self._lock:
            for worker, node in zip(workers, found, strict=True):
                call = worker.execute_checkpoint_engine.remote
                self._nodes[worker] = node
                if node in self._paths:
                    joined.append(call("join_store", self._paths[node], self._timeout_s))
                    continue
                if not self._can_change:
                    raise WeightSyncError(
                        f"{name}: no weights are sent to its node {node}, and the engine "
                        f"{self._sync.backend} forms no other group; gloo can"
                    )
                self._paths[node] = call("open_store", self._versions, self._timeout_s)
                opened[worker] = node
                joined.append(self._paths[node])
        ray.get(joined)
        for worker, node in opened.items():
            self._check_memory(worker, node, name)
        with self._lock:
            self._newcomers |= dict.fromkeys(opened, f"the node of {name}")

    def _check_memory(self, worker: Any, node: str, name: str) -> None:
        """A node without room for the versions must not join: it would end the run later."""
        if self.bytes_per_version is None:
            return
        try:
            ray.get(worker.execute_checkpoint_engine.remote("check_memory", self.bytes_per_version))
        except RayTaskError as error:
            with self._lock:
                del self._paths[node]
            raise WeightSyncError(f"the node of {name}: {error.cause}") from error

    def find_first_version(self, workers: Sequence[Any]) -> int | None:
        with self._lock:
            nodes = {self._nodes[worker] for worker in workers}
            if missing := nodes - self._paths.keys():
                raise WeightSyncError(f"no weights are sent to node {', '.join(missing)} any more")
            firsts = [self._firsts.get(node) for node in nodes]
        return None if None in firsts else max(firsts)  # type: ignore[type-var]

    @property
    def _can_change(self) -> bool:
        """Whether the group can be another one than before."""
        return hasattr(self._sync.backend_cls, "leave_group")

    def send(self, version: int) -> dict[str, float]:
        metrics = self._send_to_living(version)
        with self._lock:
            for leader in self._leaders:
                self._firsts.setdefault(self._nodes[leader], version)
        return metrics

    def _adopt_newcomers(self) -> None:
        with self._lock:
            newcomers, self._newcomers = self._newcomers, {}
        if newcomers:
            self._set_leaders(self._leaders | newcomers)
            self._let_senders_leave()
            ray.get(self._call_leaders("leave_group"))

    def _set_leaders(self, leaders: dict[Any, str]) -> None:
        self._leaders, self.places = leaders, list(leaders.values())
        self._group = _make_group(leaders)

    def _let_senders_leave(self) -> None:
        size = self._actor_wg.world_size
        ray.get(self._actor_wg.execute_checkpoint_engine(["leave_group"] * size))

    def _send_to_living(self, version: int) -> dict[str, float]:
        while True:
            try:
                self._adopt_newcomers()
                return self._send_once(version)
            except (RayError, WeightSyncError, RolloutServerDead) as error:
                dead = self._find_dead_leaders()
                if not dead or not self._can_change:
                    raise
                self._drop_leaders(dead, error)

    def _send_once(self, version: int) -> dict[str, float]:
        self._sync.build_process_group(self._group)
        ray.get(self._call_leaders("begin_storing", version))
        self._sends = self._actor_wg.update_weights(global_steps=version, mode=self._sync.backend)
        self._wait_until_stored(version, self._sends)
        size = self._actor_wg.world_size
        ray.get(
            self._actor_wg.execute_checkpoint_engine(["finalize"] * size)
            + self._call_leaders("finalize")
        )
        metrics: dict[str, float] = {}
        for report in ray.get(self._sends):
            metrics.update(report or {})
        return metrics

    def _find_dead_leaders(self) -> list[Any]:
        """After a failed send; those who do not answer may be dying, and are asked for a while."""
        dead, deadline = [], time.monotonic() + SETTLE_S
        open_leaders = list(self._leaders)
        while open_leaders and time.monotonic() < deadline:
            for leader in list(open_leaders):
                try:
                    ray.get(leader.__ray_ready__.remote(), timeout=POLL_SENDING_S)
                except (GetTimeoutError, ActorUnavailableError):
                    continue
                except RayActorError:
                    dead.append(leader)
                open_leaders.remove(leader)
            time.sleep(POLL_S)
        return dead

    def _drop_leaders(self, dead: list[Any], error: Exception) -> None:
        """Send to the others from now on.

        Raises:
            Exception: ``error``, if there are none.
        """
        gone = [self._leaders.pop(leader) for leader in dead]
        if not self._leaders:
            raise error
        with self._lock:  # a replica that starts there stores anew
            for leader in dead:
                self._paths.pop(self._nodes[leader], None)
                self._firsts.pop(self._nodes[leader], None)
        print(
            f"[{TRAINER_MODE}] warning: no version reaches {', '.join(gone)} any more: the process "
            "that stored them is dead",
            flush=True,
        )
        ray.wait(self._sends, num_returns=len(self._sends), timeout=SETTLE_S)
        self._let_senders_leave()
        for leader in self._leaders:
            self._end_reception(leader)
        ray.get(self._call_leaders("leave_group"))
        self._set_leaders(self._leaders)

    def _end_reception(self, leader: Any) -> None:
        """What a leader has received of a failed send is of no use, nor is the error."""
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline:
            try:
                if ray.get(leader.execute_checkpoint_engine.remote("has_ended_reception")):
                    ray.get(leader.execute_checkpoint_engine.remote("take_stored"))
                    return
            except RayTaskError:
                return
            time.sleep(POLL_S)

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

    def drop(self, version: int) -> list[ray.ObjectRef]:
        with self._lock:
            firsts = {leader: self._firsts.get(self._nodes[leader]) for leader in self._leaders}
        return [
            leader.execute_checkpoint_engine.remote("drop_version", version)
            for leader, first in firsts.items()
            if first is not None and first <= version  # others have joined since
        ]

    def is_storing(self, worker: Any) -> bool:
        return worker in self._leaders

    def _call_leaders(self, method: str, *arguments: Any) -> list[ray.ObjectRef]:
        return [
            leader.execute_checkpoint_engine.remote(method, *arguments) for leader in self._leaders
        ]


def _make_group(leaders: Iterable[Any]) -> RayWorkerGroup:
    """verl's group of these workers, which live already."""
    return RayWorkerGroup(
        worker_handles=list(leaders),
        ray_cls_with_init=RayClassWithInitArgs(cls=ray.remote(CheckpointEngineWorker)),
    )
