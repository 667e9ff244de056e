"""Agent loop workers that sample reproducibly and write down what they sampled.

Invariants:
* A request's seed depends on (training step, data index, session) only: not on timing, replica or
  trainer mode.
* Each trajectory is one line of ``$VERL_PIPELINE_TRAJECTORIES`` (JSON), written once, when it is
  complete.

``rollout.full_determinism`` of verl does not serve: it gives every request the same seed, so groups
collapse.
"""

import json
import os
import zlib

import ray

from verl_pipeline.trainer.agent_loop import PipelineAgentLoopManager, PipelineAgentLoopWorker

MANAGER = "verl_pipeline.testing.seeded.SeededAgentLoopManager"
TRAJECTORIES = "VERL_PIPELINE_TRAJECTORIES"


def seed_of(step: int, index: int, session: int) -> int:
    """Seed of a request."""
    return zlib.crc32(f"{step}/{index}/{session}".encode())


class SeededAgentLoopWorker(PipelineAgentLoopWorker):
    """Seeds each request and records each trajectory."""

    async def _run_agent_loop(self, sampling_params, *, trajectory, session_id, **kwargs):
        seed = seed_of(int(trajectory["step"]), int(trajectory["sample_index"]), session_id)
        return await super()._run_agent_loop(
            {**sampling_params, "seed": seed},
            trajectory=trajectory,
            session_id=session_id,
            **kwargs,
        )

    async def _agent_loop_postprocess(self, output, validate, **kwargs) -> None:
        await super()._agent_loop_postprocess(output, validate, **kwargs)
        if not validate:
            record = {
                "step": int(kwargs["global_steps"]),
                "index": int(kwargs["index"]),
                "session": int(kwargs["session_id"]),
                "prompt": output.prompt_ids,
                "response": output.response_ids,
                "reward": output.reward_score,
                "versions": [
                    output.extra_fields["min_global_steps"],
                    output.extra_fields["max_global_steps"],
                ],
            }
            with open(os.environ[TRAJECTORIES], "a") as file:
                file.write(json.dumps(record) + "\n")


class SeededAgentLoopManager(PipelineAgentLoopManager):
    """The manager of these workers; for ``rollout.agent.agent_loop_manager_class``."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(SeededAgentLoopWorker)
