"""verl's agent loop worker with deadlines, and with failures that the trainer can read.

Invariants:
* A trajectory ends within ``deadlines.trajectory_s``, its reward within ``deadlines.reward_s``;
  later it is a failure.
* A failed trajectory leaves its siblings alone. Its traceback stands in the prompt's tag ``errors``
  before the prompt becomes terminal.
* Training trajectories say when their generation ended (``extra_fields["generated_at"]``, seconds
  since the epoch).
"""

import asyncio
import time
import traceback
from collections import defaultdict

import ray
import transfer_queue as tq
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ

from verl_pipeline.trainer.config import PREFIX, load_pipeline_config

_AgentLoopWorker = AgentLoopWorkerTQ.__ray_metadata__.modified_class


class PipelineAgentLoopWorker(_AgentLoopWorker):  # type: ignore[valid-type,misc]
    """One process that runs agent loops; verl's, but for the invariants above."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._deadlines = load_pipeline_config(self.config).deadlines
        self._errors: dict[str, dict[str, str]] = defaultdict(dict)
        # A tag is read, changed and written back: two writers of one prompt would lose an entry.
        self._tag_lock = asyncio.Lock()

    async def _run_prompt(self, prompt: dict, *args, **kwargs) -> None:
        try:
            await super()._run_prompt(prompt, *args, **kwargs)
        finally:
            self._errors.pop(prompt["uid"], None)

    async def _run_agent_loop(self, sampling_params, *, trajectory, session_id, uid, **kwargs):
        seconds = self._deadlines.trajectory_s
        try:
            async with asyncio.timeout(seconds) as scope:
                return await super()._run_agent_loop(
                    sampling_params, trajectory=trajectory, session_id=session_id, uid=uid, **kwargs
                )
        except Exception as error:
            if scope.expired():
                error.add_note(
                    f"trajectory {uid}_{session_id}: not finished in "
                    f"{PREFIX}.deadlines.trajectory_s={seconds}"
                )
            await self._record(uid, session_id, error, "val" if trajectory["validate"] else "train")
            raise

    async def _compute_score(self, outputs, kwargs) -> None:
        seconds = self._deadlines.reward_s
        outputs[-1].extra_fields["generated_at"] = time.time()
        try:
            async with asyncio.timeout(seconds) as scope:
                await super()._compute_score(outputs, kwargs)
        except TimeoutError as error:
            if scope.expired():
                name = f"{kwargs['uid']}_{kwargs['session_id']}"
                error.add_note(
                    f"reward of {name}: no answer in {PREFIX}.deadlines.reward_s={seconds}"
                )
            raise

    async def _record(self, uid: str, session_id: int, error: Exception, partition_id: str) -> None:
        async with self._tag_lock:
            self._errors[uid][str(session_id)] = "".join(traceback.format_exception(error))
            await tq.async_kv_put(
                key=uid, partition_id=partition_id, tag={"errors": dict(self._errors[uid])}
            )


class PipelineAgentLoopManager(AgentLoopManagerTQ):
    """verl's agent loop manager with our workers."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(PipelineAgentLoopWorker)
