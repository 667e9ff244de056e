"""The rollout pool past the barrier: weights are published to it, and each replica loads by itself.

Invariants:
* Nobody drains, and no request is aborted.
* The trainer waits until what it publishes is where the replicas can load it, and for nothing else.
* A replica that is lost is named within one health check, and the run goes on with the others
  (:mod:`.rollout.replica_patrol`); one that holds other weights than were sent ends the run at the
  next publication.
"""

import time
from contextlib import suppress
from typing import Any

import ray
from omegaconf import DictConfig
from verl.workers.rollout.llm_server import LLMServerClient

from verl_pipeline.trainer.deadlines import run_with_deadline
from verl_pipeline.trainer.pipeline_config import PIPELINE_KEY, load_pipeline_config
from verl_pipeline.verl_adapter.rollout.dispatched_client import DispatchedClient
from verl_pipeline.verl_adapter.rollout.replica_growth import ReplicaPlaces
from verl_pipeline.verl_adapter.rollout.replica_patrol import ReplicaPatrol
from verl_pipeline.verl_adapter.rollout.replica_probe import find_death
from verl_pipeline.verl_adapter.rollout.replica_restart import ReplicaRestart
from verl_pipeline.verl_adapter.rollout.rollout_pool import RolloutPool
from verl_pipeline.verl_adapter.weights.publication import WeightPublisher

# Versions in a node's memory: the newest, the one before, which a replica may still read (or, while
# a validation runs, the one that it needs), and the one that is being written.
VERSIONS = 3
# Longest wait for loads at the end of a run, in seconds.
CLOSE_S = 20.0
# Between two looks at the replicas at the start of a run.
POLL_S = 0.05


class DispatchedPool(RolloutPool):
    """See the module; arguments as :class:`RolloutPool`."""

    def _connect_trainer(self, config: DictConfig, actor_wg: Any) -> None:
        self._dispatcher = self.manager.global_load_balancer
        self._stored: list[int] = []
        self._held: int | None = None
        settings = load_pipeline_config(config)
        self._patrol = ReplicaPatrol(self._engine, self.manager, self._dispatcher, settings)
        self._publisher = WeightPublisher(
            config,
            actor_wg,
            self.manager,
            self.deadlines,
            VERSIONS,
            self.check_health,
        )
        self._patrol.let_start(
            ReplicaRestart(self.manager, self._publisher, settings), ReplicaPlaces(config)
        )
        self.fingerprints = self._publisher.fingerprints

    @property
    def dispatcher(self) -> Any:
        """See the base."""
        return self._dispatcher

    def make_client(self) -> LLMServerClient:
        """A client that asks the dispatcher for a place, once for each trajectory."""
        return self.manager.get_client(client_cls=DispatchedClient)

    def publish_weights(self, version: int) -> dict[str, float]:
        """Let the replicas load the actor's weights, which are v_version.

        Returns and raises as :meth:`WeightPublisher.publish`.

        Raises:
            WeightsDiffer: a replica does not hold what was sent earlier.
            RolloutServerDead: fewer replicas are left than ``min_replicas``, which a trainer that
                never waits would not notice otherwise.
        """
        self._patrol.raise_failure()
        self._compare_readings()
        metrics = self._publisher.publish(version)
        ray.get(self._dispatcher.publish.remote(version, self._publisher.take_request()))
        # Loads that begin from now on take the new version, or the one that is held.
        needed = self.version if self._held is None else self._held
        for stored in self._stored:
            if stored != needed:
                self._publisher.drop(stored)
        self._stored = [stored for stored in self._stored if stored == needed] + [version]
        self.version = version
        return metrics

    def hold_version(self, version: int) -> None:
        """See the base."""
        self._held = version
        ray.get(self._dispatcher.hold.remote(version))

    def release_version(self) -> None:
        """See the base."""
        ray.get(self._dispatcher.release.remote())
        self._held = None

    def load_first(self, version: int) -> dict[str, float]:
        """See the base.

        Raises:
            DeadlineExceeded, RolloutServerDead, WeightSyncError: naming the replica.
        """
        metrics = self.publish_weights(version)

        def wait() -> None:
            while set(self._find_versions().values()) != {version}:
                time.sleep(POLL_S)

        run_with_deadline(
            wait,
            self.deadlines.weight_sync_s,
            f"load of v_{version} by replicas {', '.join(self.addresses)}",
            f"look at the logs of these servers, or raise {PIPELINE_KEY}.deadlines.weight_sync_s",
            watchdog=self.check_health,
            watch_every_s=self.deadlines.health_check_every_s,
        )
        self._compare_readings()
        self._patrol.start()
        return metrics

    def name_servers(self, version: int) -> dict[str, Any]:
        """The servers of the replicas that hold v_version, by the name that errors use."""
        versions = self._find_versions()
        return {
            member.name: member.replica.server_handle
            for member in self._patrol.list_living()
            if versions.get(member.address) == version
        }

    def check_health(self) -> None:
        """Look after the replicas.

        Raises:
            RolloutServerDead: fewer are left than ``min_replicas``.
            WorkerDead: the dispatcher is dead.
        """
        self._patrol.check()

    def has_lost(self, name: str, error: Exception | None = None) -> bool:
        """See the base."""
        seen = find_death(error) if error is not None else None
        for member in self._patrol.list_living() if seen else ():
            if member.name == name:
                ray.get([self._dispatcher.lose.remote(place, seen) for place in member.places])
                self.check_health()
        return self._patrol.is_lost(name)

    def take_metrics(self) -> dict[str, float]:
        """``pipeline/replicas/*`` since the last call."""
        return self._patrol.take_metrics()

    def close(self) -> None:
        """See the base. A replica that is ended in a load would leave its socket behind."""
        self._patrol.close()
        with suppress(ray.exceptions.RayError):  # the run's own error is the one to be shown
            ray.get(self._dispatcher.finish_loads.remote(CLOSE_S), timeout=2 * CLOSE_S)

    def describe(self) -> str:
        """See the base, with what waits for which weights."""
        return ray.get(self._dispatcher.describe.remote())

    def _find_versions(self) -> dict[str, int | None]:
        return ray.get(self._dispatcher.find_versions.remote())

    def _compare_readings(self) -> None:
        names = self._patrol.names
        for reading in ray.get(self._dispatcher.take_readings.remote()):
            ranks = {names[reading.replica]: reading.ranks}
            self.fingerprints.compare_readings(reading.version, ranks)
