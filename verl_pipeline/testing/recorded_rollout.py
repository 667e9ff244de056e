"""Agent loop workers that write down what they sampled, with any rollout engine.

Invariants:
* Each trajectory is one line (JSON), written once, when it is complete.
* A worker has a file of its own in ``$VERL_PIPELINE_TRAJECTORIES``: workers on several nodes cannot
  append to one file of a network file system.
"""

import json
import os
import socket
from pathlib import Path
from typing import Any

from verl_pipeline.testing.runs import TRAJECTORIES
from verl_pipeline.trainer.version_spans import VERSION_SPANS
from verl_pipeline.verl_adapter.rollout.agent_loop import (
    PipelineAgentLoopManager,
    PipelineAgentLoopWorker,
)

MANAGER = "verl_pipeline.testing.recorded_rollout.RecordingAgentLoopManager"


class RecordingAgentLoopWorker(PipelineAgentLoopWorker):
    """Records each trajectory, and leaves the sampling as it is."""

    def record_trajectory(self, output: Any, *, step: int, row: Any, session: int) -> None:
        versions = ("min_global_steps", "max_global_steps")
        record = {
            "step": step,
            "index": int(row),
            "session": session,
            "prompt": output.prompt_ids,
            "response": output.response_ids,
            "reward": output.reward_score,
            "versions": [output.extra_fields.get(name) for name in versions],
            "spans": output.extra_fields.get(VERSION_SPANS),
        }
        folder = Path(os.environ[TRAJECTORIES])
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / f"{socket.gethostname()}-{os.getpid()}.jsonl", "a") as file:
            file.write(json.dumps(record) + "\n")


class RecordingAgentLoopManager(PipelineAgentLoopManager):
    """The manager of these workers; for ``rollout.agent.agent_loop_manager_class``."""

    worker_class = RecordingAgentLoopWorker
