"""The decision in simulated worlds: bounds, the smallest value that is enough, no swinging."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_pipeline.trainer.auto_staleness import (
    RETRY_AFTER,
    WINDOW,
    AutoStaleness,
    Bounds,
    StepTimes,
    turn,
)

BOUNDS = Bounds(least=1, most=8, wait_share=0.05, effective_share=0.9)
WORK_S = 10.0


def measure(lead, latency_s, effective_share=1.0):
    """A step that waits for what its lead does not hide."""
    wait_s = max(latency_s / lead - WORK_S, 0.0)
    return StepTimes(lead, wait_s, WORK_S, latency_s, effective_share)


def follow(steps, world, *, first=1, bounds=BOUNDS):
    """The values by step, and the reasons of the changes; ``world`` gives a step by its lead."""
    state, values, reasons = AutoStaleness(first), [first], []
    for index in range(steps):
        state, reason = turn(state, world(index, state.staleness), bounds)
        values.append(state.staleness)
        if reason:
            reasons.append(reason)
        assert (reason is not None) == (values[-1] != values[-2])
    return values, reasons


def find_enough(latency_s):
    return min(max(math.ceil((1 - BOUNDS.wait_share) * latency_s / WORK_S - 1e-9), 1), 8)


@settings(deadline=None)
@given(latency_s=st.floats(0.1, 200.0), first=st.integers(1, 8))
def test_it_ends_at_the_smallest_value_that_is_enough(latency_s, first):
    values, _reasons = follow(60, lambda _index, lead: measure(lead, latency_s), first=first)
    enough = find_enough(latency_s)
    if first <= enough:
        assert values[-1] == enough
    else:  # one more than needed is kept if it is nearly needed
        assert enough <= values[-1] <= max(enough, math.ceil(latency_s / (0.9 * WORK_S)))
    directions = {b - a for a, b in zip(values, values[1:], strict=False)} - {0}
    assert len(directions) <= 1


@settings(deadline=None)
@given(st.floats(0.1, 100.0), st.floats(0.1, 100.0))
def test_longer_batches_need_no_smaller_value(one, other):
    short, long = sorted((one, other))
    ends = [follow(60, lambda _i, lead, s=s: measure(lead, s))[0][-1] for s in (short, long)]
    assert ends[0] <= ends[1]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.0, 300.0), st.sampled_from([None, 0.5, 0.95]), st.floats(0.5, 40.0)),
        min_size=1,
        max_size=120,
    ),
    st.integers(1, 8),
    st.integers(1, 8),
)
def test_whatever_happens_it_stays_in_bounds_and_does_not_swing(world, first, most):
    bounds = Bounds(1, most, 0.05, 0.9)

    def step(index, lead):
        latency_s, effective, work_s = world[index]
        return StepTimes(lead, max(latency_s / lead - work_s, 0.0), work_s, latency_s, effective)

    values, _reasons = follow(len(world), step, first=min(first, most), bounds=bounds)
    changes = [
        (index, after - before)
        for index, (before, after) in enumerate(zip(values, values[1:], strict=False))
        if after != before
    ]
    assert set(values) <= set(range(1, most + 1))
    assert all(abs(change) == 1 for _index, change in changes)
    assert all(b[0] - a[0] >= WINDOW for a, b in zip(changes, changes[1:], strict=False))
    turns = [b[0] for a, b in zip(changes, changes[1:], strict=False) if a[1] != b[1]]
    assert all(
        later - earlier > RETRY_AFTER - 8 * WINDOW
        for earlier, later in zip(turns, turns[4:], strict=False)
    )


def test_where_the_pool_is_the_limit_it_goes_back_and_stays():
    """A pool that needs 25 s for a batch, however many are submitted: latency grows with them."""
    values, reasons = follow(RETRY_AFTER, lambda _index, lead: measure(lead, 25.0 * lead), first=1)
    assert values[-1] == 1 and max(values) == 2
    assert len(reasons) == 2 and "the pool's rate is the limit" in reasons[1]


def test_data_that_is_too_old_lowers_it_whatever_the_trainer_waits():
    def world(_index, lead):
        return measure(lead, 75.0, effective_share=1.0 - 0.03 * lead)

    values, reasons = follow(RETRY_AFTER, world)
    assert max(values) == 4 and values[-1] == 3  # 1 - 0.12 < 0.9
    assert (
        "effective sample size is 88 % of the tokens, below min_effective_share=0.9" in reasons[-1]
    )


def test_batches_submitted_with_another_lead_say_nothing():
    state = AutoStaleness(2)
    for _ in range(10):
        state, reason = turn(state, measure(1, 100.0), BOUNDS)
        assert reason is None and state.staleness == 2


@pytest.mark.parametrize("effective_share", [None, 0.1])
def test_the_smallest_value_stays(effective_share):
    values, _reasons = follow(9, lambda _index, lead: measure(lead, 1.0, effective_share))
    assert set(values) == {1}
