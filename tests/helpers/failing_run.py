"""Rewards and agent loops that fail on purpose; imported by the runs' Ray workers."""

import time
import zlib

import numpy as np
import torch

from verl_pipeline.testing import tiny_run
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


# What a reward function may return by mistake.
NO_REWARDS = [
    float("nan"),
    None,
    float("-inf"),
    {"score": float("inf"), "acc": 1.0},
    {"acc": 1.0},
    torch.tensor([float("nan")]),
    np.float32("nan"),
    "0.5",
]


def compute_odd_score(data_source, solution_str, ground_truth, extra_info=None, **_kwargs):
    """About every third answer gets something that is no reward; all others a number in one of the
    ways in which it can be given.
    """
    choice = zlib.crc32(solution_str.encode())
    if choice % 3 == 0:
        return NO_REWARDS[choice // 3 % len(NO_REWARDS)]
    reward = tiny_run.compute_score(data_source, solution_str, ground_truth)
    rewards = [reward, np.float32(reward), torch.tensor(reward), {"score": reward, "extra": None}]
    return rewards[choice // 3 % len(rewards)]


class FailingWorker(SeededAgentLoopWorker):
    def choose_sampling_params(self, sampling_params, *, step, row, session):
        # All but one member of the group fail.
        if int(row) == BROKEN_GENERATION and session > 0:
            raise RuntimeError("planted: this generation fails")
        return super().choose_sampling_params(sampling_params, step=step, row=row, session=session)


class FailingManager(SeededAgentLoopManager):
    worker_class = FailingWorker
