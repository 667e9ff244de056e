"""Past the barrier: which replicas of the pool live, and what becomes of one that is lost.

Invariants:
* A replica is lost once it is found dead, has been silent for too long, samples no token for
  ``deadlines.token_s`` although it runs requests, or fails in a load, whoever finds it out
  (:mod:`.dispatcher`). It does not come back by itself: its processes are ended.
* The run goes on with the others, and is told in one line of the console; with fewer than
  ``min_replicas`` it ends with an error that names the loss.
* It looks by itself, whether or not the trainer waits for somebody.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError
from verl.workers.rollout.llm_server import LLMServerManager

from verl_pipeline.trainer.pipeline_config import PIPELINE_KEY, TRAINER_MODE, Deadlines
from verl_pipeline.trainer.server_health import ServerWatch, Sign
from verl_pipeline.verl_adapter.rollout.dispatcher import ReplicaLoss
from verl_pipeline.verl_adapter.rollout.replica_end import (
    Footprint,
    end_footprints,
    note_footprints,
)
from verl_pipeline.verl_adapter.rollout.replica_probe import (
    DEATH_ADVICE,
    RolloutServerDead,
    probe_replica,
)
from verl_pipeline.verl_adapter.rollout.rollout_pool import make_death

# For the processes of lost replicas to end, at the end of a run.
CLOSE_S = 30.0


@dataclass
class Member:
    """A replica of verl's manager.

    Attributes:
        name: what lines and errors call it.
        address: of its HTTP server.
        places: its names at the dispatcher; an emulated one stands for several replicas.
        handle: what requests are sent to.
        footprints: of its servers and of its workers.
        is_lost: it takes no part any more.
    """

    name: str
    address: str
    places: list[str]
    replica: Any
    handle: Any
    watch: ServerWatch
    footprints: list[Footprint] = field(default_factory=list)
    is_lost: bool = False


class ReplicaPatrol:
    """Watches the replicas of a pool in a thread of its own.

    Args:
        engine: ``rollout.name``.
        manager: the replicas, started; a lost one leaves its lists.
        dispatcher: the actor.
        deadlines: longest waits.
        least: the fewest replicas that the run goes on with.
        is_needed: whether a replica's worker has to live on although the replica is lost.
    """

    def __init__(
        self,
        engine: str,
        manager: LLMServerManager,
        dispatcher: Any,
        deadlines: Deadlines,
        least: int,
        is_needed: Callable[[Any], bool],
    ):
        self._engine, self._manager, self._dispatcher = engine, manager, dispatcher
        self._deadlines, self._least, self._is_needed = deadlines, least, is_needed
        self._lock = threading.Lock()
        self._failure: Exception | None = None
        self._lost = self._resampled = 0
        self._ends: list[Future[None]] = []
        self._executor = ThreadPoolExecutor(thread_name_prefix="replica end")
        replicas = zip(
            manager.get_replicas(), manager.get_addresses(), manager.server_handles, strict=True
        )
        self.members = [
            self._make_member(rank, replica, address, handle)
            for rank, (replica, address, handle) in enumerate(replicas)
        ]
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="replica patrol", daemon=True)

    def _make_member(self, rank: int, replica: Any, address: str, handle: Any) -> Member:
        make_ports = getattr(replica, "make_ports", None)
        places = [port.address for port in make_ports(address)] if make_ports else [address]
        return Member(
            f"rollout replica {rank} at {address}",
            address,
            places,
            replica,
            handle,
            ServerWatch(self._deadlines.silent_server_s),
        )

    def start(self) -> None:
        """Begin to look, once the replicas hold their first weights."""
        for member in self.members:
            actors = [*member.replica.servers, *member.replica.workers]
            member.footprints = note_footprints(actors, self._deadlines.health_check_s)
        self._thread.start()

    def close(self) -> None:
        """Look no more, and wait for the ends that have begun."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(timeout=CLOSE_S)
        wait(self._ends, timeout=CLOSE_S)

    def list_living(self) -> list[Member]:
        """The replicas that are not lost."""
        return [member for member in self.members if not member.is_lost]

    def count_places(self) -> tuple[int, int]:
        """Replicas that are left, and all, as the dispatcher counts them."""
        left = sum(len(member.places) for member in self.list_living())
        return left, sum(len(member.places) for member in self.members)

    def check(self) -> None:
        """Look now.

        Raises:
            RolloutServerDead: too few replicas are left.
            WorkerDead: the dispatcher is dead.
        """
        with self._lock:
            self._look()
        if self._failure is not None:
            raise self._failure

    def is_lost(self, name: str) -> bool:
        """Whether the replica of this name is lost."""
        return any(member.is_lost for member in self.members if member.name == name)

    def take_metrics(self) -> dict[str, float]:
        """``pipeline/replicas/*`` since the last call."""
        with self._lock:
            lost, self._lost = self._lost, 0
            resampled, self._resampled = self._resampled, 0
        return {
            "pipeline/replicas/living": float(self.count_places()[0]),
            "pipeline/replicas/lost": float(lost),
            "pipeline/replicas/resampled_trajectories": float(resampled),
        }

    def _look_on(self) -> None:
        while not self._end.wait(self._deadlines.health_check_every_s):
            with self._lock:
                if self._failure is None:
                    self._look()

    def _look(self) -> None:
        try:
            self._probe(self.list_living())
            for loss in self._ask("take_losses"):
                self._take_out(loss)
        except RayActorError as error:
            self._failure = make_death("dispatcher", error)
        except GetTimeoutError:  # the dispatcher is busy: it is asked again
            pass
        except Exception as error:  # nobody else would see it
            self._failure = error

    def _ask(self, method: str, *arguments: Any) -> Any:
        call = getattr(self._dispatcher, method)
        return ray.get(call.remote(*arguments), timeout=self._deadlines.health_check_s)

    def _probe(self, members: Sequence[Member]) -> None:
        if not members:
            return
        with ThreadPoolExecutor(max_workers=len(members)) as executor:
            verdicts = list(executor.map(self._judge, members))
        for member, seen in zip(members, verdicts, strict=True):
            for place in member.places if seen else ():
                self._ask("lose", place, seen)

    def _judge(self, member: Member) -> str | None:
        """Why a replica counts as lost, as a clause; None if it does not."""
        seconds = self._deadlines.health_check_s
        servers = member.replica.servers
        sign, seen = probe_replica(self._engine, member.address, servers, seconds)
        if (verdict := member.watch.judge(sign)) is not None:
            return f"it {verdict}: {seen}"
        if sign is not Sign.ALIVE or not hasattr(member.handle, "measure_silence"):
            return None
        try:
            silence = ray.get(member.handle.measure_silence.remote(), timeout=seconds)
        except RayError:  # the next probe says more
            return None
        if silence <= self._deadlines.token_s:
            return None
        return (
            f"it runs requests and has sampled no token for {silence:.0f} s "
            f"({PIPELINE_KEY}.deadlines.token_s={self._deadlines.token_s:g})"
        )

    def _take_out(self, loss: ReplicaLoss) -> None:
        member = next(one for one in self.members if loss.replica in one.places)
        self._lost += 1
        self._resampled += loss.trajectories
        if not member.is_lost:
            member.is_lost = True
            self._forget(member)
            self._ends.append(self._executor.submit(self._end_processes, member))
        # The error of a load begins with the name.
        is_sentence = loss.seen.startswith(member.name)
        sentence = loss.seen if is_sentence else f"{member.name} is lost: {loss.seen}"
        left, total = self.count_places()
        least = f"{PIPELINE_KEY}.min_replicas={self._least}"
        if left < self._least:
            advice = DEATH_ADVICE.format(log=f"worker-*.err of the {self._engine} server")
            self._failure = self._failure or RolloutServerDead(
                f"{sentence}; {left} of {total} replicas are left, fewer than {least}. {advice}"
            )
            return
        print(
            f"[{TRAINER_MODE}] warning: {sentence}; {loss.trajectories} trajectories are sampled "
            f"again by the {left} of {total} replicas that are left ({least})",
            flush=True,
        )

    def _forget(self, member: Member) -> None:
        """Nothing of verl's calls the replica any more."""
        manager, living = self._manager, self.list_living()
        manager.rollout_replicas = [one.replica for one in living]
        manager.server_handles = [one.handle for one in living]
        manager.server_addresses = [one.address for one in living]

    def _end_processes(self, member: Member) -> None:
        kept = [worker for worker in member.replica.workers if self._is_needed(worker)]
        nodes = note_footprints(kept, self._deadlines.health_check_s) if kept else []
        spared = {known for footprint in nodes for known in footprint.processes}
        try:
            end_footprints(
                Footprint(one.node, one.processes - spared, one.segments)
                for one in member.footprints
            )
        except RayError as error:
            print(
                f"[{TRAINER_MODE}] warning: what is left of {member.name} could not be ended: "
                f"{str(error).splitlines()[0]}",
                flush=True,
            )
