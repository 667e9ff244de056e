"""The rollout pool: its servers, the weights they hold, and whether they live.

Invariants:
* ``version`` is what every replica holds; only :meth:`RolloutPool.send_weights` changes it.
* A weight sync finds a drained pool: nobody waits for what it aborts. A trajectory that was given
  up may have two requests (disaggregated prefill), and one may wait in a queue until after the
  sync, so the number of aborted requests proves nothing. A trajectory that a sync does interrupt
  carries two versions, which ``batch.check_versions`` refuses.
* A dead replica is named within one health check; a silent one as
  :mod:`verl_pipeline.trainer.server_health` says.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import ray
from omegaconf import DictConfig
from verl.checkpoint_engine.base import CheckpointEngineManager
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.rollout.llm_server import LLMServerClient, LLMServerManager
from verl.workers.rollout.utils import update_prometheus_config

from verl_pipeline.trainer.deadlines import run_with_deadline
from verl_pipeline.trainer.pipeline_config import PIPELINE_KEY, Deadlines, load_pipeline_config
from verl_pipeline.trainer.server_health import ServerWatch, Sign
from verl_pipeline.verl_adapter.rollout.llm_client import TurnBudgetClient
from verl_pipeline.verl_adapter.rollout.replica_probe import (
    DEATH_ADVICE,
    RolloutServerDead,
    describe_death,
    probe_replica,
)
from verl_pipeline.verl_adapter.weights.weight_fingerprints import FingerprintCheck


class WorkerDead(RuntimeError):
    """A process that trajectories are awaited from has died."""


class _AbortCountingWeightSync(CheckpointEngineManager):
    """verl's manager of weight syncs, which also counts the requests that its last sync aborted.

    Attributes:
        aborted_requests: their number; None if an engine does not tell.
    """

    aborted_requests: int | None = None

    async def abort_replicas(self, reject_request: bool = False):  # type: ignore[override]
        # Each replica class knows which of its servers to ask, and how.
        aborts = [r.abort_all_requests(reject_request=reject_request) for r in self.replicas]
        answers = await asyncio.gather(*aborts)
        self.aborted_requests = _sum_aborted(answers)


def _sum_aborted(answers: Sequence[Any]) -> int | None:
    """Requests that all replicas aborted; only vLLM's tells its part."""
    if all(isinstance(answer, Mapping) and "aborted_count" in answer for answer in answers):
        return sum(answer["aborted_count"] for answer in answers)
    return None


