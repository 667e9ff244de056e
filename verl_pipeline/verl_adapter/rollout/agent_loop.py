"""verl's agent loop worker with deadlines and with failures that the trainer can read.

Invariants:
* A trajectory that makes no progress for ``deadlines.trajectory_s`` is a failure, and so is a
  reward that does not come while no other comes for ``deadlines.reward_s``. To wait in a queue that
  moves is no failure (:mod:`verl_pipeline.trainer.stall`).
* Before a job is given up, the other workers of the pool are asked: they share its servers.
* A reward that a replaced reward worker owed is asked of another one, :data:`REWARD_ASKS` times.
* Past the barrier, a trajectory whose rollout replica is lost is no failure: it waits for another
  place and is sampled again from its start, with the same parameters.
* A teacher that gives no log-probs is a failure of that trajectory's grader
  (:mod:`.rollout.teacher_answers`).
* A failed generation leaves its siblings alone. Its cause is in the prompt's tag ``errors``, and
  the first one's traceback is stored, before the prompt becomes terminal. A failed reward is a
  verdict (:mod:`.rewards.reward_check`).
"""

import asyncio
import itertools
import logging
import traceback
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext, suppress
from typing import Any

import ray
from tensordict import TensorDict

from verl_pipeline.trainer.deadlines import DeadlineExceeded
from verl_pipeline.trainer.pipeline_config import PIPELINE_KEY, load_pipeline_config
from verl_pipeline.trainer.run_dial import STALENESS_FIELD
from verl_pipeline.trainer.schedule import Window, find_window
from verl_pipeline.trainer.stall import Job, QueueEnds, StallWatch, current_job
from verl_pipeline.verl_adapter.rewards.reward_check import (
    RewardCheckingManager,
    RewardCheckingWorker,
)
from verl_pipeline.verl_adapter.rollout.dispatched_client import DispatchedClient, ReplicaLost
from verl_pipeline.verl_adapter.rollout.llm_client import conversation_spans
from verl_pipeline.verl_adapter.rollout.loop_succession import LoopSuccession, introduce
from verl_pipeline.verl_adapter.rollout.request_seeds import SEED, compute_seed
from verl_pipeline.verl_adapter.rollout.teacher_answers import check_teacher_answer, mark_unscored
from verl_pipeline.verl_adapter.trajectories.trajectory_store import (
    TRAIN,
    VALIDATION,
    bound_waits,
    put_errors,
)

logger = logging.getLogger(__name__)

MAX_CAUSE_CHARACTERS = 200

# Queues beside those of the rollout servers. Rewards share what they are computed with (sandboxes,
# a reward model), whichever reward worker has them.
REWARDS, TEACHERS = "the reward workers", "the teacher servers"
# Nobody waits in this one; its ends show that trajectories are completed.
TRAJECTORIES = "trajectories"
# What the way to a reward worker and back may add to `reward_s`.
REWARD_GRACE = 1.1
# A reward whose workers die so often kills them itself.
REWARD_ASKS = 3
# Between two looks whether a dead reward worker has been replaced.
SUCCESSOR_POLL_S = 0.2


