"""The processes of :mod:`benchmarks.dispatch`: agent loops that only ask, replicas that only sleep.

Invariant: a trajectory does with the real client and dispatcher what a loop of one turn does.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import psutil
import ray

from verl_pipeline.telemetry.recorder import RunTarget
from verl_pipeline.telemetry.records import FORMAT, Header
from verl_pipeline.trainer.schedule import find_window

MODE, STALENESS = "rolling", 8
# Processes that the replicas share, and names that one call carries to the agent loop workers.
HOSTS, SUBMIT_ROWS = 2, 1024
POLL_S = 0.02
# Nothing is recorded.
NOWHERE = RunTarget(
    None, Header(FORMAT, "", "", 0, 0.0, "", "", 0, 0, 0, False, 0, None, 0, 0, 0, 0)
)


class ReplicaHost:
    """Several replicas that only sleep.

    Attributes:
        arrivals: by replica, when a request came.
    """

    def __init__(self) -> None:
        self.arrivals: dict[int, list[float]] = defaultdict(list)

    async def generate(self, replica: int, request_id: str, seconds: float) -> None:
        """One turn of a trajectory."""
        self.arrivals[replica].append(time.perf_counter())
        await asyncio.sleep(seconds)

    async def take_arrivals(self) -> dict[int, list[float]]:
        """What came since the last call."""
        arrivals, self.arrivals = dict(self.arrivals), defaultdict(list)
        return arrivals


@dataclass(frozen=True)
class SleepingPort:
    """See :class:`~verl_pipeline.verl_adapter.rollout.replica_ports.ReplicaPort`."""

    address: str
    handle: Any

    async def load(self, version: int, request: Any) -> list[Any]:
        """Takes no time."""
        return []


class LoopWorker:
    """Stands for one agent loop worker.

    Attributes:
        ends: by replica, when a trajectory has left it.
    """

    def __init__(self) -> None:
        self.ends: dict[str, list[float]] = defaultdict(list)
        self.tasks: set[asyncio.Task[None]] = set()
        self.client: Any = None

    async def use_dispatcher(self, dispatcher: Any) -> None:
        """Ask this one from now on."""
        from verl_pipeline.verl_adapter.rollout.dispatched_client import DispatchedClient

        # Of the configuration, only how a turn is limited is read.
        self.client = DispatchedClient(SimpleNamespace(), dispatcher)

    async def stop(self) -> None:
        """Forget the trajectories that have not ended."""
        tasks, self.tasks = self.tasks, set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.ends.clear()

    async def submit(self, batch: int, lengths: dict[str, float]) -> None:
        """Begin trajectories; as verl's, it waits for none."""
        for name, seconds in lengths.items():
            task = asyncio.get_running_loop().create_task(self._sample(name, batch, seconds))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _sample(self, name: str, batch: int, seconds: float) -> None:
        async with self.client.hold_place(name, batch, find_window(batch, STALENESS)):
            server, handle = await self.client._find_server(name)
            await handle.generate.remote(request_id=name, seconds=seconds)
            self.ends[server].append(time.perf_counter())

    async def count_open(self) -> int:
        """Trajectories that have not ended."""
        return len(self.tasks)

    async def take_ends(self) -> dict[str, list[float]]:
        """What has ended since the last call."""
        ends, self.ends = dict(self.ends), defaultdict(list)
        return ends


@dataclass
class Pool:
    """What one measurement runs on."""

    hosts: list[Any]
    workers: list[Any]
    dispatcher: Any

    def submit(self, batch: int, seconds: list[float]) -> None:
        """Let a batch of trajectories of these lengths be sampled."""
        calls = []
        rows = list(enumerate(seconds))
        for start in range(0, len(rows), SUBMIT_ROWS):
            part = rows[start : start + SUBMIT_ROWS]
            for number, worker in enumerate(self.workers):
                mine = part[number :: len(self.workers)]
                lengths = {f"b{batch}p{row}": length for row, length in mine}
                calls.append(worker.submit.remote(batch, lengths))
        ray.get(calls)

    def wait(self, is_over: Callable[[], bool]) -> None:
        """Poll until something is so."""
        while not is_over():
            time.sleep(POLL_S)

    def count_known(self) -> int:
        """Trajectories that have reached the dispatcher and not ended."""
        return self.ask(lambda actor: actor._book.open_count + actor._book.waiting_count)

    def count_unfinished(self) -> int:
        """Trajectories that their agent loops have not finished."""
        return sum(ray.get([worker.count_open.remote() for worker in self.workers]))

    def wait_until_known(self, count: int) -> None:
        """Wait until as many have reached it."""
        self.wait(lambda: self.count_known() == count)

    def ask(self, function: Callable[[Any], Any]) -> Any:
        """Run ``function`` of the dispatcher in its process."""
        return ray.get(self.dispatcher.__ray_call__.remote(function))

    def read_usage(self) -> dict[str, float]:
        """Seconds of processor of the dispatcher and of all clients, and the dispatcher's bytes."""
        loops = ray.get([worker.__ray_call__.remote(_read_usage) for worker in self.workers])
        cpu_s, memory = self.ask(_read_usage)
        return {
            "dispatcher_cpu_s": cpu_s,
            "clients_cpu_s": sum(cpu for cpu, _memory in loops),
            "dispatcher_bytes": memory,
            "clients_bytes": sum(memory for _cpu, memory in loops),
        }


def _read_usage(_actor: Any) -> tuple[float, int]:
    process = psutil.Process()
    times = process.cpu_times()
    return times.user + times.system, process.memory_info().rss


def start_actors(kind: type, count: int) -> list[Any]:
    """Start actors of this class; each takes any number of calls at once."""
    options = {"num_cpus": 0, "max_concurrency": 1_000_000}
    return [ray.remote(kind).options(**options).remote() for _ in range(count)]


@contextmanager
def start_pool(case: dict[str, Any], workers: list[Any], slots: int) -> Iterator[Pool]:
    """A pool whose replicas hold v_0; its processes but the workers end with the block."""
    from verl_pipeline.verl_adapter.emulated.router import ReplicaHandle
    from verl_pipeline.verl_adapter.rollout.dispatcher import start_dispatcher

    hosts = start_actors(ReplicaHost, HOSTS)
    ports = [
        SleepingPort(f"replica {number}", ReplicaHandle(hosts[number % HOSTS], number))
        for number in range(case["replicas"])
    ]
    pool = Pool(hosts, list(workers), start_dispatcher(ports, slots, MODE, NOWHERE))
    try:
        ray.get([worker.use_dispatcher.remote(pool.dispatcher) for worker in workers])
        ray.get(pool.dispatcher.publish.remote(0, None))
        pool.wait(lambda: set(ray.get(pool.dispatcher.find_versions.remote()).values()) == {0})
        yield pool
    finally:
        ray.get([worker.stop.remote() for worker in pool.workers])
        for actor in (pool.dispatcher, *hosts):
            ray.kill(actor)
