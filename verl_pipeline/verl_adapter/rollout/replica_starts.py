"""What is done about lost replicas and about room for more, in threads beside the run.

Invariants:
* What is left of a lost replica is ended before another one takes its place.
* Each way of it ends in one line on the console. The run goes on without a replica that does not
  start; after :data:`MOST_FAILURES` of them in a row at new places, no place is asked for any more.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup

from verl_pipeline.trainer.pipeline_config import TRAINER_MODE, Deadlines
from verl_pipeline.verl_adapter.rollout.replica_end import end_replica
from verl_pipeline.verl_adapter.rollout.replica_growth import (
    ReplicaPlaces,
    are_placed,
    remove_groups,
)
from verl_pipeline.verl_adapter.rollout.replica_member import Member
from verl_pipeline.verl_adapter.rollout.replica_restart import (
    DevicesGone,
    ReplicaRestart,
    StartedReplica,
)

MOST_FAILURES = 3


class ReplicaStarts:
    """Ends and starts replicas of a pool.

    Args:
        restart: starts one.
        places: asks Ray for a place.
        deadlines: longest waits.
        most: replicas that the pool may have.
        admit: takes a replica that has started into the pool, with its rank and the first version
            that it can load; None if the run is over.
    """

    def __init__(
        self,
        restart: ReplicaRestart,
        places: ReplicaPlaces,
        deadlines: Deadlines,
        most: int,
        admit: Callable[[int, StartedReplica, int], Member | None],
    ):
        self._restart, self._places, self._deadlines = restart, places, deadlines
        self._most, self._admit = most, admit
        # Ranks whose devices are gone.
        self._vacant: list[int] = []
        self._growing: Future[None] | None = None
        # At new places, in a row.
        self._failures, self._is_over = 0, False
        self._executor = ThreadPoolExecutor(thread_name_prefix="replica start")
        self._running: list[Future[None]] = []

    def replace(self, member: Member) -> None:
        """End what is left of a lost replica, and start another one in its place; does not wait."""
        self._running = [one for one in self._running if not one.done()]
        self._running.append(self._executor.submit(self._replace, member))

    def look_for_place(self, replicas: int) -> None:
        """Start one more if there should be and Ray has room for it; does not wait.

        Args:
            replicas: ranks that there have been so far.
        """
        is_full = not self._vacant and replicas >= self._most
        is_busy = self._growing is not None and not self._growing.done()
        if is_full or is_busy or self._failures >= MOST_FAILURES:
            return
        try:
            groups = self._places.take()
        except Exception as error:  # whatever Ray answers with
            self._failures += 1
            return _warn("another rollout replica", "get a place", error)
        if groups is not None:
            rank = self._vacant.pop(0) if self._vacant else replicas
            self._growing = self._executor.submit(self._start_at, rank, groups)
            self._running.append(self._growing)

    def close(self, seconds: float) -> None:
        """Ask for nothing more, and wait so long for what has begun."""
        self._is_over = True
        self._places.give_up()
        wait(self._running, timeout=seconds)

    def _replace(self, member: Member) -> None:
        began = time.monotonic()
        self._end(member)
        if self._is_over or member.is_emulated or member.stays_out:
            return
        try:
            started = self._restart.start(member.rank, member.replica)
            new = self._take_in(member.rank, started)
        except DevicesGone as error:
            print(
                f"[{TRAINER_MODE}] {member.name} does not start again: {error}; another one takes "
                "its place once Ray's cluster has room for it",
                flush=True,
            )
            self._vacant.append(member.rank)
            return
        except Exception as error:  # the run goes on without it
            _warn(member.name, "start again", error)
            return
        if new is not None:
            print(
                f"[{TRAINER_MODE}] {new.name} has taken the place of the one lost, "
                f"{time.monotonic() - began:.0f} s later",
                flush=True,
            )

    def _start_at(self, rank: int, groups: list[PlacementGroup]) -> None:
        began = time.monotonic()
        try:
            new = self._take_in(rank, self._restart.start_at(rank, groups))
        except Exception as error:  # the run goes on without it
            self._failures += are_placed(groups)  # a node that went meanwhile says nothing
            self._vacant.append(rank)
            remove_groups(groups)
            _warn(f"rollout replica {rank}", "start at a new place", error)
            return
        self._failures = 0
        if new is not None:
            print(
                f"[{TRAINER_MODE}] {new.name} has joined at a new place, "
                f"{time.monotonic() - began:.0f} s after Ray had room for it",
                flush=True,
            )

    def _take_in(self, rank: int, started: StartedReplica) -> Member | None:
        oldest = self._restart.wait_for_weights(started, lambda: self._is_over)
        return self._admit(rank, started, -1 if oldest is None else oldest)

    def _end(self, member: Member) -> None:
        replica = member.replica
        kept = [worker for worker in replica.workers if self._restart.is_needed(worker)]
        actors, seconds = [*replica.servers, *replica.workers], self._deadlines.health_check_s
        try:
            end_replica(actors, member.footprints, kept, seconds)
        except RayError as error:
            print(
                f"[{TRAINER_MODE}] warning: what is left of {member.name} could not be ended: "
                f"{str(error).splitlines()[0]}",
                flush=True,
            )


def _warn(name: str, what: str, error: Exception) -> None:
    reason = str(error).splitlines() or [repr(error)]
    print(f"[{TRAINER_MODE}] warning: {name} does not {what}: {reason[0]}", flush=True)