class PipelineAgentLoopWorker(RewardCheckingWorker):
    """One process that runs agent loops.

    A subclass may override :meth:`choose_sampling_params` and :meth:`record_trajectory`.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        settings = load_pipeline_config(self.config)
        deadlines, self._staleness = settings.deadlines, settings.most_staleness
        self._is_seeded = settings.seeded_sampling
        self._watch_stalls(deadlines.trajectory_s, deadlines.reward_s)
        if isinstance(self.llm_client, DispatchedClient):
            self.llm_client.process = ray.get_runtime_context().get_actor_id()
        bound_waits(deadlines.queue_s)
        self._errors: dict[str, dict[str, str]] = defaultdict(dict)
        # A tag is read, changed and written back: two writers of one prompt would lose an entry.
        self._tag_lock = asyncio.Lock()

    def _watch_stalls(self, trajectory_s: float, reward_s: float) -> None:
        fields = f"{PIPELINE_KEY}.deadlines"
        self._peers: list[Any] = []
        self._ends = QueueEnds()
        self._trajectories = StallWatch(
            trajectory_s,
            f"{fields}.trajectory_s={trajectory_s:g}",
            self._ends,
            self._ask_peers,
        )
        # A call of the reward function has reward_s; the error that names it shall arrive first.
        self._rewards = StallWatch(
            reward_s * REWARD_GRACE,
            f"{fields}.reward_s={reward_s:g}",
            self._ends,
            self._ask_peers,
        )

    async def meet_peers(self, peers: list[Any]) -> None:
        """Learn the handles of the other workers of the pool."""
        self._peers = peers

    async def use_reward_workers(self, handles: list[Any]) -> None:
        """Ask these for rewards from now on; one of the former ones is about to be ended."""
        self.reward_loop_worker_handles = handles

    async def list_end_ages(self) -> dict[str, float]:
        """Seconds since something last ended in each queue, as far as this worker knows."""
        return self._ends.list_ages()

    async def _ask_peers(self) -> list[dict[str, float]]:
        asked = [peer.list_end_ages.remote() for peer in self._peers]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        # The trainer's watchdog names a peer that has died.
        return [ages for ages in answers if isinstance(ages, dict)]

    def choose_sampling_params(
        self, sampling_params: dict[str, Any], *, step: int, row: Any, session: int
    ) -> dict[str, Any]:
        """Sampling parameters of one trajectory.

        Args:
            sampling_params: those of the run.
            step: training step (batch) of the prompt.
            row: the data set's ``extra_info.index`` of the prompt, whatever its type.
            session: member of the group.
        """
        if not self._is_seeded:
            return sampling_params
        seed = compute_seed(self.rollout_config.seed, step, row, session)
        return {**sampling_params, SEED: seed}

    def record_trajectory(self, output: Any, *, step: int, row: Any, session: int) -> None:
        """Called once for each complete training trajectory, with verl's ``AgentLoopOutput``."""

    async def _run_prompt(self, prompt: dict, *args, **kwargs) -> None:
        try:
            await super()._run_prompt(prompt, *args, **kwargs)
        finally:
            self._errors.pop(prompt["uid"], None)

    async def _run_agent_loop(self, sampling_params, *, trajectory, session_id, uid, **kwargs):
        name, step = f"{uid}_{session_id}", int(trajectory["step"])
        is_validation = bool(trajectory["validate"])
        # A validation of v_k has step k.
        staleness = kwargs.pop(STALENESS_FIELD, self._staleness)
        window = Window(step, step) if is_validation else find_window(step, staleness)
        batch = 0 if is_validation else step

        async def run_once(place: str) -> Any:
            async with (
                self._hold_place(place, batch, window),
                self._trajectories.limit(f"trajectory {name}") as job,
            ):
                current_job.set(job)  # verl runs each trajectory in a task of its own
                conversation_spans.set({})
                params = self.choose_sampling_params(
                    dict(sampling_params),
                    step=step,
                    row=trajectory["sample_index"],
                    session=session_id,
                )
                return await super(PipelineAgentLoopWorker, self)._run_agent_loop(
                    params, trajectory=trajectory, session_id=session_id, uid=uid, **kwargs
                )

        try:
            for number in itertools.count():
                with suppress(ReplicaLost):
                    output = await run_once(f"{name} again {number}" if number else name)
                    break
        except Exception as error:
            if not isinstance(error, DeadlineExceeded):
                self._ends.record_end(TRAJECTORIES)
            partition = VALIDATION if is_validation else TRAIN
            await self._record_error(uid, session_id, error, partition)
            raise
        self._ends.record_end(TRAJECTORIES)
        return output

    def _hold_place(self, *place: Any) -> AbstractAsyncContextManager[Any]:
        """Past the barrier, the wait for a place; with a barrier nobody waits for one."""
        client = self.llm_client
        return client.hold_place(*place) if isinstance(client, DispatchedClient) else nullcontext()

    async def _agent_loop_postprocess(self, output, validate, **kwargs) -> None:
        if isinstance(self.llm_client, DispatchedClient):
            self.llm_client.leave_place()
        await super()._agent_loop_postprocess(output, validate, **kwargs)
        if not validate:
            self.record_trajectory(
                output,
                step=int(kwargs["global_steps"]),
                row=kwargs["index"],
                session=int(kwargs["session_id"]),
            )

    async def request_reward(self, outputs, kwargs) -> None:
        name = f"reward of {kwargs['uid']}_{kwargs['session_id']}"
        async with self._rewards.limit(name) as reward:
            with _wait_in(REWARDS, reward, current_job.get()):
                for number in range(1, REWARD_ASKS + 1):
                    asked = self.reward_loop_worker_handles
                    try:
                        return await super().request_reward(outputs, kwargs)
                    except ray.exceptions.RayActorError as error:
                        if number == REWARD_ASKS:
                            raise
                        is_dead = not isinstance(error, ray.exceptions.ActorUnavailableError)
                    while is_dead and self.reward_loop_worker_handles is asked:
                        await asyncio.sleep(SUCCESSOR_POLL_S)

    async def _compute_teacher_logprobs(
        self, output, prompt_ids, response_ids, validate, sample_kwargs=None
    ) -> None:
        if validate or not self.distillation_enabled:
            return
        loss = self.teacher_server_manager.distillation_loss_config
        sequence, uses_topk = [*prompt_ids, *response_ids], bool(loss.loss_settings.use_topk)
        try:
            with _wait_in(TEACHERS, current_job.get()):
                await super()._compute_teacher_logprobs(
                    output, prompt_ids, response_ids, validate, sample_kwargs
                )
            check_teacher_answer(output, sequence, uses_topk=uses_topk)
        except Exception as error:
            reason = f"teacher: {type(error).__name__}: {error}".partition("\n")[0]
            logger.error("%s", reason)
            mark_unscored(output, sequence, int(loss.topk) if uses_topk else 1, reason)

    async def _record_error(
        self, prompt: str, session: int, error: Exception, partition: str
    ) -> None:
        async with self._tag_lock:
            errors = self._errors[prompt]
            # One line: the tag travels with every listing of the partition.
            cause = "".join(traceback.format_exception_only(error)).partition("\n")[0]
            whole = None if errors else "".join(traceback.format_exception(error))
            errors[str(session)] = cause[:MAX_CAUSE_CHARACTERS]
            await put_errors(prompt, partition, dict(errors), whole)


@contextmanager
def _wait_in(queue: str, *jobs: Job | None) -> Iterator[None]:
    """Note that these jobs wait in ``queue``; an answer or an error of the body is an end there."""
    waiting = [job for job in jobs if job is not None]
    for job in waiting:
        job.enter_queue(queue)
    has_ended = True
    try:
        yield
    except asyncio.CancelledError:
        has_ended = False
        raise
    finally:
        for job in waiting:
            job.leave_queue(queue, has_ended=has_ended)


class PipelineAgentLoopManager(RewardCheckingManager):
    """verl's agent loop manager with our workers; a subclass may name another ``worker_class``."""

    worker_class: type[PipelineAgentLoopWorker] = PipelineAgentLoopWorker

    async def _init_agent_loop_workers(self) -> None:
        await super()._init_agent_loop_workers()
        self.succession = LoopSuccession(self)
        await asyncio.gather(*introduce(self.agent_loop_workers))

    def generate_sequences(self, prompts: TensorDict) -> None:
        """verl's; the prompts of a worker that dies go to its successor."""
        self.succession.submit(prompts)
