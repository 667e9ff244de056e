"""Which values that a reward function returns are rewards.

Invariants:
* A reward is one finite number. Anything else is a failure of the grader, never a reward of 0: an
  update would turn NaN or infinity into NaN weights.
* What verl takes as a number is one here too: Python's and numpy's numbers, bools, and tensors or
  arrays of one element.
"""

from numbers import Real
from typing import Any

import numpy as np

# Estimators square rewards in float32, whose largest number is 3.4e38; the rest is room for sums.
LARGEST_REWARD = 1e18


class UnusableReward(ValueError):
    """A reward function returned something that is not a finite number."""


def read_reward(value: Any) -> float:
    """The number that a reward function returned.

    Raises:
        UnusableReward: it is none, not finite, or beyond :data:`LARGEST_REWARD`.
    """
    try:
        number = value.item() if hasattr(value, "item") else value  # numpy's and torch's
        if not isinstance(number, Real):
            raise TypeError(type(number).__name__)
        reward = float(number)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise UnusableReward(
            f"the reward function returned {_describe(value)}, not a finite number"
        ) from error
    if not abs(reward) <= LARGEST_REWARD:
        raise UnusableReward(
            f"the reward function returned {_describe(value)}; a reward must be finite, at most "
            f"{LARGEST_REWARD:g}"
        )
    return reward


def is_reward(value: Any) -> bool:
    """Whether :func:`read_reward` takes ``value``."""
    try:
        read_reward(value)
    except UnusableReward:
        return False
    return True


def mark_unusable(rewards: np.ndarray) -> np.ndarray:
    """``rewards`` (float64, shape (n,)) with NaN for each that :func:`read_reward` would refuse."""
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(rewards) <= LARGEST_REWARD, rewards, np.nan)


def _describe(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"an integer of {value.bit_length()} bits"  # repr refuses thousands of digits
    try:
        text = repr(value)
    except Exception:  # a class of the user's
        text = "an object"
    return f"{text[:80]} ({type(value).__name__})"
