"""Agent loop workers that sample reproducibly and write down what they sampled.

Invariant: a request's seed depends on (training step, data index, session) only: not on timing,
replica or trainer mode.

verl's ``rollout.full_determinism`` does not serve: it gives every request the same seed, so groups
collapse.
"""

import zlib
from typing import Any

from verl_pipeline.testing.recorded_rollout import RecordingAgentLoopWorker
from verl_pipeline.verl_adapter.rollout.agent_loop import PipelineAgentLoopManager

MANAGER = "verl_pipeline.testing.seeded_rollout.SeededAgentLoopManager"


def compute_seed(step: int, row: int, session: int) -> int:
    """Seed of a request."""
    return zlib.crc32(f"{step}/{row}/{session}".encode())


class SeededAgentLoopWorker(RecordingAgentLoopWorker):
    """Seeds each request and records each trajectory."""

    def choose_sampling_params(
        self, sampling_params: dict[str, Any], *, step: int, row: Any, session: int
    ) -> dict[str, Any]:
        return {**sampling_params, "seed": compute_seed(step, int(row), session)}


class SeededAgentLoopManager(PipelineAgentLoopManager):
    """The manager of these workers; for ``rollout.agent.agent_loop_manager_class``."""

    worker_class = SeededAgentLoopWorker
