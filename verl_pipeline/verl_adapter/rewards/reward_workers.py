"""verl's reward workers, kept able to grade although a reward function hangs.

verl makes the workers itself; what follows is done to them once they live.

Invariants:
* A call of a synchronous reward function ends within ``deadlines.reward_s`` of its start and gives
  its thread back: in verl's managers that call it in threads
  (:mod:`verl_pipeline.trainer.reward_calls`), and in ``remote``, where the process that it hangs in
  is replaced. ``async`` functions hold no thread; nor does the wait for a reward model.
* A worker in which :data:`WORN_OUT` calls hang, or which has died, is replaced while the trainer
  waits for rewards. Its unfinished rewards are computed by others
  (:meth:`.rollout.agent_loop.PipelineAgentLoopWorker`).
* A run in which :data:`MOST_DEATHS` workers have died ends by name: it is the reward function that
  kills them.
"""

import asyncio
import inspect
import itertools
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from verl.experimental.reward_loop.reward_loop import RewardLoopManager
from verl.experimental.reward_loop.reward_manager.remote import (
    RemoteRewardManager,
    RewardComputeWorker,
)

from verl_pipeline.trainer.deadlines import DeadlineExceeded
from verl_pipeline.trainer.pipeline_config import PIPELINE_KEY
from verl_pipeline.trainer.reward_calls import BoundedCalls, describe_function

# Calls that hang in one worker before it is replaced.
WORN_OUT = 16
# Deaths of workers that a run goes on after.
MOST_DEATHS = 16


@dataclass(frozen=True)
class WorkerState:
    """What a reward worker says of itself.

    Attributes:
        node: Ray's id of its node.
        hanging_calls: calls that were given up and have not returned.
    """

    node: str
    hanging_calls: int


class RewardWorkers:
    """The reward workers of a trainer.

    Args:
        manager: verl's, whose list of workers is changed when one is replaced.
        reward_s: longest time of one call, in seconds.
    """

    def __init__(self, manager: RewardLoopManager, reward_s: float):
        self._manager = manager
        self._reward_s = reward_s
        # By position among the manager's workers.
        self._states: dict[int, ray.ObjectRef] = {}
        self._successors: dict[int, tuple[Any, ray.ObjectRef]] = {}
        self._nodes: dict[int, str] = {}
        self._deaths = 0

    def bound_calls(self, timeout_s: float) -> None:
        """Give each worker's calls their deadline.

        Raises:
            DeadlineExceeded: a worker was not ready in time.
            ray.exceptions.RayActorError: a worker could not start; has its traceback.
        """
        asked = [self._bound(worker) for worker in self._manager.reward_loop_workers]
        try:
            ray.get(asked, timeout=timeout_s)
        except ray.exceptions.GetTimeoutError as error:
            raise DeadlineExceeded(
                f"start of {len(asked)} reward workers: not ready after {timeout_s:g} s; their "
                f"logs are in Ray's session folder, or raise {PIPELINE_KEY}.deadlines.start_s"
            ) from error

    def replace_worn_out(self, agent_loops: list[Any], timeout_s: float) -> bool:
        """Look at what the workers last said of themselves, replace those worn out or dead, and ask
        again.

        Returns whether one has been replaced, and ended.

        Raises:
            ray.exceptions.RayActorError: a successor cannot start, or too many have died.

        Args:
            agent_loops: handles of the workers that ask for rewards.
            timeout_s: longest wait for them to take a successor's handle.
        """
        for position, worker in enumerate(self._manager.reward_loop_workers):
            try:
                state = _read_answer(self._states.pop(position, None))
            except ray.exceptions.ActorUnavailableError:  # not dead: asked again
                state = None
            except ray.exceptions.RayActorError as error:
                self._replace_dead(position, error)
                continue
            if state is None or isinstance(state, WorkerState):
                if state:
                    self._nodes[position] = state.node
                if state and state.hanging_calls >= WORN_OUT:
                    hanging = f"{state.hanging_calls} calls of the reward function hang in it"
                    self._start_successor(position, hanging)
                self._states[position] = worker.__ray_call__.remote(_describe_state)
            else:
                self._states[position] = state  # not answered yet
        ready = [
            position
            for position, (_successor, is_ready) in self._successors.items()
            if not isinstance(_read_answer(is_ready), ray.ObjectRef)
        ]
        for position in ready:
            successor, _is_ready = self._successors.pop(position)
            self._hand_over(position, successor, agent_loops, timeout_s)
        return bool(ready)

    def _bound(self, worker: Any) -> ray.ObjectRef:
        return worker.__ray_call__.remote(_bound_calls, self._reward_s)

    def _replace_dead(self, position: int, error: ray.exceptions.RayActorError) -> None:
        if position in self._successors:
            return
        self._deaths += 1
        if self._deaths > MOST_DEATHS:
            raise error
        self._start_successor(position, f"it died: {str(error).splitlines()[0]}")

    def _start_successor(self, position: int, reason: str) -> None:
        if position in self._successors:
            return
        manager, node = self._manager, self._nodes.get(position)
        options: dict[str, Any] = {}
        if node is not None:
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=True)
        successor = manager.reward_loop_workers_class.options(
            name=f"reward_loop_worker_{position}_{uuid4().hex[:8]}", **options
        ).remote(manager.config, manager.reward_router_address)
        self._successors[position] = (successor, self._bound(successor))
        print(f"reward worker {position}: {reason}; another one takes its place", flush=True)

    def _hand_over(
        self, position: int, successor: Any, agent_loops: list[Any], timeout_s: float
    ) -> None:
        workers = self._manager.reward_loop_workers
        worn_out, workers[position] = workers[position], successor
        # Agent loops take their rewards elsewhere before the worn out worker ends, so that they can
        # tell its end from that of a worker which died.
        ray.wait(
            [loop.use_reward_workers.remote(list(workers)) for loop in agent_loops],
            num_returns=len(agent_loops),
            timeout=timeout_s,
        )
        self._states.pop(position, None)
        ray.kill(worn_out)


