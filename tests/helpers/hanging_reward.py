"""A synchronous reward that hangs where ``extra_info`` says so; for verl's reward workers."""

import time


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_kwargs):
    """The row's index, or never anything."""
    if extra_info["hangs"]:
        time.sleep(3600)
    return float(extra_info["index"])
