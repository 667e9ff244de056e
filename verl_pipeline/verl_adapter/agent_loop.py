"""verl's agent loop worker with deadlines and with failures that the trainer can read.

Invariants:
* A trajectory ends within ``deadlines.trajectory_s`` and its reward within ``deadlines.reward_s``;
  a slower one counts as a failure.
* A failed generation leaves its siblings alone. Its cause is in the prompt's tag ``errors``, and
  the first one's traceback is stored, before the prompt becomes terminal. A failed reward is a
  verdict (:mod:`.reward_check`).
* A training trajectory carries the end of its generation (``extra_fields["generated_at"]``, seconds
  since the epoch).
"""

import asyncio
import time
import traceback
from collections import defaultdict
from typing import Any

from verl_pipeline.trainer.pipeline_config import PIPELINE_KEY, load_pipeline_config
from verl_pipeline.verl_adapter.reward_check import RewardCheckingManager, RewardCheckingWorker
from verl_pipeline.verl_adapter.trajectory_store import (
    TRAIN,
    VALIDATION,
    bound_waits,
    put_errors,
)

MAX_CAUSE_CHARACTERS = 200


class PipelineAgentLoopWorker(RewardCheckingWorker):
    """One process that runs agent loops.

    A subclass may override :meth:`choose_sampling_params` and :meth:`record_trajectory`.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._deadlines = load_pipeline_config(self.config).deadlines
        bound_waits(self._deadlines.queue_s)
        self._errors: dict[str, dict[str, str]] = defaultdict(dict)
        # A tag is read, changed and written back: two writers of one prompt would lose an entry.
        self._tag_lock = asyncio.Lock()

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
        return sampling_params

    def record_trajectory(self, output: Any, *, step: int, row: Any, session: int) -> None:
        """Called once for each complete training trajectory, with verl's ``AgentLoopOutput``."""

    async def _run_prompt(self, prompt: dict, *args, **kwargs) -> None:
        try:
            await super()._run_prompt(prompt, *args, **kwargs)
        finally:
            self._errors.pop(prompt["uid"], None)

    async def _run_agent_loop(self, sampling_params, *, trajectory, session_id, uid, **kwargs):
        seconds = self._deadlines.trajectory_s
        scope = asyncio.timeout(seconds)
        try:
            async with scope:
                params = self.choose_sampling_params(
                    sampling_params,
                    step=int(trajectory["step"]),
                    row=trajectory["sample_index"],
                    session=session_id,
                )
                return await super()._run_agent_loop(
                    params, trajectory=trajectory, session_id=session_id, uid=uid, **kwargs
                )
        except Exception as error:
            if scope.expired():
                error.add_note(
                    f"trajectory {uid}_{session_id}: not finished in "
                    f"{PIPELINE_KEY}.deadlines.trajectory_s={seconds}"
                )
            partition = VALIDATION if trajectory["validate"] else TRAIN
            await self._record_error(uid, session_id, error, partition)
            raise

    async def _agent_loop_postprocess(self, output, validate, **kwargs) -> None:
        await super()._agent_loop_postprocess(output, validate, **kwargs)
        if not validate:
            self.record_trajectory(
                output,
                step=int(kwargs["global_steps"]),
                row=kwargs["index"],
                session=int(kwargs["session_id"]),
            )

    async def request_reward(self, outputs, kwargs) -> None:
        seconds = self._deadlines.reward_s
        outputs[-1].extra_fields["generated_at"] = time.time()
        scope = asyncio.timeout(seconds)
        try:
            async with scope:
                await super().request_reward(outputs, kwargs)
        except TimeoutError as error:
            if scope.expired():
                key = f"{kwargs['uid']}_{kwargs['session_id']}"
                error.add_note(
                    f"reward of {key}: no answer in {PIPELINE_KEY}.deadlines.reward_s={seconds}"
                )
            raise

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


class PipelineAgentLoopManager(RewardCheckingManager):
    """verl's agent loop manager with our workers; a subclass may name another ``worker_class``."""

    worker_class: type[PipelineAgentLoopWorker] = PipelineAgentLoopWorker
