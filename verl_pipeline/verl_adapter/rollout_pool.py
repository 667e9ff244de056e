"""The rollout pool: its servers, the weights they hold, and whether they live.

Invariants:
* ``version`` is what every replica holds; only :meth:`RolloutPool.send_weights` changes it.
* A weight sync finds a drained pool. A request that it aborts belonged to a trajectory that was
  already abandoned (its deadline passed); any other is an error.
* A dead replica is named within one health check and its timeout.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
import requests
from omegaconf import DictConfig
from verl.checkpoint_engine.base import CheckpointEngineManager
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.rollout.llm_server import (
    FullyAsyncLLMServerClient,
    LLMServerClient,
    LLMServerManager,
)
from verl.workers.rollout.utils import update_prometheus_config

from verl_pipeline.trainer.deadlines import run_with_deadline
from verl_pipeline.trainer.pipeline_config import PIPELINE_KEY, Deadlines, load_pipeline_config
from verl_pipeline.verl_adapter.weight_fingerprints import FingerprintCheck

_ADVICE = (
    "Its log is in Ray's session folder ({log}); a common cause is memory. "
    "Resume from the last checkpoint with the same command"
)


class RolloutServerDead(RuntimeError):
    """A rollout replica does not answer any more."""


class WorkerDead(RuntimeError):
    """A process that trajectories are awaited from has died."""


class UnexpectedAbort(RuntimeError):
    """A weight sync interrupted a trajectory that somebody still waits for."""


class _AbortCountingWeightSync(CheckpointEngineManager):
    """verl's manager of weight syncs, which also counts the requests that its last sync aborted."""

    aborted_requests = 0

    async def abort_replicas(self, reject_request: bool = False):  # type: ignore[override]
        servers = [server for replica in self.replicas for server in replica.servers]
        answers = await asyncio.gather(
            *[server.abort_all_requests.remote(reject_request=reject_request) for server in servers]
        )
        self.aborted_requests = sum(answer["aborted_count"] for answer in answers)


