"""The rollout pool past the barrier: weights are published to it, and each replica loads by itself.

Invariants:
* Nobody drains, and no request is aborted.
* The trainer waits until what it publishes is where the replicas can load it, and for nothing else.
* A replica that dies, or whose load fails, is named within one health check.
"""

import time
from typing import Any

import ray
from omegaconf import DictConfig
from verl.workers.rollout.llm_server import LLMServerClient, LLMServerManager

from verl_pipeline.trainer.deadlines import run_with_deadline
from verl_pipeline.trainer.pipeline_config import PIPELINE_KEY, Deadlines
from verl_pipeline.verl_adapter.rollout.dispatched_client import DispatchedClient
from verl_pipeline.verl_adapter.rollout.rollout_pool import RolloutPool
from verl_pipeline.verl_adapter.weights.publication import WeightPublisher

# Between two looks at the replicas at the start of a run.
POLL_S = 0.05


class LoadFailed(RuntimeError):
    """A replica could not load published weights."""


class DispatchedPool(RolloutPool):
    """See the module; arguments as :class:`RolloutPool`."""

    def __init__(
        self, config: DictConfig, manager: LLMServerManager, actor_wg: Any, deadlines: Deadlines
    ):
        super().__init__(config, manager, actor_wg, deadlines)
        self._dispatcher = manager.global_load_balancer
        self._publisher = WeightPublisher(config, actor_wg, manager.get_replicas())

    def make_client(self) -> LLMServerClient:
        """A client that asks the dispatcher for a place, once for each trajectory."""
        return self.manager.get_client(client_cls=DispatchedClient)

    def publish_weights(self, version: int) -> dict[str, float]:
        """Let the replicas load the actor's weights, which are v_version.

        Returns:
            ``pipeline/weight_sync/*`` metrics: one publication, its seconds, and its bytes.

        Raises:
            DeadlineExceeded: a side did not answer in time.
            RolloutServerDead: a replica died meanwhile.
        """
        start = time.perf_counter()
        metrics = run_with_deadline(
            lambda: self._publisher.publish(version),
            self.deadlines.weight_sync_s,
            f"publication of v_{version} to the rollout nodes",
            f"raise {PIPELINE_KEY}.deadlines.weight_sync_s for a slow network",
            watchdog=self.check_health,
            watch_every_s=self.deadlines.health_check_every_s,
        )
        ray.get(self._dispatcher.publish.remote(version))
        seconds = time.perf_counter() - start
        report = {f"pipeline/{name}": value for name, value in metrics.items()}
        return {
            **report,
            "pipeline/weight_sync/count": 1.0,
            "pipeline/weight_sync/seconds": seconds,
        }

    def load_first(self, version: int) -> dict[str, float]:
        """See the base.

        Raises:
            DeadlineExceeded, RolloutServerDead, LoadFailed: naming the replica.
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
        return metrics

    def name_servers(self, version: int) -> dict[str, Any]:
        """The servers of the replicas that hold v_version, by the name that errors use."""
        versions = self._find_versions()
        named = zip(self.addresses, super().name_servers(version).items(), strict=True)
        return {name: server for at, (name, server) in named if versions.get(at) == version}

    def _find_versions(self) -> dict[str, int | None]:
        return ray.get(self._dispatcher.find_versions.remote())

    def check_health(self) -> None:
        """Check that every replica lives, and that no load has failed.

        Raises:
            RolloutServerDead: one is dead, or has been silent for too long.
            LoadFailed: one could not load what was published.
        """
        super().check_health()
        if failures := ray.get(self._dispatcher.take_failures.remote()):
            raise LoadFailed(
                "; ".join(failures) + ". Look at its log in Ray's session folder, and resume from "
                "the last checkpoint with the same command"
            )

    def describe(self) -> str:
        """Who holds and does what, in one line."""
        return ray.get(self._dispatcher.describe.remote())