class RolloutPool:
    """Standalone rollout replicas of ``rollout.nnodes x rollout.n_gpus_per_node``.

    Args:
        config: verl's configuration, completed by
            :mod:`.settings.derived_settings`.
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
        self._engine = str(rollout.name)
        self._watches = [ServerWatch(deadlines.silent_server_s) for _ in self.addresses]
        if rollout.prometheus.enable:
            addresses = self.manager.server_addresses
            update_prometheus_config(rollout.prometheus, addresses, rollout.name)
        self._connect_trainer(config, actor_wg)

    def _connect_trainer(self, config: DictConfig, actor_wg: Any) -> None:
        rollout = config.actor_rollout_ref.rollout
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

    def name_servers(self, version: int) -> dict[str, Any]:
        """The server of each replica that holds v_version, by the name that errors use."""
        if self.version != version:
            return {}
        return dict(zip(self._names, self.manager.server_handles, strict=True))

    @property
    def dispatcher(self) -> Any | None:
        """The actor that gives trajectories their places; None with a barrier."""
        return None

    @property
    def addresses(self) -> list[str]:
        """``host:port`` of each replica's HTTP server."""
        return self.manager.get_addresses()

    def make_client(self) -> LLMServerClient:
        """A client whose trajectories carry the versions at their first and last token."""
        return self.manager.get_client(client_cls=TurnBudgetClient)

    def load_first(self, version: int) -> dict[str, float]:
        """Let every replica hold v_version, and wait for it: at the start of a run.

        Returns and raises as :meth:`send_weights`.
        """
        return self.send_weights(version)

    def send_weights(self, version: int) -> dict[str, float]:
        """Send the actor's weights, which are v_version, to every replica.

        Returns:
            ``pipeline/weight_sync/*`` metrics: one sync, its seconds, aborted requests if they are
            known, and what the engine reports.

        Raises:
            DeadlineExceeded: a side did not answer in time.
            RolloutServerDead: a replica died meanwhile.
            WeightsDiffer: a replica does not hold what was sent.
        """
        start = time.perf_counter()
        # verl calls the engine that derived_settings.py chose: its own nccl engine on GPUs, with
        # our cast before it; weight_sync/gloo_broadcast.py on CPUs.
        metrics = run_with_deadline(
            lambda: self._send_and_compare(version),
            self.deadlines.weight_sync_s,
            f"weight sync of v_{version} from the trainer to replicas {', '.join(self.addresses)}",
            f"look at the logs of these servers, or raise {PIPELINE_KEY}.deadlines.weight_sync_s "
            "for a slow network",
            watchdog=self.check_health,
            watch_every_s=self.deadlines.health_check_every_s,
        )
        self.version = version
        report = {
            "pipeline/weight_sync/count": 1.0,
            **{f"pipeline/{key}": value for key, value in metrics.items()},
        }
        seconds = time.perf_counter() - start
        report["pipeline/weights/compare_s"] = seconds - report["pipeline/weight_sync/seconds"]
        if (aborted := self._weight_sync.aborted_requests) is not None:
            report["pipeline/weight_sync/aborted_requests"] = float(aborted)
        return report

    def _send_and_compare(self, version: int) -> dict[str, float]:
        self.fingerprints.begin(version)
        start = time.perf_counter()
        metrics = self._weight_sync.update_weights(version) or {}
        seconds = time.perf_counter() - start
        self.fingerprints.compare(version)
        return {**metrics, "weight_sync/seconds": seconds}

    def hold_version(self, version: int) -> None:
        """Let no replica take newer weights than v_version, until it is released."""

    def release_version(self) -> None:
        """Let the replicas take the newest weights again."""

    def has_lost(self, name: str, error: Exception | None = None) -> bool:
        """Whether a replica is lost that the run goes on without; with a barrier it never does.

        Args:
            name: that errors use.
            error: what a request to it has just ended with.
        """
        return False

    def describe(self) -> str:
        """What the replicas hold and do, in one line, for errors."""
        return f"every replica holds v_{self.version}"

    def close(self) -> None:
        """The run ends: nothing is sent to the replicas any more."""

    def check_health(self) -> None:
        """Check that every replica lives.

        Raises:
            RolloutServerDead: one is dead, or has been silent for too long.
        """
        if not self.addresses:
            return
        servers = [replica.servers for replica in self.manager.get_replicas()]
        with ThreadPoolExecutor(max_workers=len(servers)) as executor:
            probes = list(executor.map(self._probe_replica, self.addresses, servers))
        for rank, (watch, (sign, seen)) in enumerate(zip(self._watches, probes, strict=True)):
            if (verdict := watch.judge(sign)) is not None:
                name = f"rollout replica {rank} at {self.addresses[rank]}"
                raise RolloutServerDead(describe_death(name, self._engine, verdict, seen))

    def _probe_replica(self, address: str, servers: list[Any]) -> tuple[Sign, str]:
        return probe_replica(self._engine, address, servers, self.deadlines.health_check_s)


def make_death(role: str, error: ray.exceptions.RayActorError) -> WorkerDead:
    """The error that names who died, in the words of Ray's."""
    advice = DEATH_ADVICE.format(log="worker-*.err")
    return WorkerDead(f"{role} died: {str(error).splitlines()[0]} {advice}")


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
        for probe in answered:
            with suppress(ray.exceptions.ActorUnavailableError):  # not dead: asked again
                ray.get(probe)
    except ray.exceptions.RayActorError as error:
        raise make_death(role, error) from error
    return [actor.__ray_ready__.remote() for actor in actors]
