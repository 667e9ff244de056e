"""Past the barrier: which replicas of the pool live, and what becomes of one that is lost.

Invariants:
* A replica is lost once it is found dead, has been silent for too long, samples no token for
  ``deadlines.token_s`` although it runs requests, or fails in a load, whoever finds it out
  (:mod:`.dispatcher`). It does not come back by itself: its processes are ended.
* What is lost is started again in the background (:mod:`.replica_restart`), and joins the others.
* The run goes on with the others, and is told in one line of the console; with fewer than
  ``min_replicas`` it ends with an error that names the loss.
* It looks by itself, whether or not the trainer waits for somebody.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError
from verl.workers.rollout.llm_server import LLMServerManager

from verl_pipeline.trainer.pipeline_config import PIPELINE_KEY, TRAINER_MODE, Deadlines
from verl_pipeline.verl_adapter.rollout.dispatcher import ReplicaLoss
from verl_pipeline.verl_adapter.rollout.replica_end import (
    Footprint,
    end_footprints,
    note_footprints,
)
from verl_pipeline.verl_adapter.rollout.replica_member import Member, judge, make_member
from verl_pipeline.verl_adapter.rollout.replica_probe import (
    DEATH_ADVICE,
    RolloutServerDead,
)
from verl_pipeline.verl_adapter.rollout.replica_restart import ReplicaRestart
from verl_pipeline.verl_adapter.rollout.rollout_pool import make_death

# At the end of a run, for the processes of lost replicas to end, and for one that starts again: its
# engine can be ended in order only once it has started.
CLOSE_S = 60.0


class ReplicaPatrol:
    """Watches the replicas of a pool in a thread of its own.

    Args:
        engine: ``rollout.name``.
        manager: the replicas, started; a lost one leaves its lists.
        dispatcher: the actor.
        deadlines: longest waits.
        least: the fewest replicas that the run goes on with.

    Attributes:
        names: what errors call each replica, by all addresses that replicas have had.
    """

    def __init__(
        self,
        engine: str,
        manager: LLMServerManager,
        dispatcher: Any,
        deadlines: Deadlines,
        least: int,
    ):
        self._engine, self._manager, self._dispatcher = engine, manager, dispatcher
        self._deadlines, self._least = deadlines, least
        self._restart: ReplicaRestart | None = None
        self._is_needed: Callable[[Any], bool] = lambda _worker: False
        self.names: dict[str, str] = {}
        self._lost_names: set[str] = set()
        self._lock = threading.Lock()
        self._failure: Exception | None = None
        self._lost = self._resampled = self._rejoined = 0
        self._ends: list[Future[None]] = []
        self._executor = ThreadPoolExecutor(thread_name_prefix="replica end")
        replicas = zip(manager.get_replicas(), manager.get_addresses(), strict=True)
        self.members = [
            self._make_member(rank, replica, address)
            for rank, (replica, address) in enumerate(replicas)
        ]
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="replica patrol", daemon=True)

    def _make_member(self, rank: int, replica: Any, address: str) -> Member:
        member = make_member(rank, replica, address, self._deadlines)
        self.names[address] = member.name
        return member

    def let_restart(self, restart: ReplicaRestart, is_needed: Callable[[Any], bool]) -> None:
        """Start again what is lost from now on.

        Args:
            is_needed: whether a replica's worker has to live on although the replica is lost.
        """
        self._restart, self._is_needed = restart, is_needed

    def start(self) -> None:
        """Begin to look, once the replicas hold their first weights."""
        for member in self.members:
            self._note(member)
        self._thread.start()

    def _note(self, member: Member) -> None:
        actors = [*member.replica.servers, *member.replica.workers]
        member.footprints = note_footprints(actors, self._deadlines.health_check_s)

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
        self.raise_failure()

    def raise_failure(self) -> None:
        """Raise what a look has found that ends the run, if it has; does not look."""
        if self._failure is not None:
            raise self._failure

    def is_lost(self, name: str) -> bool:
        """Whether the replica of this name is lost."""
        return name in self._lost_names

    def take_metrics(self) -> dict[str, float]:
        """``pipeline/replicas/*`` since the last call."""
        with self._lock:
            lost, self._lost = self._lost, 0
            resampled, self._resampled = self._resampled, 0
            rejoined, self._rejoined = self._rejoined, 0
        return {
            "pipeline/replicas/living": float(self.count_places()[0]),
            "pipeline/replicas/lost": float(lost),
            "pipeline/replicas/rejoined": float(rejoined),
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
            judged = [
                executor.submit(judge, member, self._engine, self._deadlines) for member in members
            ]
        verdicts = [one.result() for one in judged]
        for member, seen in zip(members, verdicts, strict=True):
            for place in member.places if seen else ():
                self._ask("lose", place, seen)

    def _take_out(self, loss: ReplicaLoss) -> None:
        member = next(one for one in self.members if loss.replica in one.places)
        self._lost += 1
        self._resampled += loss.trajectories
        is_first, member.is_lost = not member.is_lost, True
        self._lost_names.add(member.name)
        self._list_living_to_verl()
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
        if is_first:
            self._ends.append(self._executor.submit(self._replace, member))
        if self._failure is not None:
            return
        print(
            f"[{TRAINER_MODE}] warning: {sentence}; {loss.trajectories} trajectories are sampled "
            f"again by the {left} of {total} replicas that are left ({least})",
            flush=True,
        )

    def _list_living_to_verl(self) -> None:
        """Nothing of verl's calls a replica that is lost."""
        manager, living = self._manager, self.list_living()
        manager.rollout_replicas = [one.replica for one in living]
        manager.server_handles = [one.replica.server_handle for one in living]
        manager.server_addresses = [one.address for one in living]

    def _replace(self, member: Member) -> None:
        """In a thread: end what is left of a replica, and start it again."""
        began = time.monotonic()
        self._end_processes(member)
        if self._restart is None or self._is_over or member.is_emulated:
            return
        try:
            started = self._restart.start(member.rank, member.replica)
        except Exception as error:  # the run goes on without it
            reason = str(error).splitlines() or [repr(error)]
            print(
                f"[{TRAINER_MODE}] warning: {member.name} does not start again: {reason[0]}",
                flush=True,
            )
            return
        new = self._make_member(member.rank, started.replica, started.address)
        with self._lock:
            self.members[member.rank] = new
            self._list_living_to_verl()
            if self._is_over:  # the end of the run ends it with the others
                return
            self._ask("join", started.port, f"replica {member.rank}")
            self._rejoined += 1
        print(
            f"[{TRAINER_MODE}] {new.name} has taken the place of the one lost, "
            f"{time.monotonic() - began:.0f} s later",
            flush=True,
        )
        self._note(new)

    @property
    def _is_over(self) -> bool:
        return self._end.is_set() or self._failure is not None

    def _end_processes(self, member: Member) -> None:
        if not member.footprints:  # lost before the first look
            self._note(member)
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
