"""Agent loop workers that sample reproducibly and write down what they sampled.

Invariants:
* A request's seed depends on (training step, data index, session) only: not on timing, replica or
  trainer mode.
* Each trajectory is one line of ``$VERL_PIPELINE_TRAJECTORIES`` (JSON), written once, when it is
  complete.

verl's ``rollout.full_determinism`` does not serve: it gives every request the same seed, so groups
collapse.
"""

import json
import os
import zlib
from typing import Any

from verl_pipeline.testing.runs import TRAJECTORIES
from verl_pipeline.verl_adapter.agent_loop import PipelineAgentLoopManager, PipelineAgentLoopWorker

MANAGER = "verl_pipeline.testing.seeded_rollout.SeededAgentLoopManager"


def compute_seed(step: int, row: int, session: int) -> int:
    """Seed of a request."""
    return zlib.crc32(f"{step}/{row}/{session}".encode())


class SeededAgentLoopWorker(PipelineAgentLoopWorker):
    """Seeds each request and records each trajectory."""

    def choose_sampling_params(
        self, sampling_params: dict[str, Any], *, step: int, row: Any, session: int
    ) -> dict[str, Any]:
        return {**sampling_params, "seed": compute_seed(step, int(row), session)}

    def record_trajectory(self, output: Any, *, step: int, row: Any, session: int) -> None:
        versions = ("min_global_steps", "max_global_steps")
        record = {
            "step": step,
            "index": int(row),
            "session": session,
            "prompt": output.prompt_ids,
            "response": output.response_ids,
            "reward": output.reward_score,
            "versions": [output.extra_fields[name] for name in versions],
        }
        with open(os.environ[TRAJECTORIES], "a") as file:
            file.write(json.dumps(record) + "\n")


class SeededAgentLoopManager(PipelineAgentLoopManager):
    """The manager of these workers; for ``rollout.agent.agent_loop_manager_class``."""

    worker_class = SeededAgentLoopWorker
