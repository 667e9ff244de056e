"""What becomes of the prompts of an agent loop worker that dies: its successor samples them again.

Invariants:
* A prompt belongs to one worker at a time. Of a dead one's, those that are complete stay; the
  others begin again with all of their trajectories, under the same names.
* What a dead worker held at the dispatcher is given back before its prompts begin again.
* A run in which :data:`MOST_DEATHS` workers have died ends by name: something kills them.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import ray
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from verl_pipeline.trainer.schedule import STALENESS
from verl_pipeline.trainer.trajectory_keys import parse_prompt
from verl_pipeline.verl_adapter.trajectories.trajectory_store import (
    TERMINAL,
    TRAIN,
    VALIDATION,
    list_tags,
    remove_rows,
)

MOST_DEATHS = 16
# Steps for which prompts may be open: as far as sampling may run ahead, and the step itself.
MOST_OPEN_STEPS = max(most for _least, most in STALENESS.values()) + 1


@dataclass(frozen=True)
class _Share:
    """The part of a submission that a worker got."""

    step: int
    partition: str
    prompts: TensorDict


class LoopSuccession:
    """The agent loop workers of a manager of verl's, whose list it changes.

    Args:
        manager: has ``agent_loop_workers`` and what they are made of.
    """

    def __init__(self, manager: Any):
        self._manager = manager
        # By position among the manager's workers.
        self._shares: dict[int, list[_Share]] = defaultdict(list)
        self._probes: dict[int, ray.ObjectRef] = {}
        self._deaths = 0

    def submit(self, prompts: TensorDict) -> None:
        """As verl's ``generate_sequences``; what a dead worker does not take is kept for its
        successor.
        """
        workers = self._manager.agent_loop_workers
        step = int(tu.get(prompts, "global_steps"))
        partition = VALIDATION if tu.get(prompts, "validate", False) else TRAIN
        calls = []
        for position, chunk in enumerate(prompts.chunk(len(workers))):
            shares = self._shares[position]
            shares[:] = [share for share in shares if share.step > step - MOST_OPEN_STEPS]
            # verl's worker takes fields out of what it gets.
            shares.append(_Share(step, partition, chunk.copy()))
            calls.append(workers[position].generate_sequences.remote(chunk))
        for call in calls:
            try:
                ray.get(call)
            except ray.exceptions.RayActorError:  # its successor gets it
                continue

    def replace_dead(self, dispatcher: Any | None, reward_workers: list[Any]) -> None:
        """Look at what workers have answered since the last call, replace dead ones, ask again.

        Args:
            dispatcher: who knows the workers' places, if there is one.
            reward_workers: that a successor asks for rewards.

        Raises:
            RayActorError: too many have died.
        """
        for position, worker in enumerate(self._manager.agent_loop_workers):
            probe = self._probes.get(position)
            if probe is not None:
                if not ray.wait([probe], timeout=0)[0]:
                    continue
                try:
                    ray.get(probe)
                except ray.exceptions.ActorUnavailableError:  # not dead: asked again
                    pass
                except ray.exceptions.RayActorError as error:
                    self._deaths += 1
                    if self._deaths > MOST_DEATHS:
                        raise
                    worker = self._replace(position, error, dispatcher, reward_workers)
            self._probes[position] = worker.__ray_ready__.remote()

    def _replace(
        self,
        position: int,
        error: ray.exceptions.RayActorError,
        dispatcher: Any | None,
        reward_workers: list[Any],
    ) -> Any:
        manager = self._manager
        dead = manager.agent_loop_workers[position]
        has_rewards = manager.reward_loop_worker_handles is not None
        successor = manager.agent_loop_workers_class.options(
            name=f"agent_loop_worker_{position}_{uuid4().hex[:8]}"
        ).remote(
            manager.config,
            manager.llm_client,
            manager.teacher_client,
            list(reward_workers) if has_rewards else None,
        )
        manager.agent_loop_workers[position] = successor
        introduce(manager.agent_loop_workers)
        if dispatcher is not None:
            ray.get(dispatcher.forget.remote(dead._actor_id.hex()))
        shares, self._shares[position] = self._shares[position], []
        left = [again for share in shares if (again := _select_open(share)) is not None]
        count = sum(len(share.prompts) for share in left)
        for share in left:
            self._shares[position].append(_Share(share.step, share.partition, share.prompts.copy()))
            successor.generate_sequences.remote(share.prompts)
        print(
            f"agent loop worker {position} died: {str(error).splitlines()[0]}; another one takes "
            f"its place and samples its {count} unfinished prompts again",
            flush=True,
        )
        return successor


def introduce(workers: Iterable[Any]) -> list[ray.ObjectRef]:
    """Let workers know each other's handles."""
    every = list(workers)
    return [
        worker.meet_peers.remote([peer for peer in every if peer is not worker]) for worker in every
    ]


def _select_open(share: _Share) -> _Share | None:
    """The prompts that are not complete, without what is stored of them; None if all are."""
    tags = list_tags(share.partition)
    names = [str(name) for name in tu.get(share.prompts, "uid")]
    open_rows = [
        row
        for row, name in enumerate(names)
        if name in tags and tags[name].get("status") not in TERMINAL
    ]
    if not open_rows:
        return None
    chosen = {names[row] for row in open_rows}
    stored = [
        key for key, tag in tags.items() if not tag.get("is_prompt") and parse_prompt(key) in chosen
    ]
    remove_rows(stored, share.partition)
    selected = tu.index_select_tensor_dict(share.prompts, open_rows)
    return _Share(share.step, share.partition, selected)
