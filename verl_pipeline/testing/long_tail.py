"""Agent loop workers whose responses have a tail, reproducibly: most are short, a few long.

Invariant: seed and length of a trajectory depend on (training step, data index, session) only.
"""

from typing import Any

from verl_pipeline.testing.seeded_rollout import SeededAgentLoopWorker
from verl_pipeline.verl_adapter.rollout.agent_loop import PipelineAgentLoopManager
from verl_pipeline.verl_adapter.rollout.request_seeds import compute_seed

MANAGER = "verl_pipeline.testing.long_tail.LongTailAgentLoopManager"
SHORT, LONG = 8, 160
# One response in so many is long.
ONE_IN = 8


def choose_length(step: int, row: int, session: int) -> int:
    """Tokens of a response."""
    return LONG if compute_seed(step, row, session) % ONE_IN == 0 else SHORT


class LongTailAgentLoopWorker(SeededAgentLoopWorker):
    """Seeds each request, and sets its length."""

    def choose_sampling_params(
        self, sampling_params: dict[str, Any], *, step: int, row: Any, session: int
    ) -> dict[str, Any]:
        length = choose_length(step, int(row), session)
        params = super().choose_sampling_params(
            sampling_params, step=step, row=row, session=session
        )
        return {**params, "max_tokens": length, "ignore_eos": True}


class LongTailAgentLoopManager(PipelineAgentLoopManager):
    """The manager of these workers; for ``rollout.agent.agent_loop_manager_class``."""

    worker_class = LongTailAgentLoopWorker
