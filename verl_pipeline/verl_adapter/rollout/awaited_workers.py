"""The processes that the trainer waits for: which have died, and when something last ended there.

Invariants:
* Whatever a batch needs between its submission and its last reward is watched, so that a wait for
  the dead ends with their name. The rollout servers are :class:`.rollout_pool.RolloutPool`'s.
* An agent loop worker that died is replaced (:mod:`.rollout.loop_succession`), if it is ours.
* A reward worker that died, or that hanging rewards have worn out, is replaced
  (:mod:`.rewards.reward_workers`).
* No check waits longer than ``deadlines.health_check_s`` for anybody.
"""

import math
import socket
from contextlib import suppress
from typing import Any

import ray

from verl_pipeline.trainer.pipeline_config import Deadlines
from verl_pipeline.verl_adapter.rewards.reward_workers import RewardWorkers
from verl_pipeline.verl_adapter.rollout.loop_succession import LoopSuccession
from verl_pipeline.verl_adapter.rollout.rollout_pool import (
    WorkerDead,
    make_death,
    probe_actors,
)


class AwaitedWorkers:
    """What works for a trainer beside its rollout servers.

    Args:
        trainer: verl's, with ``agent_loop_manager``, ``reward_loop_manager`` and
            ``teacher_model_manager`` once it has them.
        deadlines: longest waits.
    """

    def __init__(self, trainer: Any, deadlines: Deadlines):
        self._trainer = trainer
        self._deadlines = deadlines
        self._reward_workers: RewardWorkers | None = None
        # Probes that have not been answered yet, by role.
        self._pending_probes: dict[str, list[ray.ObjectRef]] = {}

    def bound_reward_calls(self) -> None:
        """Give the calls of the reward function their deadline, once there are reward workers."""
        manager = self._trainer.reward_loop_manager
        self._reward_workers = RewardWorkers(manager, self._deadlines.reward_s)
        self._reward_workers.bound_calls(self._deadlines.start_s)

    def check(self) -> None:
        """Check that all of them live.

        Raises:
            WorkerDead: one has died.
        """
        self._check_reward_router()
        self._replace_reward_workers()
        self._replace_agent_loops()
        for role, actors in self._list_workers().items():
            pending = self._pending_probes.get(role, [])
            self._pending_probes[role] = probe_actors(actors, pending, role)

    def _replace_reward_workers(self) -> None:
        if self._reward_workers is None:
            return
        try:
            self._reward_workers.replace_worn_out(
                self._list_agent_loops(), self._deadlines.health_check_s
            )
        except ray.exceptions.RayActorError as error:
            raise make_death("reward worker", error) from error

    def _replace_agent_loops(self) -> None:
        if (succession := self._find_succession()) is None:
            return
        try:
            succession.replace_dead(
                self._find_dispatcher(), self._trainer.reward_loop_manager.reward_loop_workers
            )
        except ray.exceptions.RayActorError as error:
            raise make_death("agent loop worker", error) from error

    def _find_succession(self) -> LoopSuccession | None:
        return getattr(getattr(self._trainer, "agent_loop_manager", None), "succession", None)

    def _find_dispatcher(self) -> Any | None:
        pool = getattr(self._trainer, "rollout_pool", None)
        return pool.dispatcher if pool is not None else None

    def find_idle_s(self) -> float:
        """Seconds since a request, a reward or a trajectory last ended, as the agent loops know.

        Infinite without an answer, or with agent loop workers that are not ours.
        """
        loops = [loop for loop in self._list_agent_loops() if hasattr(loop, "list_end_ages")]
        if not loops:
            return math.inf
        asked = [loop.list_end_ages.remote() for loop in loops]
        timeout_s = self._deadlines.health_check_s
        answered, _open = ray.wait(asked, num_returns=len(asked), timeout=timeout_s)
        ages: list[float] = []
        for answer in answered:
            with suppress(ray.exceptions.RayError):  # one that has died
                ages += ray.get(answer).values()
        return min(ages, default=math.inf)

    def _list_agent_loops(self) -> list[Any]:
        manager = getattr(self._trainer, "agent_loop_manager", None)
        return getattr(manager, "agent_loop_workers", [])

    def _list_workers(self) -> dict[str, list[Any]]:
        rewards, teachers = self._trainer.reward_loop_manager, self._trainer.teacher_model_manager
        models = rewards.reward_model_manager
        by_teacher = teachers.server_handles.values() if teachers else []
        replaced = self._find_succession() is not None
        return {
            "agent loop worker": [] if replaced else self._list_agent_loops(),
            "reward model server": models.server_handles if models else [],
            "teacher server": [handle for handles in by_teacher for handle in handles],
        }

    def _check_reward_router(self) -> None:
        """The process that passes requests on to the reward model's servers."""
        address = self._trainer.reward_loop_manager.reward_router_address
        if address is None:
            return
        host, _, port = address.rpartition(":")
        try:
            where = (host.strip("[]"), int(port))
            socket.create_connection(where, timeout=self._deadlines.health_check_s).close()
        except ConnectionRefusedError as error:
            raise WorkerDead(f"router of the reward model at {address} died: {error}") from error
        except OSError:  # busy, which is no death
            return
