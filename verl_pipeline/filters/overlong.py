"""Responses that the length limit cut off: their reward says little about the policy, only that it
ran out of room.

After DAPO (arXiv 2503.14476, section 3.4, "overlong filtering") and DeepCoder's blog post (April
2025). Three modes:

* ``drop``: what was cut off leaves the batch, whatever its reward;
* ``wrong_only``: what was cut off and has no reward leaves; what was right before it was cut off
  stays;
* ``deepcoder``: what DeepCoder's released code did (``mask_truncated_samples``): a response without
  reward that fills its limit gets advantage 0. It stays in its group's mean and standard deviation
  and in the loss's denominator, and it is told by its length alone, so one that ends exactly at the
  limit counts as well.
"""

from typing import Literal, get_args

import numpy as np

from verl_pipeline.filters.protocol import BatchView, Decision
from verl_pipeline.filters.registry import register_filter

Mode = Literal["drop", "deepcoder", "wrong_only"]


@register_filter("overlong")
class OverlongFilter:
    """See the module; ``mode`` is one of its three.

    Raises:
        ValueError: no such mode.
    """

    name = "overlong"

    def __init__(self, mode: Mode = "drop"):
        if mode not in get_args(Mode):
            raise ValueError(f"overlong: mode={mode!r} must be one of {', '.join(get_args(Mode))}")
        self.mode = mode
        self.only_drops = mode != "deepcoder"

    def decide(self, batch: BatchView) -> list[Decision]:
        unrewarded = batch.rewards <= 0
        if self.mode == "deepcoder":
            affected = unrewarded & (batch.response_lengths >= batch.limits)
        else:
            affected = batch.truncated & (unrewarded | np.array(self.mode == "drop"))
        decision = Decision.DROP if self.only_drops else Decision.ZERO_ADVANTAGE
        return [decision if hit else Decision.KEEP for hit in affected]
