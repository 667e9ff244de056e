"""Lets one replica load a version of the weights from the host memory of its nodes.

It runs wherever the replica's actors can be called; :mod:`.publication` has put the version there.

Invariants:
* Nothing is aborted or released. What runs is frozen if the caller says that something may.
* verl's way from the host memory into the engine: ``CheckpointEngineWorker.update_weights``, whose
  engine reads the store (:mod:`.storing_engine`). verl's adapter clears the replica's prefix
  cache afterwards and sets its version.
* A replica that dies, fails or takes too long is named. Its weights may be half loaded then, so
  that it must sample no more.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from verl.workers.rollout.replica import RolloutReplica

from verl_pipeline.trainer.deadlines import DeadlineExceeded
from verl_pipeline.trainer.pipeline_config import PIPELINE_KEY, Deadlines
from verl_pipeline.trainer.server_health import ServerWatch
from verl_pipeline.verl_adapter.rollout.replica_probe import (
    LOG_ADVICE,
    RolloutServerDead,
    probe_replica,
)
from verl_pipeline.verl_adapter.weights.replica_reading import ReadingRequest, read_replica
from verl_pipeline.weight_sync.buckets import WeightSyncError
from verl_pipeline.weight_sync.comparison import RankReading


@dataclass(frozen=True)
class ReplicaActors:
    """The actors of a rollout replica, to be called from any process of the run.

    Attributes:
        name: what errors call it.
        engine: ``rollout.name``.
        address: ``host:port`` of its HTTP server.
        servers: its server actors, one a node.
        workers: its CheckpointEngineWorkers, one a rank.
    """

    name: str
    engine: str
    address: str
    servers: Sequence[Any]
    workers: Sequence[Any]


def list_replica_actors(
    engine: str, replicas: Sequence[RolloutReplica], addresses: Sequence[str]
) -> list[ReplicaActors]:
    """The actors of a pool's replicas.

    Args:
        engine: ``rollout.name``.
        addresses: ``host:port`` of each replica.
    """
    return [
        make_replica_actors(engine, rank, replica, address)
        for rank, (replica, address) in enumerate(zip(replicas, addresses, strict=True))
    ]


def make_replica_actors(
    engine: str, rank: int, replica: RolloutReplica, address: str
) -> ReplicaActors:
    """The actors of one replica."""
    return ReplicaActors(
        f"rollout replica {rank} at {address}",
        engine,
        address,
        list(replica.servers),
        list(replica.workers),
    )


async def load_weights(
    replica: ReplicaActors,
    version: int,
    deadlines: Deadlines,
    request: ReadingRequest | None = None,
    keep_kv: bool | None = None,
) -> list[RankReading]:
    """Load ``version`` into ``replica``.

    Args:
        version: published, and not dropped.
        deadlines: longest waits.
        request: what to read of the replica afterwards; None: nothing.
        keep_kv: freeze what runs meanwhile, and keep the KV cache of it or not; None: nothing runs.

    Returns:
        The readings of its ranks, if there is a ``request``.

    Raises:
        RolloutServerDead: a process of the replica died meanwhile.
        WeightSyncError: the version cannot be loaded.
        DeadlineExceeded: ``deadlines.weight_sync_s`` was not enough.
    """
    loading = asyncio.create_task(_load_and_read(replica, version, request, keep_kv))
    watching = asyncio.create_task(_watch(replica, version, deadlines))
    tasks = {loading, watching}
    try:
        done, _open = await asyncio.wait(
            tasks, timeout=deadlines.weight_sync_s, return_when=asyncio.FIRST_COMPLETED
        )
        if not done:
            raise DeadlineExceeded(
                f"load of v_{version} by {replica.name}: not done after "
                f"{deadlines.weight_sync_s:g} s; look at this server's log, or raise "
                f"{PIPELINE_KEY}.deadlines.weight_sync_s for a large model"
            )
        return loading.result() if loading in done else watching.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _load_and_read(
    replica: ReplicaActors, version: int, request: ReadingRequest | None, keep_kv: bool | None
) -> list[RankReading]:
    name = f"{replica.name}, while it loaded v_{version},"
    servers = replica.servers
    try:
        if keep_kv is not None:
            await asyncio.gather(*[server.freeze.remote(keep_kv) for server in servers])
        await _receive(replica, version)
        readings = await read_replica(servers, request) if request is not None else []
        if keep_kv is not None:
            await asyncio.gather(*[server.thaw.remote(version) for server in servers])
        return readings
    except RayTaskError as error:
        if isinstance(error.cause, RayActorError):
            raise _make_death(name, replica.engine, error.cause) from error
        raise _make_failure(replica.name, version, error.cause) from error
    except RayActorError as error:
        raise _make_death(name, replica.engine, error) from error


async def _receive(replica: ReplicaActors, version: int) -> None:
    receiving = [worker.update_weights.remote(global_steps=version) for worker in replica.workers]
    try:
        await asyncio.gather(*receiving)
    except asyncio.CancelledError:
        # Who sends to an engine's worker that failed would wait for it until its own deadline.
        for call in receiving:
            ray.cancel(call)
        raise


def _make_death(name: str, engine: str, error: RayActorError) -> RolloutServerDead:
    seen = f"a process of it ended: {str(error).splitlines()[0]}"
    return RolloutServerDead(_describe_loss(name, engine, "died", seen))


def _describe_loss(name: str, engine: str, verdict: str, seen: str) -> str:
    advice = LOG_ADVICE.format(log=f"worker-*.err of the {engine} server")
    return f"{name} {verdict}: {seen}. {advice}"


async def _watch(replica: ReplicaActors, version: int, deadlines: Deadlines) -> Any:
    """Ends, with an error, only when the replica is found dead or its engine has failed to load."""
    watch = ServerWatch(deadlines.silent_server_s)
    while True:
        await asyncio.sleep(deadlines.health_check_every_s)
        sign, seen = await asyncio.to_thread(
            probe_replica,
            replica.engine,
            replica.address,
            list(replica.servers),
            deadlines.health_check_s,
        )
        if (verdict := watch.judge(sign)) is not None:
            name = f"{replica.name}, while it loaded v_{version},"
            raise RolloutServerDead(_describe_loss(name, replica.engine, verdict, seen))
        if (failure := await _find_failure(replica.servers, deadlines.health_check_s)) is not None:
            raise _make_failure(replica.name, version, failure)


async def _find_failure(servers: Sequence[Any], seconds: float) -> str | None:
    """What a server knows of a load that failed in its engine; None also if it does not answer,
    which the probe judges.
    """
    asking = [server for server in servers if hasattr(server, "tell_load_failure")]
    with contextlib.suppress(RayError, TimeoutError):
        async with asyncio.timeout(seconds):
            told = await asyncio.gather(*[one.tell_load_failure.remote() for one in asking])
            return next((failure for failure in told if failure is not None), None)
    return None


def _make_failure(name: str, version: int, cause: Any) -> WeightSyncError:
    return WeightSyncError(
        f"{name} could not load v_{version}, and its weights may be half loaded: {cause}"
    )