def _read_answer(answer: ray.ObjectRef | None) -> Any:
    """The answer, or ``answer`` itself as long as there is none.

    Raises:
        ray.exceptions.RayActorError: who was asked has died.
    """
    if answer is None or not ray.wait([answer], timeout=0)[0]:
        return answer
    return ray.get(answer)


# ---- in a reward worker's process --------------------------------------------------------------


def _bound_calls(worker: Any, reward_s: float) -> None:
    """Give the calls of a ``RewardLoopWorker`` their deadline."""
    manager = worker.reward_manager
    setting = f"{PIPELINE_KEY}.deadlines.reward_s={reward_s:g}"
    function = getattr(manager, "compute_score", None)
    if isinstance(manager, RemoteRewardManager):
        bounded = BoundedProcesses(manager, reward_s, setting)
        manager.reward_worker_pool = itertools.repeat(bounded.as_worker)
    elif callable(function) and not inspect.iscoroutinefunction(function):
        manager.compute_score = BoundedCalls(function, reward_s, setting)


def _describe_state(worker: Any) -> WorkerState:
    calls = getattr(worker.reward_manager, "compute_score", None)
    return WorkerState(
        node=ray.get_runtime_context().get_node_id(),
        hanging_calls=calls.abandoned if isinstance(calls, BoundedCalls) else 0,
    )


class BoundedProcesses:
    """The processes of verl's manager ``remote``, each with one call at a time.

    verl deals calls out in turn, so that all that come behind a hanging one would hang too. Here a
    call goes to a process that is free. A process in which a call hangs is killed, and one that
    died is replaced: either costs the one reward that it was computing.
    """

    def __init__(self, manager: RemoteRewardManager, reward_s: float, setting: str):
        self._manager = manager
        self._reward_s = reward_s
        self._setting = setting
        self._free: asyncio.Queue[int] = asyncio.Queue()
        self._starts: set[asyncio.Task] = set()
        for position in range(len(manager.reward_worker)):
            self._offer_once_ready(position)
        # As the handle of one of verl's RewardComputeWorkers.
        self.as_worker = SimpleNamespace(compute_score=SimpleNamespace(remote=self.compute_score))

    async def compute_score(self, **kwargs: Any) -> Any:
        """What the reward function returns or raises.

        Raises:
            DeadlineExceeded: it did not return within ``reward_s`` of its start.
        """
        position = await self._free.get()
        is_usable = False
        try:
            async with asyncio.timeout(self._reward_s) as scope:
                process = self._manager.reward_worker[position]
                answer = await process.compute_score.remote(**kwargs)
            is_usable = True
            return answer
        except ray.exceptions.RayTaskError:
            is_usable = True
            raise
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise DeadlineExceeded(
                f"the reward function {describe_function(self._manager.compute_score)} has not "
                f"returned for {self._reward_s:g} s ({self._setting}); its process is replaced"
            ) from error
        finally:
            if is_usable:
                self._free.put_nowait(position)
            else:
                self._replace(position)

    def _offer_once_ready(self, position: int) -> None:
        """The start of a process takes long, and is no work of a reward."""

        async def offer() -> None:
            is_ready = self._manager.reward_worker[position].__ray_ready__.remote()
            # Whoever cannot start fails the reward that it gets.
            await asyncio.wait([asyncio.wrap_future(is_ready.future())])
            self._free.put_nowait(position)

        task = asyncio.create_task(offer())
        self._starts.add(task)  # the event loop itself would not keep it
        task.add_done_callback(self._starts.discard)

    def _replace(self, position: int) -> None:
        processes = self._manager.reward_worker
        ray.kill(processes[position])
        node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        processes[position] = RewardComputeWorker.options(scheduling_strategy=node).remote(
            self._manager.compute_score
        )
        self._offer_once_ready(position)
