"""Past the barrier: which replicas of the pool live, and what becomes of one that is lost.

Invariants:
* A replica is lost once it is found dead, has been silent for too long, samples no token for
  ``deadlines.token_s`` although it runs requests, or fails in a load, whoever finds it out
  (:mod:`.dispatcher`). It does not come back by itself: its processes are ended.
* What is lost is started again in the background (:mod:`.replica_restart`), and joins the others;
  if its node is gone, at another place (:mod:`.replica_growth`). So does a new replica, while there
  are fewer than ``max_replicas``.
* One that is slower than the others (:mod:`verl_pipeline.trainer.replica_speed`) is lost, too, if
  enough are left; the second time it stays out.
* The run goes on with the others, and is told in one line of the console; with fewer than
  ``min_replicas`` it ends with an error that names the loss.
* It looks by itself, whether or not the trainer waits for somebody.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError
from verl.workers.rollout.llm_server import LLMServerManager

from verl_pipeline.trainer.pipeline_config import (
    PIPELINE_KEY,
    TRAINER_MODE,
    OneOffPipelineConfig,
)
from verl_pipeline.trainer.replica_speed import SpeedWatch
from verl_pipeline.verl_adapter.rollout.dispatcher import ReplicaLoss
from verl_pipeline.verl_adapter.rollout.replica_end import list_living_nodes, note_footprints
from verl_pipeline.verl_adapter.rollout.replica_growth import ReplicaPlaces
from verl_pipeline.verl_adapter.rollout.replica_member import Member, judge, make_member
from verl_pipeline.verl_adapter.rollout.replica_probe import (
    DEATH_ADVICE,
    RolloutServerDead,
)
from verl_pipeline.verl_adapter.rollout.replica_restart import ReplicaRestart, StartedReplica
from verl_pipeline.verl_adapter.rollout.replica_starts import ReplicaStarts
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
        settings: ours.

    Attributes:
        names: what errors call each replica, by all addresses that replicas have had.
    """

    def __init__(
        self,
        engine: str,
        manager: LLMServerManager,
        dispatcher: Any,
        settings: OneOffPipelineConfig,
    ):
        self._engine, self._manager, self._dispatcher = engine, manager, dispatcher
        self._settings, self._deadlines = settings, settings.deadlines
        self._starts: ReplicaStarts | None = None
        self._speeds: SpeedWatch | None = None
        if settings.slow_factor is not None:
            self._speeds = SpeedWatch(settings.slow_factor, settings.deadlines.slow_s)
        # Ranks of replicas that have been slow before.
        self._slow_ranks: set[int] = set()
        self.names: dict[str, str] = {}
        self._lost_names: set[str] = set()
        self._lock = threading.Lock()
        self._failure: Exception | None = None
        self._lost = self._resampled = self._rejoined = 0
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

    def let_start(self, restart: ReplicaRestart, places: ReplicaPlaces) -> None:
        """Start again what is lost from now on, and what there is a place for."""
        most = self._settings.max_replicas or len(self.members)
        self._starts = ReplicaStarts(restart, places, self._deadlines, most, self._admit)

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
        if self._starts is not None:
            self._starts.close(CLOSE_S)

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
                    if self._starts is not None and self._failure is None:
                        self._starts.look_for_place(len(self.members))

    def _look(self) -> None:
        try:
            self._probe(self.list_living())
            self._take_out_slow()
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
        nodes = list_living_nodes()
        with ThreadPoolExecutor(max_workers=len(members)) as executor:
            judged = [
                executor.submit(judge, member, self._engine, self._deadlines, nodes)
                for member in members
            ]
        verdicts = [one.result() for one in judged]
        for member, seen in zip(members, verdicts, strict=True):
            for place in member.places if seen else ():
                self._ask("lose", place, seen)

    def _take_out_slow(self) -> None:
        """At most one at a time, and none of the last that the run needs."""
        living = {member.address: member for member in self.list_living()}
        if self._speeds is None or len(living) <= self._settings.min_replicas:
            return
        works = {name: one.works for name, one in living.items() if one.works is not None}
        slow = self._speeds.judge(works)
        if slow is None:
            return
        member = living[slow.replica]
        member.stays_out = member.rank in self._slow_ranks
        self._slow_ranks.add(member.rank)
        again = ", again after its restart: it stays out" if member.stays_out else ""
        seen = (
            f"it samples {slow.tokens_per_s:.3g} tokens/s, {slow.describe_factor()} the others at "
            f"the same load ({PIPELINE_KEY}.slow_factor={self._settings.slow_factor:g}, over "
            f"{self._deadlines.slow_s:g} s){again}"
        )
        for place in member.places:
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
        least = f"{PIPELINE_KEY}.min_replicas={self._settings.min_replicas}"
        if left < self._settings.min_replicas:
            advice = DEATH_ADVICE.format(log=f"worker-*.err of the {self._engine} server")
            self._failure = self._failure or RolloutServerDead(
                f"{sentence}; {left} of {total} replicas are left, fewer than {least}. {advice}"
            )
        if is_first and self._starts is not None:
            self._starts.replace(member)
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

    def _admit(self, rank: int, started: StartedReplica, oldest: int) -> Member | None:
        """Take a replica in that has started; None if the run is over.

        Args:
            oldest: the first version that it can load.
        """
        new = self._make_member(rank, started.replica, started.address)
        self._note(new)
        with self._lock:
            self.members[rank : rank + 1] = [new]
            self._list_living_to_verl()
            if self._end.is_set() or self._failure is not None:
                return None  # the end of the run ends it with the others
            self._ask("join", started.port, f"replica {rank}", oldest)
            self._rejoined += 1
        return new
