"""Publishes versions of the weights: sends each once, into the host memory of every rollout node.

Replicas load them from there when they like (:mod:`.weight_loading`).

Invariants:
* Publishing waits for no replica: not for one that loads, nor for one that samples.
* At most ``versions`` versions are stored; whoever publishes drops those that nobody will load.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from omegaconf import DictConfig
from ray.exceptions import RayActorError, RayTaskError
from verl.checkpoint_engine.base import CheckpointEngineManager
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.rollout.llm_server import LLMServerManager

from verl_pipeline.trainer.deadlines import run_with_deadline
from verl_pipeline.trainer.pipeline_config import PIPELINE_KEY, Deadlines, load_pipeline_config
from verl_pipeline.verl_adapter.weights.leader_transport import LeaderTransport
from verl_pipeline.verl_adapter.weights.replica_reading import ReadingRequest
from verl_pipeline.verl_adapter.weights.storing_engine import StoringEngine
from verl_pipeline.verl_adapter.weights.version_transport import LocalTransport, VersionTransport
from verl_pipeline.verl_adapter.weights.weight_fingerprints import FingerprintCheck
from verl_pipeline.verl_adapter.weights.weight_loading import list_replica_actors
from verl_pipeline.weight_sync.buckets import WeightSyncError
from verl_pipeline.weight_sync.model_files import count_weight_bytes
from verl_pipeline.weight_sync.rollout_dtype import parse_dtype


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
        self.replicas = list_replica_actors(str(rollout.name), replicas, manager.get_addresses())
        self._sync = CheckpointEngineManager(
            config=omega_conf_to_dataclass(rollout.checkpoint_engine),
            actor_wg=actor_wg,
            replicas=replicas,
        )
        if not issubclass(self._sync.backend_cls, StoringEngine):
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
        most = load_pipeline_config(config).max_replicas
        self._may_grow = most is not None and most > len(replicas)
        self._transport = self._open_transport(versions)
        kwargs = rollout.checkpoint_engine.get("engine_kwargs", {}).get(self._sync.backend, {})
        folder = Path(str(config.actor_rollout_ref.model.path))
        nbytes = count_weight_bytes(folder, parse_dtype(kwargs.get("rollout_dtype")))
        if nbytes is not None:  # they are in a folder of this machine
            self.check_memory(nbytes)
        self._request: ReadingRequest | None = None
        # Answers that nobody has waited for yet.
        self._drops: list[ray.ObjectRef] = []

    def check_memory(self, bytes_per_version: int) -> None:
        """Check that every rollout node has room for the versions, before anything is sent.

        Raises:
            WeightSyncError: naming node, bytes, versions, limit and what to change.
        """
        answers = self._transport.call_stores("check_memory", bytes_per_version)
        self._transport.bytes_per_version = bytes_per_version
        for place, answer in zip(self._transport.places, answers, strict=True):
            try:
                ray.get(answer)
            except RayTaskError as error:
                raise WeightSyncError(f"{place}: {error.cause}") from error

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
            f"publication of v_{version} from the trainer to {', '.join(self._transport.places)}",
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

    def add_workers(self, workers: Sequence[Any], name: str) -> None:
        """Let workers that have just started load what is stored on their nodes.

        Args:
            name: what errors call their replica.

        A node that stores nothing yet does so from the next version on.

        Raises:
            WeightSyncError: no weights can be sent there.
        """
        self._transport.add_workers(workers, name)

    def find_first_version(self, workers: Sequence[Any]) -> int | None:
        """Of workers that were added, the first version that all can load; None: not stored yet.

        Raises:
            WeightSyncError: a node of theirs stores no weights any more.
        """
        return self._transport.find_first_version(workers)

    def is_storing(self, worker: Any) -> bool:
        """Whether a replica's worker stores versions for the others of its node."""
        return self._transport.is_storing(worker)

    def take_request(self) -> ReadingRequest | None:
        """What is to be read of each replica that loads the version published last, once."""
        request, self._request = self._request, None
        return request

    def drop(self, version: int) -> None:
        """Free the host memory of ``version``, which no replica begins to load any more.

        Returns at once; a replica that loads it already is not disturbed.
        """
        self._drops += self._transport.drop(version)

    def _send_observed(self, version: int) -> dict[str, float]:
        self._take_drops()
        self.fingerprints.begin(version)
        metrics = self._transport.send(version)
        self._request = self.fingerprints.end(version)
        return metrics

    def _open_transport(self, versions: int) -> VersionTransport:
        """The shortest way to the nodes of all rollout workers."""
        names = {worker: one.name for one in self.replicas for worker in one.workers}
        size = self._actor_wg.world_size
        found = self._actor_wg.execute_checkpoint_engine(["find_node"] * size)
        asked = [worker.execute_checkpoint_engine.remote("find_node") for worker in names]
        sender, *_others = ray.get(found)
        nodes = dict(zip(names, ray.get(asked), strict=True))
        timeout_s = self._deadlines.weight_sync_s
        if set(nodes.values()) == {sender} and not self._may_grow:
            return LocalTransport(
                self._actor_wg, list(names), sender, versions, timeout_s, self._sync.backend
            )
        return LeaderTransport(self._actor_wg, self._sync, nodes, names, versions, timeout_s)

    def _take_drops(self) -> None:
        drops, self._drops = self._drops, []
        for drop in drops:
            with suppress(RayActorError):  # the next send finds out whether it can do without
                ray.get(drop)
