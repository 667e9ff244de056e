"""What verl's reward loop calls in an emulated run (``reward.custom_reward_function``)."""

import os
from functools import cache
from pathlib import Path
from typing import Any

from verl_pipeline.emulated.cluster import VARIABLE, read_cluster
from verl_pipeline.emulated.identity import read_sample
from verl_pipeline.emulated.journal import Journal
from verl_pipeline.emulated.rewards import EmulatedRewards


async def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None, **_kwargs: Any
) -> float:
    """The reward of a trajectory, after its time on the emulated pool.

    Args:
        solution_str: its response, which begins with the sample's name.
        extra_info: of the row; has its ``index``.
    """
    sample = read_sample(solution_str.lstrip())
    return await _load_rewards().compute(int(extra_info["index"]), sample)


@cache
def _load_rewards() -> EmulatedRewards:
    run = read_cluster(Path(os.environ[VARIABLE]))
    return EmulatedRewards(run, run.open_clock(), Journal(run.journal, "rewards"))
