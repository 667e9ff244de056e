"""Which values are rewards."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from verl_pipeline.trainer.reward_value import (
    LARGEST_REWARD,
    UnusableReward,
    is_reward,
    mark_unusable,
    read_reward,
)


class NoText:
    def __repr__(self):
        raise RuntimeError("planted: no text")


@pytest.mark.parametrize(
    ("value", "reward"),
    [
        (1, 1.0),
        (0.25, 0.25),
        (True, 1.0),
        (np.float64(0.25), 0.25),
        (np.float32(0.25), 0.25),
        (np.float16(0.25), 0.25),
        (np.int64(-3), -3.0),
        (np.bool_(True), 1.0),
        (np.array(0.25), 0.25),
        (np.array([0.25]), 0.25),
        (torch.tensor(0.25), 0.25),
        (torch.tensor([0.25]), 0.25),
        (torch.tensor([[0.25]], dtype=torch.bfloat16), 0.25),
        (torch.tensor(0.25, requires_grad=True), 0.25),
        (torch.tensor(True), 1.0),
        (Fraction(1, 4), 0.25),
        (10**17, 1e17),
    ],
    ids=repr,
)
def test_numbers_however_they_come_are_rewards(value, reward):
    assert read_reward(value) == reward and type(read_reward(value)) is float


UNUSABLE = [
    None,
    float("nan"),
    float("inf"),
    -float("inf"),
    np.float32("nan"),
    np.array(np.inf),
    torch.tensor(float("nan")),
    torch.tensor([0.5, 0.5]),
    torch.tensor([]),
    np.array([0.5, 0.5]),
    np.array(["0.5"]),
    np.array([None]),
    10**400,
    -(10**5000),
    1e39,  # infinite in float32
    1e30,  # its square is
    "0.5",
    "",
    b"1",
    [0.5],
    (0.5, "why"),
    {"score": 0.5},
    {},
    1j,
    Decimal("NaN"),
    NoText(),
    float,
]


@pytest.mark.parametrize("value", UNUSABLE, ids=lambda value: type(value).__name__)
def test_everything_else_is_refused_by_what_it_is(value):
    with pytest.raises(UnusableReward, match=r"the reward function returned .{3,}finite"):
        read_reward(value)
    assert not is_reward(value)


@given(st.one_of(st.floats(width=32), st.floats(), st.integers(), st.booleans()))
@example(2**53 + 1)
def test_a_number_is_a_reward_if_float32_holds_its_square(value):
    try:
        reward = read_reward(value)
    except UnusableReward:
        assert not math.isfinite(value) or abs(value) > LARGEST_REWARD
    else:
        assert np.isfinite(np.float32(reward) ** 2) and reward == float(value)
    if isinstance(value, float):
        assert np.isnan(mark_unusable(np.array([value])))[0] != is_reward(value)
