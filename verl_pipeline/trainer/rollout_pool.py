"""The rollout pool: its servers, the weights they hold, and whether they live.

Invariants:
* ``version`` is what every replica holds; it changes in :meth:`RolloutPool.send_weights` only.
* A weight sync finds a drained pool. A request that it aborts belonged to a trajectory that was
  already given up (its deadline passed); any other is an error.
* A dead replica is named within one health check and its timeout.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
import requests
from omegaconf import DictConfig
from verl.checkpoint_engine import CheckpointEngineManager
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.rollout.llm_server import (
    FullyAsyncLLMServerClient,
    LLMServerClient,
    LLMServerManager,
)
from verl.workers.rollout.utils import update_prometheus_config

from verl_pipeline.trainer.config import PREFIX, Deadlines
from verl_pipeline.trainer.deadline import run_with_deadline

# Longest time for vLLM to end its engine processes, in seconds.
CLOSE_S = 20.0


class RolloutServerDead(RuntimeError):
    """A rollout replica does not answer any more."""


class WorkerDead(RuntimeError):
    """A process that trajectories are awaited from has died."""


class UnexpectedAbort(RuntimeError):
    """A weight sync interrupted a trajectory that somebody still waits for."""


class _CountingCheckpointManager(CheckpointEngineManager):
    """verl's manager, which also says how many requests its last sync aborted."""

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
        config: verl's configuration, completed by :mod:`verl_pipeline.trainer.derive`.
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
            update_prometheus_config(
                rollout.prometheus, self.manager.server_addresses, rollout.name
            )
        self._checkpoints = _CountingCheckpointManager(
            config=omega_conf_to_dataclass(rollout.checkpoint_engine),
            actor_wg=actor_wg,
            replicas=self.manager.get_replicas(),
        )

    @property
    def addresses(self) -> list[str]:
        """``host:port`` of each replica's HTTP server."""
        return self.manager.get_addresses()

    def client(self) -> LLMServerClient:
        """A client whose trajectories carry the versions they began and ended with."""
        return self.manager.get_client(client_cls=FullyAsyncLLMServerClient)

    def send_weights(self, version: int, *, given_up: int) -> dict[str, float]:
        """Bring the actor's weights, which are v_version, to every replica.

        Args:
            given_up: trajectories of the drained batches that were given up, whose requests may
                still run.

        Returns:
            ``pipeline/weight_sync/*`` metrics: seconds, aborted requests, and what the engine
                reports.

        Raises:
            UnexpectedAbort: more requests were aborted than trajectories had been given up.
            DeadlineExceeded: a side did not answer in time.
            RolloutServerDead: a replica died meanwhile.
        """
        start = time.perf_counter()
        metrics = run_with_deadline(
            lambda: self._checkpoints.update_weights(version),
            self.deadlines.weight_sync_s,
            f"weight sync of v_{version} from the trainer to replicas {', '.join(self.addresses)}",
            f"look at the logs of these servers, or raise {PREFIX}.deadlines.weight_sync_s for a "
            "slow network",
            watchdog=self.check_health,
            watch_every_s=self.deadlines.health_check_every_s,
        )
        aborted = self._checkpoints.aborted_requests
        if aborted > given_up:
            raise UnexpectedAbort(
                f"sending v_{version} aborted {aborted} requests of {given_up} trajectories given "
                "up: the pool had not drained. Requests of your own to the rollout servers must "
                "end before a batch does"
            )
        self.version = version
        return {
            "pipeline/weight_sync/seconds": time.perf_counter() - start,
            "pipeline/weight_sync/aborted_requests": float(aborted),
            **{f"pipeline/{key}": value for key, value in (metrics or {}).items()},
        }

    def check_health(self) -> None:
        """Ask every replica whether it lives.

        Raises:
            RolloutServerDead: one did not answer, or answered that its engine is dead.
        """
        if not self.addresses:
            return
        with ThreadPoolExecutor(max_workers=len(self.addresses)) as executor:
            list(executor.map(self._check_server, range(len(self.addresses)), self.addresses))

    def _check_server(self, rank: int, address: str) -> None:
        try:
            answer = requests.get(f"http://{address}/health", timeout=self.deadlines.health_check_s)
        except requests.RequestException as error:
            raise RolloutServerDead(
                f"{_name(rank, address)} does not answer: {error}. {_ADVICE}"
            ) from error
        if answer.status_code != 200:
            raise RolloutServerDead(
                f"{_name(rank, address)} answers {answer.status_code}: its engine died. {_ADVICE}"
            )


_ADVICE = (
    "Its log is in Ray's session folder (worker-*.err of the vLLM server); a common cause is "
    "memory. Resume from the last checkpoint with the same command"
)


def ask_actors(actors: list[Any], asked: list[ray.ObjectRef], what: str) -> list[ray.ObjectRef]:
    """Look at the answers to the last question whether these actors live, and ask again; waits for
    nobody.

    Args:
        asked: what the last call returned.
        what: the actors' role, for the error.

    Raises:
        WorkerDead: one has died.
    """
    done, _pending = ray.wait(asked, num_returns=len(asked), timeout=0) if asked else ([], [])
    try:
        ray.get(done)
    except ray.exceptions.RayActorError as error:
        raise WorkerDead(
            f"{what} died: {str(error).splitlines()[0]} Its log is in Ray's session folder "
            "(worker-*.err); a common cause is memory. Resume from the last checkpoint with the "
            "same command"
        ) from error
    return [actor.__ray_ready__.remote() for actor in actors]


def end_engines(manager: LLMServerManager) -> None:
    """End the inference engines in order, so that they free what they share with their workers.

    Ray kills a server and what it started; vLLM's shared memory (hundreds of MB a replica) would
    stay behind.
    """
    servers = [server for replica in manager.get_replicas() for server in replica.servers]
    ended = [server.__ray_call__.remote(_end_engine) for server in servers]
    ray.wait(ended, num_returns=len(ended), timeout=2 * CLOSE_S)


def _end_engine(server: Any) -> None:
    """Runs in the server's process."""
    engine = getattr(server, "engine", None)
    if engine is not None and hasattr(engine, "shutdown"):
        engine.shutdown(timeout=CLOSE_S)


def _name(rank: int, address: str) -> str:
    return f"rollout replica {rank} at {address}"
