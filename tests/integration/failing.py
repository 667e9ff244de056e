"""Rewards and agent loops that fail on purpose; imported by the runs' Ray workers."""

import time

import ray

from verl_pipeline.testing.seeded import SeededAgentLoopManager, SeededAgentLoopWorker

RAISING, HANGING, BROKEN_GRADER, BROKEN_GENERATION = 1, 3, 5, 7


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_kwargs):
    """Raises for one prompt, hangs for one, and has an infrastructure verdict for one."""
    index = extra_info["index"]
    if index == RAISING:
        raise ValueError("planted: this reward raises")
    if index == HANGING:
        time.sleep(3600)
    verdict = "infrastructure" if index == BROKEN_GRADER else "accepted"
    return {"score": 0.5, "acc": 0.5, "verdict": verdict}


class FailingWorker(SeededAgentLoopWorker):
    async def _run_agent_loop(self, sampling_params, *, trajectory, session_id, **kwargs):
        # All but one member of the group fail.
        if int(trajectory["sample_index"]) == BROKEN_GENERATION and session_id > 0:
            raise RuntimeError("planted: this generation fails")
        return await super()._run_agent_loop(
            sampling_params, trajectory=trajectory, session_id=session_id, **kwargs
        )


class FailingManager(SeededAgentLoopManager):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(FailingWorker)
