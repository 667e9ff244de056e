"""A filter that empties a batch on purpose, and a reward of 0 or 1; imported by the runs' Ray
workers.
"""

from verl_pipeline.filters import BatchView, Decision


class SecondBatchGone:
    """Drops every trajectory of the second batch it is asked about."""

    name = "second_batch_gone"
    only_drops = True

    def __init__(self):
        self.asked = 0

    def decide(self, batch: BatchView) -> list[Decision]:
        self.asked += 1
        return [Decision.DROP if self.asked == 2 else Decision.KEEP] * len(batch)


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_kwargs) -> float:
    """1 for an answer with more than one of what is asked for: some long answers have it, some have
    not.
    """
    return float(solution_str.count(ground_truth) > 1)
