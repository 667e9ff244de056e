"""A process's time does not jump, and its distance to the driver's is known to a stated error."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from verl_pipeline.telemetry.clock import Clock, estimate_offset, fit_clock
from verl_pipeline.telemetry.records import ClockSample

seconds = st.floats(0, 1e4)


@given(jumps=st.lists(st.floats(-1e9, 1e9), max_size=8), moves=st.lists(seconds, max_size=8))
def test_a_wall_clock_that_jumps_moves_nothing(jumps, moves):
    wall, monotonic = [1.7e9], [5.0]
    clock = Clock(lambda: wall[0], lambda: monotonic[0])
    assert clock.now() == 1.7e9
    for jump, move in zip(jumps, moves, strict=False):
        wall[0] += jump
        before = clock.now()
        monotonic[0] += move
        assert abs(clock.now() - before - move) < 1e-6
        assert clock.now() >= before


@given(
    offset=st.floats(-1e6, 1e6),
    ways=st.lists(st.tuples(seconds, seconds), min_size=1, max_size=5),
)
def test_the_offset_is_right_to_its_error(offset, ways):
    now = [1e6]
    trips = iter(ways)

    def ask():
        there, back = next(trips)
        now[0] += there
        theirs = now[0] - offset
        now[0] += back
        return theirs

    sample = estimate_offset(ask, lambda: now[0], rounds=len(ways))
    assert abs(sample.offset_s - offset) <= sample.error_s + 1e-6
    shortest = min(there + back for there, back in ways)
    assert abs(sample.error_s - shortest / 2) < 1e-6


# In seconds: a clock that drifts, and samples of it with what they may be wrong by.
drifts = st.floats(-1e-3, 1e-3)
trips = st.lists(st.tuples(st.floats(0, 1e5), st.floats(1e-4, 10), st.floats(-1, 1)), min_size=1)


def sample_clock(offset, drift, taken):
    """Samples at times of the other clock, each wrong by a share of its error."""
    return [ClockSample(t, offset + drift * t + share * error, error) for t, error, share in taken]


@example(  # the last sample, of a busy process, would move what the second tells
    offset=0.0,
    drift=-3.8e-5,
    taken=[(0.0, 0.5, 0.0), (7954.0, 1.0, 0.0), (13256.0, 10.0, -1.0)],
    times=[0.0],
)
@given(offset=st.floats(-1e6, 1e6), drift=drifts, taken=trips, times=st.lists(seconds, min_size=1))
def test_a_clock_that_drifts_is_followed(offset, drift, taken, times):
    """Wherever it was sampled, whatever the samples of a busy process are worth."""
    fit = fit_clock(sample_clock(offset, drift, taken))
    at = np.array(times)
    wrong = np.abs(fit.get_offsets(at) - (offset + drift * at))
    first, last = fit.samples[0].t, fit.samples[-1].t
    outside = np.maximum(np.maximum(first - at, at - last), 0)
    assert (wrong <= fit.error_s + abs(drift) * outside + 1e-6).all()
    for t, error, _ in taken:
        assert abs(fit.get_offsets(np.array([t]))[0] - offset - drift * t) <= 3 * error + 1e-6
    # Nothing is called a drift that the errors may be.
    assert fit.drift_s <= abs(drift) * (last - first) + 2 * fit.error_s + 1e-6


@given(offset=st.floats(-1e6, 1e6), taken=trips)
def test_of_a_clock_that_does_not_drift_the_most_certain_sample_is_enough(offset, taken):
    samples = sample_clock(offset, 0.0, [(t, error, 0.999 * share) for t, error, share in taken])
    fit = fit_clock(samples)
    (kept,) = fit.samples
    assert kept.error_s == fit.error_s == min(sample.error_s for sample in samples)
    assert fit.drift_s == 0


def test_a_busy_process_moves_nothing_and_a_clock_that_stepped_does():
    calm = [ClockSample(t, 1.0 + 1e-5 * t, 1e-3) for t in (0.0, 600.0, 1200.0)]
    busy, stepped = ClockSample(300.0, 5.0, 4.5), ClockSample(300.0, 9.0, 4.5)
    at = np.array([150.0, 300.0])
    assert (
        fit_clock([*calm, busy]).get_offsets(at).tolist()
        == fit_clock(calm).get_offsets(at).tolist()
    )
    assert fit_clock([*calm, busy]).drift_s == fit_clock(calm).drift_s == pytest.approx(0.012)
    assert fit_clock([*calm, stepped]).get_offsets(at)[1] == 9.0
    assert fit_clock([]).get_offsets(at).tolist() == [0.0, 0.0]