class RolloutPool:
    """Standalone rollout replicas of ``rollout.nnodes x rollout.n_gpus_per_node``.

    Args:
        config: verl's configuration, completed by
            :mod:`verl_pipeline.verl_adapter.derived_settings`.
        manager: the replicas, started.
        actor_wg: the worker group whose actor the weights come from.
        deadlines: longest waits.
    """

    def __init__(
        self, config: DictConfig, manager: LLMServerManager, actor_wg: Any, deadlines: Deadlines
    ):
        self.manager = manager
        self.deadlines = deadlines
        self.version: int | None = None
        rollout = config.actor_rollout_ref.rollout
        if rollout.prometheus.enable:
            addresses = self.manager.server_addresses
            update_prometheus_config(rollout.prometheus, addresses, rollout.name)
        self._weight_sync = _AbortCountingWeightSync(
            config=omega_conf_to_dataclass(rollout.checkpoint_engine),
            actor_wg=actor_wg,
            replicas=self.manager.get_replicas(),
        )
        self.fingerprints = FingerprintCheck(
            config,
            load_pipeline_config(config).weight_check,
            actor_wg,
            self._weight_sync.backend_cls,
            dict(zip(self._names, self.manager.get_replicas(), strict=True)),
        )

    @property
    def _names(self) -> list[str]:
        """What errors call each replica."""
        return [f"rollout replica {rank} at {at}" for rank, at in enumerate(self.addresses)]

    def name_servers(self) -> dict[str, Any]:
        """The server of each replica that takes requests, by the name that errors use."""
        return dict(zip(self._names, self.manager.server_handles, strict=True))

    @property
    def addresses(self) -> list[str]:
        """``host:port`` of each replica's HTTP server."""
        return self.manager.get_addresses()

    def make_client(self) -> LLMServerClient:
        """A client whose trajectories carry the versions at their first and last token."""
        return self.manager.get_client(client_cls=FullyAsyncLLMServerClient)

    def send_weights(self, version: int, *, abandoned: int) -> dict[str, float]:
        """Send the actor's weights, which are v_version, to every replica.

        Args:
            abandoned: abandoned trajectories of the drained batches, whose requests may still run.

        Returns:
            ``pipeline/weight_sync/*`` metrics: one sync, its seconds, aborted requests, and what
            the engine reports.

        Raises:
            UnexpectedAbort: more requests were aborted than trajectories had been abandoned.
            DeadlineExceeded: a side did not answer in time.
            RolloutServerDead: a replica died meanwhile.
            WeightsDiffer: a replica does not hold what was sent.
        """
        start = time.perf_counter()
        # verl calls the engine that derived_settings.py chose: its own nccl engine on GPUs,
        # weight_sync/gloo_broadcast.py on CPUs.
        metrics = run_with_deadline(
            lambda: self._send_and_compare(version),
            self.deadlines.weight_sync_s,
            f"weight sync of v_{version} from the trainer to replicas {', '.join(self.addresses)}",
            f"look at the logs of these servers, or raise {PIPELINE_KEY}.deadlines.weight_sync_s "
            "for a slow network",
            watchdog=self.check_health,
            watch_every_s=self.deadlines.health_check_every_s,
        )
        aborted = self._weight_sync.aborted_requests
        if aborted > abandoned:
            raise UnexpectedAbort(
                f"sending v_{version} aborted {aborted} requests, but only {abandoned} "
                "trajectories had been abandoned, so other requests were still running. End "
                "your own requests to the rollout servers before a batch ends"
            )
        self.version = version
        return {
            "pipeline/weight_sync/count": 1.0,
            "pipeline/weight_sync/seconds": time.perf_counter() - start,
            "pipeline/weight_sync/aborted_requests": float(aborted),
            **{f"pipeline/{key}": value for key, value in (metrics or {}).items()},
        }

    def _send_and_compare(self, version: int) -> dict[str, float]:
        self.fingerprints.begin(version)
        metrics = self._weight_sync.update_weights(version)
        self.fingerprints.compare(version)
        return metrics

    def check_health(self) -> None:
        """Check that every replica lives.

        Raises:
            RolloutServerDead: one did not answer, or answered that its engine is dead.
        """
        if not self.addresses:
            return
        with ThreadPoolExecutor(max_workers=len(self.addresses)) as executor:
            list(executor.map(self._check_server, range(len(self.addresses)), self.addresses))

    def _check_server(self, rank: int, address: str) -> None:
        name = f"rollout replica {rank} at {address}"
        advice = _ADVICE.format(log="worker-*.err of the vLLM server")
        try:
            answer = requests.get(f"http://{address}/health", timeout=self.deadlines.health_check_s)
        except requests.RequestException as error:
            raise RolloutServerDead(f"{name} does not answer: {error}. {advice}") from error
        if answer.status_code != 200:
            raise RolloutServerDead(
                f"{name} answers {answer.status_code}: its engine died. {advice}"
            )


def probe_actors(
    actors: list[Any], pending_probes: list[ray.ObjectRef], role: str
) -> list[ray.ObjectRef]:
    """Check the answers to earlier probes of these actors, and probe them again; never waits.

    Args:
        pending_probes: what the last call returned.
        role: the actors' role, for the error.

    Returns:
        The new probes.

    Raises:
        WorkerDead: one of the actors has died.
    """
    answered = []
    if pending_probes:
        answered, _open = ray.wait(pending_probes, num_returns=len(pending_probes), timeout=0)
    try:
        ray.get(answered)
    except ray.exceptions.RayActorError as error:
        advice = _ADVICE.format(log="worker-*.err")
        raise WorkerDead(f"{role} died: {str(error).splitlines()[0]} {advice}") from error
    return [actor.__ray_ready__.remote() for actor in actors]
