"""The emulated replica ends requests when the planner's does, and keeps every token it is given."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_pipeline.emulated.replica import EmulatedReplica, Request
from verl_pipeline.planner.barrier import sample_share
from verl_pipeline.planner.replica import Speed

LENGTHS = st.lists(st.integers(1, 400), min_size=1, max_size=12)


@st.composite
def speeds(draw):
    slots = draw(st.integers(1, 6))
    base, each = draw(st.floats(0.01, 1.0)), draw(st.floats(0.0, 0.5))
    # Always enough for the longest trajectory, seldom for all.
    kv_tokens = draw(st.sampled_from([math.inf, 700.0, 1200.0]))
    steps = tuple(base + each * count for count in range(slots + 1))
    return Speed(steps, draw(st.sampled_from([0.0, 0.002])), kv_tokens, slots / 2)


def run_out(replica, now=0.0):
    """When each request ends."""
    ends = {}
    while (event := replica.find_next()) < math.inf:
        ends |= dict(replica.advance(max(event, now)))
    return ends


@given(speeds(), LENGTHS, st.integers(0, 200))
def test_requests_end_when_the_planner_says(speed, lengths, prompt):
    tokens = np.array(lengths, dtype=float)
    expected, _replica = sample_share(speed, tokens, np.full(len(lengths), float(prompt)))
    replica = EmulatedReplica(speed)
    for number, length in enumerate(lengths):
        assert replica.submit(number, Request(float(length), float(prompt)), 0.0) == []
    ends = run_out(replica)
    assert [ends[number] for number in range(len(lengths))] == pytest.approx(expected.tolist())
    assert replica.running == replica.waiting == 0


@given(speeds(), LENGTHS, st.lists(st.floats(0.01, 30.0), max_size=8))
def test_looking_late_or_often_changes_nothing(speed, lengths, gaps):
    often, rarely = EmulatedReplica(speed), EmulatedReplica(speed)
    for number, length in enumerate(lengths):
        for replica in (often, rarely):
            replica.submit(number, Request(float(length), 50.0), 0.0)
    now, seen = 0.0, {}
    for gap in gaps:
        now += gap
        seen |= dict(often.advance(now))
    seen |= run_out(often, now)
    assert seen == pytest.approx(dict(rarely.advance(1e9)))


@given(speeds(), LENGTHS, st.floats(0.0, 100.0), st.floats(0.0, 50.0))
def test_a_pause_delays_by_its_length_and_loses_nothing(speed, lengths, at, length):
    paused, other = EmulatedReplica(speed), EmulatedReplica(speed)
    for number, tokens in enumerate(lengths):
        for replica in (paused, other):
            replica.submit(number, Request(float(tokens), 20.0), 0.0)
    early = dict(paused.pause(at))
    assert paused.find_next() == math.inf and paused.advance(at + length / 2) == []
    paused.resume(at + length)
    late = run_out(paused)
    expected = run_out(other)
    assert early == pytest.approx({n: end for n, end in expected.items() if n in early})
    assert late == pytest.approx({n: expected[n] + length for n in expected if n not in early})


@given(speeds(), LENGTHS, st.floats(0.0, 60.0))
def test_an_abort_tells_what_is_left_and_empties_the_replica(speed, lengths, at):
    replica = EmulatedReplica(speed)
    for number, tokens in enumerate(lengths):
        replica.submit(number, Request(float(tokens), 20.0), 0.0)
    ended, aborted = replica.abort(at)
    assert {n for n, _ in ended} | {n for n, _ in aborted} == set(range(len(lengths)))
    assert len(ended) + len(aborted) == len(lengths)
    for number, left in aborted:
        assert 0 < left <= lengths[number] * (1 + 1e-9)
    assert replica.running == replica.waiting == 0 and replica.find_next() == math.inf
    # What is resumed elsewhere takes as long as the rest of it.
    alone = EmulatedReplica(speed)
    for number, left in aborted[:1]:
        alone.submit(number, Request(left, 0.0), at)
        (end,) = run_out(alone).values()
        assert end - at == pytest.approx(left * speed.step_s[1])


def test_an_abort_while_it_decodes_keeps_what_was_decoded():
    replica = EmulatedReplica(Speed((0.0, 1.0, 1.0), 0.0, math.inf, 1))
    replica.submit(0, Request(10.0, 0.0), 0.0)
    replica.submit(1, Request(30.0, 0.0), 4.0)
    assert replica.abort(9.0) == ([], [(0, 1.0), (1, 25.0)])


def test_a_slow_replica_takes_longer_and_a_dead_one_never_answers():
    speed = Speed((0.0, 1.0), 0.1, math.inf, 0.5)
    slow, dead = EmulatedReplica(speed), EmulatedReplica(speed, is_dead=True)
    slow.slow_down(3.0, 0.0)
    slow.submit(0, Request(10.0, 20.0), 0.0)
    assert run_out(slow) == {0: pytest.approx(3 * (10 + 2))}
    dead.submit(0, Request(10.0, 20.0), 0.0)
    assert dead.advance(1e9) == [] and dead.waiting == 1
