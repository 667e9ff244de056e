"""Publishes versions of the weights: sends each once, into the host memory of every rollout node.

Replicas load them from there when they like (:mod:`.weight_loading`).

Invariants:
* The network group is the senders and one worker of each rollout node, its leader, throughout the
  run. The other workers read what the leader stores.
* Publishing waits for no replica: not for one that loads, nor for one that samples.
* At most ``versions`` versions are stored; whoever publishes drops those that nobody will load.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from omegaconf import DictConfig
from ray.exceptions import RayActorError, RayTaskError
from verl.checkpoint_engine.base import CheckpointEngineManager, CheckpointEngineWorker
from verl.single_controller.ray import RayClassWithInitArgs, RayWorkerGroup
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.rollout.llm_server import LLMServerManager

from verl_pipeline.trainer.deadlines import run_with_deadline
from verl_pipeline.trainer.pipeline_config import PIPELINE_KEY, Deadlines, load_pipeline_config
from verl_pipeline.verl_adapter.rollout.replica_probe import RolloutServerDead, describe_death
from verl_pipeline.verl_adapter.weights.replica_reading import ReadingRequest
from verl_pipeline.verl_adapter.weights.storing_receiver import StoreReport, StoringReceiver
from verl_pipeline.verl_adapter.weights.weight_fingerprints import FingerprintCheck
from verl_pipeline.verl_adapter.weights.weight_loading import ReplicaActors
from verl_pipeline.weight_sync.buckets import WeightSyncError
from verl_pipeline.weight_sync.model_files import count_weight_bytes
from verl_pipeline.weight_sync.rollout_dtype import parse_dtype

# Between two questions whether a leader has stored what was sent, in seconds: while the trainer
# sends, they only find those that died.
POLL_SENDING_S = 0.5
POLL_S = 0.005


class WeightPublisher:
    """Publishes the actor's weights to the replicas' nodes.

    Args:
        config: verl's configuration, completed by
            :mod:`~verl_pipeline.verl_adapter.settings.derived_settings`.
        actor_wg: the worker group whose actor the weights come from.
        manager: the replicas, started.
        deadlines: longest waits.
        versions: most versions in host memory at a time.
        check_health: raises if a replica has died; called while a publication is awaited.

    Attributes:
        replicas: for :func:`~.weight_loading.load_weights`, in the manager's order.
        fingerprints: what was sent of the versions that are checked; it compares the readings.

    Raises:
        WeightSyncError: the checkpoint engine cannot store weights, or a node has no room for that
            many versions.
    """

    def __init__(
        self,
        config: DictConfig,
        actor_wg: Any,
        manager: LLMServerManager,
        deadlines: Deadlines,
        versions: int,
        check_health: Callable[[], None],
    ):
        self._actor_wg = actor_wg
        self._deadlines = deadlines
        self._check_health = check_health
        rollout = config.actor_rollout_ref.rollout
        replicas = manager.get_replicas()
        self.replicas = [
            ReplicaActors(
                f"rollout replica {rank} at {address}",
                str(rollout.name),
                address,
                list(replica.servers),
                list(replica.workers),
            )
            for rank, (replica, address) in enumerate(
                zip(replicas, manager.get_addresses(), strict=True)
            )
        ]
        self._sync = CheckpointEngineManager(
            config=omega_conf_to_dataclass(rollout.checkpoint_engine),
            actor_wg=actor_wg,
            replicas=replicas,
        )
        if not issubclass(self._sync.backend_cls, StoringReceiver):
            raise WeightSyncError(
                f"actor_rollout_ref.rollout.checkpoint_engine.backend={self._sync.backend}: this "
                "engine does not keep versions of the weights; use gloo, nccl, nixl or mooncake, "
                f"or {PIPELINE_KEY}.weight_sync_mode=drained"
            )
        self.fingerprints = FingerprintCheck(
            config,
            load_pipeline_config(config).weight_check,
            actor_wg,
            self._sync.backend_cls,
            {one.name: replica for one, replica in zip(self.replicas, replicas, strict=True)},
        )
        self._leaders = self._open_stores(versions)
        kwargs = rollout.checkpoint_engine.get("engine_kwargs", {}).get(self._sync.backend, {})
        folder = Path(str(config.actor_rollout_ref.model.path))
        nbytes = count_weight_bytes(folder, parse_dtype(kwargs.get("rollout_dtype")))
        if nbytes is not None:  # they are in a folder of this machine
            self.check_memory(nbytes)
        self._leader_group = RayWorkerGroup(
            worker_handles=list(self._leaders),
            ray_cls_with_init=RayClassWithInitArgs(cls=ray.remote(CheckpointEngineWorker)),
        )
        self._request: ReadingRequest | None = None
        # Answers that nobody has waited for yet.
        self._drops: list[ray.ObjectRef] = []

    def check_memory(self, bytes_per_version: int) -> None:
        """Check that every rollout node has room for the versions, before anything is sent.

        Raises:
            WeightSyncError: naming node, bytes, versions, limit and what to change.
        """
        for leader, node in self._leaders.items():
            try:
                ray.get(leader.execute_checkpoint_engine.remote("check_memory", bytes_per_version))
            except RayTaskError as error:
                raise WeightSyncError(f"{node}: {error.cause}") from error

    def publish(self, version: int) -> dict[str, float]:
        """Send the actor's weights, which are v_version, to all rollout nodes.

        Returns:
            ``pipeline/weight_sync/*`` metrics: one sync, its seconds, and what the engine reports.

        Raises:
            DeadlineExceeded: a side did not answer in time.
            RolloutServerDead: a replica, or a process that stores, died meanwhile.
            WeightSyncError: a node cannot store the version.
        """
        start = time.perf_counter()
        metrics = run_with_deadline(
            lambda: self._send_observed(version),
            self._deadlines.weight_sync_s,
            f"publication of v_{version} from the trainer to {', '.join(self._leaders.values())}",
            f"look at the logs of these nodes, or raise {PIPELINE_KEY}.deadlines.weight_sync_s "
            "for a slow network",
            watchdog=self._check_health,
            watch_every_s=self._deadlines.health_check_every_s,
        )
        return {
            "pipeline/weight_sync/count": 1.0,
            "pipeline/weight_sync/seconds": time.perf_counter() - start,
            **{f"pipeline/{key}": value for key, value in metrics.items()},
        }

    def take_request(self) -> ReadingRequest | None:
        """What is to be read of each replica that loads the version published last, once."""
        request, self._request = self._request, None
        return request

    def drop(self, version: int) -> None:
        """Free the host memory of ``version``, which no replica begins to load any more.

        Returns at once; a replica that loads it already is not disturbed.
        """
        self._drops += self._ask_leaders("drop_version", version)

    def _open_stores(self, versions: int) -> dict[Any, str]:
        """Open a store on each node.

        Returns:
            The leaders, each with what errors call its node.
        """
        workers = [(worker, one.name) for one in self.replicas for worker in one.workers]
        nodes = ray.get(
            [worker.execute_checkpoint_engine.remote("find_node") for worker, _name in workers]
        )
        timeout_s = self._deadlines.weight_sync_s
        leaders: dict[Any, str] = {}
        paths: dict[str, ray.ObjectRef] = {}
        joined = []
        for (worker, name), node in zip(workers, nodes, strict=True):
            call = worker.execute_checkpoint_engine.remote
            if node not in paths:
                paths[node] = call("open_store", versions, timeout_s)
                leaders[worker] = f"the node of {name}"
            else:
                joined.append(call("join_store", paths[node], timeout_s))
        ray.get([*paths.values(), *joined])
        return leaders

    def _send_observed(self, version: int) -> dict[str, float]:
        self._take_drops()
        self.fingerprints.begin(version)
        metrics = self._send(version)
        self._request = self.fingerprints.end(version)
        return metrics

    def _send(self, version: int) -> dict[str, float]:
        self._sync.build_process_group(self._leader_group)
        ray.get(self._ask_leaders("begin_storing", version))
        sends = self._actor_wg.update_weights(global_steps=version, mode=self._sync.backend)
        self._wait_until_stored(version, sends)
        size = self._actor_wg.world_size
        ray.get(
            self._actor_wg.execute_checkpoint_engine(["finalize"] * size)
            + self._ask_leaders("finalize")
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

    def _take_drops(self) -> None:
        drops, self._drops = self._drops, []
        ray.get(drops)

    def _ask_leaders(self, method: str, *arguments: Any) -> list[ray.ObjectRef]:
        return [
            leader.execute_checkpoint_engine.remote(method, *arguments) for leader in self._leaders
        ]
