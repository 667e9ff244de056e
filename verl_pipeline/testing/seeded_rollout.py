"""Agent loop workers that sample reproducibly, whatever the settings say, and write down what they
sampled.

Invariant: a request's seed does not depend on the trainer mode, verl's own included.
"""

from verl_pipeline.testing.recorded_rollout import RecordingAgentLoopWorker
from verl_pipeline.verl_adapter.rollout.agent_loop import PipelineAgentLoopManager

MANAGER = "verl_pipeline.testing.seeded_rollout.SeededAgentLoopManager"


class SeededAgentLoopWorker(RecordingAgentLoopWorker):
    """Seeds each request and records each trajectory."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._is_seeded = True


class SeededAgentLoopManager(PipelineAgentLoopManager):
    """The manager of these workers; for ``rollout.agent.agent_loop_manager_class``."""

    worker_class = SeededAgentLoopWorker
