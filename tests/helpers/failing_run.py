"""Rewards and agent loops that fail on purpose; imported by the runs' Ray workers."""

import time

from verl_pipeline.testing.seeded_rollout import SeededAgentLoopManager, SeededAgentLoopWorker

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
    def choose_sampling_params(self, sampling_params, *, step, row, session):
        # All but one member of the group fail.
        if int(row) == BROKEN_GENERATION and session > 0:
            raise RuntimeError("planted: this generation fails")
        return super().choose_sampling_params(sampling_params, step=step, row=row, session=session)


class FailingManager(SeededAgentLoopManager):
    worker_class = FailingWorker
