"""Reads fingerprints of the weights that a replica holds, rank by rank.

Invariants:
* Only the servers with an engine answer: a replica over several nodes has one.
* A server answers other calls meanwhile.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from verl_pipeline.weight_sync.comparison import RankReading, parse_reading

# Between two questions whether a reading is done; each costs a message to the server.
POLL_S = 0.02


@dataclass(frozen=True)
class ReadingRequest:
    """What to read.

    Attributes:
        names: tensors that the trainer sent.
        dtype: torch's name of the dtype to look at them in; None: as they are held.
    """

    names: list[str]
    dtype: str | None


async def read_replica(servers: Sequence[Any], request: ReadingRequest) -> list[RankReading]:
    """What the ranks of one replica hold of the tensors of ``request``.

    Args:
        servers: the replica's server actors.
    """
    asked = [
        server.__ray_call__.remote(_begin_reading, request.names, request.dtype)
        for server in servers
    ]
    has_engine = [await answer for answer in asked]
    readings: list[RankReading] = []
    for server, has in zip(servers, has_engine, strict=True):
        while has:
            answer = await server.__ray_call__.remote(_take_reading)
            if answer is not None:
                readings += [parse_reading(rank) for rank in answer]
                break
            await asyncio.sleep(POLL_S)
    return readings


def _begin_reading(server: Any, names: list[str], dtype: str | None) -> bool:
    """Runs in the server's process, in a thread beside its event loop: must not wait."""
    engine = getattr(server, "engine", None)
    if engine is None:
        return False
    call: Callable = engine.collective_rpc
    server._weight_reading = asyncio.run_coroutine_threadsafe(
        call("read_fingerprints", args=(names, dtype)), server._server_task.get_loop()
    )
    return True


def _take_reading(server: Any) -> list[dict[str, Any]] | None:
    """The answers of all ranks, None until they are there; runs in the server's process."""
    if not server._weight_reading.done():
        return None
    reading, server._weight_reading = server._weight_reading, None
    return reading.result()
