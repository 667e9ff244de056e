"""Truncated responses: their reward says that they ran out of room, and little about the policy.

After DAPO (arXiv 2503.14476, section 3.4, "overlong filtering") and DeepCoder's blog post (April
2025). Three modes:

* ``drop``: drops every truncated response, whatever its reward.
* ``wrong_only``: drops truncated responses without a reward; keeps those that were already right.
* ``deepcoder``: does what DeepCoder's released code did (``mask_truncated_samples``). A response
  without a reward that fills its limit gets advantage 0 but stays in its group's mean and standard
  deviation and in the loss's denominator. Only the length counts, so a response that ends exactly
  at the limit is affected too.
"""

from typing import Literal, get_args

import numpy as np

from verl_pipeline.filters.protocol import BatchView, Decision
from verl_pipeline.filters.registry import register_filter

Mode = Literal["drop", "deepcoder", "wrong_only"]


@register_filter("overlong")
class OverlongFilter:
    """Handles truncated responses as ``mode`` says (see the module).

    Raises:
        ValueError: unknown mode.
    """

    name = "overlong"

    def __init__(self, mode: Mode = "drop"):
        if mode not in get_args(Mode):
            raise ValueError(f"mode={mode!r} must be one of {', '.join(get_args(Mode))}")
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
