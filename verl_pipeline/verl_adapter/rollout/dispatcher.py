"""The dispatcher: a Ray actor that decides where trajectories begin, and which replica loads when.

:mod:`verl_pipeline.trainer.schedule` says what may happen, :mod:`verl_pipeline.trainer.dispatch`
keeps the book; here is who asks and who is told. It stands in the place of verl's load balancer.

Invariants:
* Everything runs on one event loop, so the book never sees two events at a time.
* A trajectory asks once, when it begins; its turns go to the same replica without asking again.
* Each process of agent loops has two calls open at most, however many of its trajectories wait.
* A load that fails is kept for the trainer, which ends the run with it; the replica takes no
  trajectory meanwhile.
* The slots of an agent loop worker that dies stay taken: no trajectory is lost unseen, and the
  trainer's watchdog (:mod:`.rollout.awaited_workers`) ends the run.
* Every load is a span ``load_weights`` on its replica's lane of the run's records.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from verl.workers.rollout.router import GlobalRequestLoadBalancer

from verl_pipeline.telemetry.recorder import RunTarget, open_recorder
from verl_pipeline.telemetry.records import Pool
from verl_pipeline.trainer.dispatch import Arrival, DispatchBook, Grant
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
        # By trajectory that waits, the process that asked; by process, what it has not taken yet.
        self._askers: dict[str, str] = {}
        self._grants: dict[str, asyncio.Queue[Grant]] = defaultdict(asyncio.Queue)
        self._loads: set[asyncio.Task[None]] = set()
        self._failures: list[Exception] = []
        self._is_closed = False
        self._recorder = open_recorder(target, "dispatcher")
        self._lanes = {port.address: f"replica {rank}" for rank, port in enumerate(ports)}

    async def list_handles(self) -> dict[str, Any]:
        """What requests are sent to, by replica."""
        return self._servers

    async def tell(self, asker: str, arrivals: Sequence[Arrival], ends: Sequence[str]) -> None:
        """What has happened in a process of agent loops since its last call.

        Args:
            asker: the process.
            arrivals: its trajectories that want to begin.
            ends: those that need their replica no more, or do not want to begin any more, by name.
                What has arrived in the same call may be among them.
        """
        for arrival in arrivals:
            self._book.arrive(arrival.name, arrival.batch, arrival.window)
            self._askers[arrival.name] = asker
        for name in ends:
            self._askers.pop(name, None)
            self._book.end(name)
        self._act()

    async def take_grants(self, asker: str) -> list[Grant]:
        """Wait until trajectories of a process may begin; returns all that may."""
        grants = self._grants[asker]
        first = await grants.get()
        return [first, *(grants.get_nowait() for _ in range(grants.qsize()))]

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
        begun = set(self._loads)
        self._book.hold(None)
        self._act()
        if begun:
            await asyncio.wait(begun)

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

    async def find_failure(self) -> Exception | None:
        """The error of the first load that has failed."""
        return self._failures[0] if self._failures else None

    async def finish_loads(self, seconds: float) -> bool:
        """Let nothing begin or load any more, and wait for the loads that have begun.

        Returns:
            Whether all of them have ended within ``seconds``.
        """
        self._is_closed = True
        if not self._loads:
            return True
        _ended, open_loads = await asyncio.wait(set(self._loads), timeout=seconds)
        return not open_loads

    async def describe(self) -> str:
        """The state in one line, for errors."""
        return self._book.describe()

    def _act(self) -> None:
        if self._is_closed:
            return
        for action in self._book.take_actions():
            if isinstance(action, Grant):
                self._grants[self._askers.pop(action.trajectory)].put_nowait(action)
            else:
                request = self._requests[action.version]
                task = asyncio.get_running_loop().create_task(self._load(action, request))
                self._loads.add(task)
                task.add_done_callback(self._loads.discard)

    async def _load(self, load: Load, request: ReadingRequest | None) -> None:
        port = self._ports[load.replica]
        lane, detail = self._lanes[load.replica], {"version": load.version}
        try:
            with self._recorder.record_span(Pool.ROLLOUT, lane, "load_weights", **detail):
                ranks = await port.load(load.version, request)
        except Exception as error:  # an engine answers with whatever went wrong there
            self._failures.append(error)
            return
        if request is not None:
            self._readings.append(Reading(load.version, load.replica, ranks))
        self._book.finish_load(load.replica)
        self._act()


def start_dispatcher(ports: Sequence[ReplicaPort], slots: int, mode: str, target: RunTarget) -> Any:
    """Start the actor; returns its handle."""
    options = {"max_concurrency": MOST_CALLS}
    return ray.remote(Dispatcher).options(**options).remote(ports, slots, mode, target)
