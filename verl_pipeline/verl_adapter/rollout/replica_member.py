"""A rollout replica as the patrol sees it, and whether it counts as lost."""

from dataclasses import dataclass, field
from typing import Any

import ray

from verl_pipeline.trainer.pipeline_config import PIPELINE_KEY, Deadlines
from verl_pipeline.trainer.replica_speed import Works
from verl_pipeline.trainer.server_health import ServerWatch, Sign
from verl_pipeline.verl_adapter.rollout.replica_end import Footprint
from verl_pipeline.verl_adapter.rollout.replica_probe import probe_replica


@dataclass
class Member:
    """A replica of verl's manager.

    Attributes:
        rank: its number.
        name: what lines and errors call it.
        address: of its HTTP server.
        places: its names at the dispatcher; an emulated one stands for several replicas.
        replica: verl's object.
        watch: what its health checks have seen so far.
        footprints: of its servers and of its workers.
        works: what its engine has done so far; None if it does not tell.
        is_lost: it takes no part any more.
        stays_out: it does not start again either.
    """

    rank: int
    name: str
    address: str
    places: list[str]
    replica: Any
    watch: ServerWatch
    footprints: list[Footprint] = field(default_factory=list)
    works: Works | None = None
    is_lost: bool = False
    stays_out: bool = False

    @property
    def is_emulated(self) -> bool:
        """Whether there is no engine behind it."""
        return hasattr(self.replica, "make_ports")


def make_member(rank: int, replica: Any, address: str, deadlines: Deadlines) -> Member:
    """Of a replica that has started."""
    make_ports = getattr(replica, "make_ports", None)
    places = [port.address for port in make_ports(address)] if make_ports else [address]
    name = f"rollout replica {rank} at {address}"
    return Member(rank, name, address, places, replica, ServerWatch(deadlines.silent_server_s))


def judge(member: Member, engine: str, deadlines: Deadlines, nodes: set[str]) -> str | None:
    """Why a replica counts as lost, as a clause; None if it does not. Reads ``works``, too.

    Args:
        engine: ``rollout.name``.
        nodes: Ray's ids of those that live.
    """
    if any(footprint.node not in nodes for footprint in member.footprints):
        return "its node is gone"
    seconds = deadlines.health_check_s
    sign, seen = probe_replica(engine, member.address, member.replica.servers, seconds)
    if (verdict := member.watch.judge(sign)) is not None:
        return f"it {verdict}: {seen}"
    handle = member.replica.server_handle
    if sign is not Sign.ALIVE or not hasattr(handle, "measure_silence"):
        return None
    try:
        asked = [handle.measure_silence.remote(), handle.measure_work.remote()]
        silence, member.works = ray.get(asked, timeout=seconds)
    except ray.exceptions.RayError:  # the next probe says more
        return None
    if silence <= deadlines.token_s:
        return None
    return (
        f"it runs requests and has sampled no token for {silence:.0f} s "
        f"({PIPELINE_KEY}.deadlines.token_s={deadlines.token_s:g})"
    )
