"""The dispatcher: a Ray actor that decides where trajectories begin, and which replica loads when.

:mod:`verl_pipeline.trainer.schedule` says what may happen, :mod:`verl_pipeline.trainer.dispatch`
keeps the book; here is who asks and who is told. It stands in the place of verl's load balancer.

Invariants:
* Everything runs on one event loop, so the book never sees two events at a time.
* A trajectory asks once, when it begins; its turns go to the same replica without asking again.
* Each process of agent loops has two calls open at most, however many of its trajectories wait.
* A replica that is lost takes nothing any more, whoever has found it out: a load that failed, the
  client of a request, or the trainer's patrol (:mod:`.rollout.replica_patrol`), which is told of
  all of them. Whoever waits for it is told, and asks for another place.
* The slots of an agent loop worker that dies stay taken until its trajectories can begin again
  (:mod:`.rollout.loop_succession`): none is lost unseen.
* Every load is a span ``load_weights`` on its replica's lane of the run's records.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from verl.workers.rollout.router import GlobalRequestLoadBalancer

from verl_pipeline.telemetry.recorder import RunTarget, open_recorder
from verl_pipeline.telemetry.records import Pool, Span
from verl_pipeline.trainer.dispatch import Arrival, DispatchBook, Grant, Loss
from verl_pipeline.trainer.schedule import Load
from verl_pipeline.verl_adapter.rollout.replica_ports import ReplicaPort
from verl_pipeline.verl_adapter.weights.replica_reading import ReadingRequest
from verl_pipeline.weight_sync.comparison import RankReading

# Two for each process of agent loops, and the trainer's.
MOST_CALLS = 10_000


@dataclass(frozen=True)
class Reading:
    """What the ranks of a replica held after a load."""

    version: int
    replica: str
    ranks: list[RankReading]


@dataclass(frozen=True)
class ReplicaLoss:
    """A replica that was taken out.

    Attributes:
        replica: its name at the dispatcher.
        seen: why, as a clause or as an error's text.
        trajectories: that were open on it, and are sampled again.
        at: when, in seconds since the epoch.
    """

    replica: str
    seen: str
    trajectories: int
    at: float


class Dispatcher(GlobalRequestLoadBalancer):
    """See the module.

    Args:
        ports: the replicas.
        slots: trajectories that each may have open.
        mode: ``rolling`` or ``in_flight``.
        target: where it records.
    """

    def __init__(self, ports: Sequence[ReplicaPort], slots: int, mode: str, target: RunTarget):
        super().__init__({port.address: port.handle for port in ports})
        self._ports = {port.address: port for port in ports}
        self._book = DispatchBook({port.address: slots for port in ports}, mode)
        # By version that can be loaded, what to read of each replica that has.
        self._requests: dict[int, ReadingRequest | None] = {}
        self._readings: list[Reading] = []
        # By trajectory, the process that asked; by process, what it has not taken yet.
        self._askers: dict[str, str] = {}
        self._news: dict[str, asyncio.Queue[Grant | Loss]] = defaultdict(asyncio.Queue)
        # By replica.
        self._loads: dict[str, asyncio.Task[None]] = {}
        self._slots = slots
        # Processes that have died, whose calls may come late.
        self._forgotten: set[str] = set()
        self._losses: list[ReplicaLoss] = []
        # By replica that cannot load yet, the first version that it can.
        self._joining: dict[str, int] = {}
        self._is_closed = False
        self._recorder = open_recorder(target, "dispatcher")
        self._lanes = {port.address: f"replica {rank}" for rank, port in enumerate(ports)}

    async def list_handles(self) -> dict[str, Any]:
        """What requests are sent to, by replica."""
        return self._servers

    async def list_lanes(self) -> dict[str, str]:
        """Lanes of the run's records, by replica."""
        return self._lanes

    async def tell(self, asker: str, arrivals: Sequence[Arrival], ends: Sequence[str]) -> None:
        """What has happened in a process of agent loops since its last call.

        Args:
            asker: the process.
            arrivals: its trajectories that want to begin.
            ends: those that need their replica no more, or do not want to begin any more, by name.
                What has arrived in the same call may be among them.
        """
        if asker in self._forgotten:
            return
        for arrival in arrivals:
            self._book.arrive(arrival.name, arrival.batch, arrival.window)
            self._askers[arrival.name] = asker
        for name in ends:
            self._askers.pop(name, None)
            self._book.end(name)
        self._act()

    async def take_news(self, asker: str) -> list[Grant | Loss]:
        """Wait until trajectories of a process may begin, or have lost their replica; returns all
        that has happened.
        """
        news = self._news[asker]
        first = await news.get()
        return [first, *(news.get_nowait() for _ in range(news.qsize()))]

    async def forget(self, asker: str) -> None:
        """A process has died: its trajectories end, and nothing is taken from it any more."""
        self._forgotten.add(asker)
        for name in [name for name, process in self._askers.items() if process == asker]:
            del self._askers[name]
            self._book.end(name)
        self._news.pop(asker, None)
        self._act()

    async def publish(self, version: int, request: ReadingRequest | None) -> None:
        """Let the replicas load this version.

        Args:
            request: what to read of each replica that has loaded it.
        """
        loadable = self._book.loadable
        self._requests = {loadable: self._requests.get(loadable), version: request}
        self._book.publish(version)
        self._act()

    async def hold(self, version: int) -> None:
        """Let no replica load a newer version than this."""
        self._book.hold(version)
        self._act()

    async def release(self) -> None:
        """Let the replicas load the newest version again; returns when nobody loads the held one
        any more.
        """
        begun = set(self._loads.values())
        self._book.hold(None)
        self._act()
        if begun:
            await asyncio.wait(begun)

    async def lose(self, replica: str, seen: str) -> None:
        """Take a replica out; its trajectories are told. Without effect if it is out already.

        Args:
            replica: its name.
            seen: why, as :class:`ReplicaLoss` has it.
        """
        if self._joining.pop(replica, None) is None and replica not in self._book.replicas:
            return
        load = self._loads.pop(replica, None)
        if load is not None and load is not asyncio.current_task():
            load.cancel()
        lost = self._book.lose(replica)
        for one in lost:
            self._news[self._askers.pop(one.trajectory)].put_nowait(one)
        self._losses.append(ReplicaLoss(replica, seen, len(lost), time.time()))
        now, detail = self._recorder.now(), {"seen": seen, "trajectories": len(lost)}
        self._recorder.add(
            Span(Pool.ROLLOUT, self._lanes[replica], "lost", now, now, detail=detail)
        )
        self._act()

    async def join(self, port: ReplicaPort, lane: str, oldest: int) -> None:
        """Take a replica in, which holds no weights of the run yet.

        Args:
            lane: of the run's records.
            oldest: the first version that it can load; it takes no part before that is published.
        """
        self._ports[port.address], self._servers[port.address] = port, port.handle
        self._lanes[port.address] = lane
        self._joining[port.address] = oldest
        self._act()

    async def take_losses(self) -> list[ReplicaLoss]:
        """The replicas that were lost since the last call."""
        losses, self._losses = self._losses, []
        return losses

    async def take_readings(self) -> list[Reading]:
        """What has been read since the last call."""
        readings, self._readings = self._readings, []
        return readings

    async def find_versions(self) -> dict[str, int | None]:
        """What each replica holds; None while it loads."""
        return {
            name: None if replica.loading is not None else replica.version
            for name, replica in self._book.replicas.items()
        }

    async def finish_loads(self, seconds: float) -> bool:
        """Let nothing begin or load any more, and wait for the loads that have begun.

        Returns:
            Whether all of them have ended within ``seconds``.
        """
        self._is_closed = True
        if not self._loads:
            return True
        _ended, open_loads = await asyncio.wait(self._loads.values(), timeout=seconds)
        return not open_loads

    async def describe(self) -> str:
        """The state in one line, for errors."""
        return self._book.describe()

    def _act(self) -> None:
        if self._is_closed:
            return
        for name, oldest in list(self._joining.items()):
            if oldest <= self._book.loadable:
                del self._joining[name]
                self._book.join(name, self._slots)
        for action in self._book.take_actions():
            if isinstance(action, Grant):
                self._news[self._askers[action.trajectory]].put_nowait(action)
            else:
                request = self._requests[action.version]
                self._loads[action.replica] = asyncio.get_running_loop().create_task(
                    self._load(action, request)
                )

    async def _load(self, load: Load, request: ReadingRequest | None) -> None:
        lane, detail = self._lanes[load.replica], {"version": load.version}
        try:
            with self._recorder.record_span(Pool.ROLLOUT, lane, "load_weights", **detail):
                ranks = await self._ports[load.replica].load(load.version, request)
        except Exception as error:  # an engine answers with whatever went wrong there
            await self.lose(load.replica, str(error) or repr(error))
            return
        del self._loads[load.replica]
        if request is not None:
            self._readings.append(Reading(load.version, load.replica, ranks))
        self._book.finish_load(load.replica)
        self._act()


def start_dispatcher(ports: Sequence[ReplicaPort], slots: int, mode: str, target: RunTarget) -> Any:
    """Start the actor; returns its handle."""
    # With the trainer, whose end is the run's: a node of replicas may go.
    node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"max_concurrency": MOST_CALLS, "scheduling_strategy": node}
    return ray.remote(Dispatcher).options(**options).remote(ports, slots, mode, target)
