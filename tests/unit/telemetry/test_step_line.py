"""Shares of a step, and its line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_pipeline.telemetry.records import Pool, Span
from verl_pipeline.telemetry.step_line import (
    compute_busy_share,
    compute_tail,
    describe_step,
    format_duration,
)


def make_span(name, start, end):
    return Span(Pool.TRAINER, "driver", name, start, end)


def test_only_computing_counts_and_only_inside_the_step():
    spans = [
        make_span("update_actor", 5.0, 12.0),  # began before the step
        make_span("wait_rollout", 12.0, 15.0),
        make_span("old_log_prob", 15.0, 16.0),
        make_span("step", 10.0, 20.0),
    ]
    assert compute_busy_share(spans, 10.0, 20.0) == pytest.approx(0.3)
    assert compute_busy_share(spans, 10.0, 10.0) == 0.0


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=50))
def test_the_tail_is_what_the_slowest_tenth_takes(ends):
    tail = compute_tail(ends)
    body = max(ends) - tail
    assert sum(end <= body + 1e-6 for end in ends) >= 0.9 * len(ends) - 1
    assert 0 <= tail <= max(ends) - min(ends)


def test_one_trajectory_has_no_tail():
    assert compute_tail([]) is None and compute_tail([3.0]) is None


def test_the_line_shows_what_is_known():
    metrics = {
        "critic/score/mean": 0.4321,
        "pipeline/busy/trainer": 0.724,
        "pipeline/busy/rollout": 0.95,
        "pipeline/tail_s": 8.14,
        "pipeline/staleness": 1.0,
        "pipeline/trained_tokens_per_s": 5120.4,
    }
    assert describe_step(12, 100, 31.24, metrics, 4800.0) == (
        "step 12/100 | reward 0.432 | 31.2 s | trainer busy 72 % | rollout busy 95 % | tail 8.1 s "
        "| staleness 1 | 5,120 tokens/s | ends in 1 h 20 min"
    )
    assert describe_step(100, 100, 2.0, {}, 0.0) == "step 100/100 | 2.0 s"


def test_durations():
    shown = [format_duration(value) for value in (0, 59.6, 3599, 7260, 93600)]
    assert shown == ["0 s", "1 min", "59 min", "2 h 1 min", "1 d 2 h"]
