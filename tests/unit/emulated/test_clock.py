"""The emulated clock: compressed where engines work, real where programs do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_pipeline.emulated.clock import EmulatedClock, create_times, make_times, open_times

TIMES = st.floats(0.0, 1e4)


class RealTime:
    """A real clock that the test moves."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


def make_clock(scale, part=1.0):
    real = RealTime()
    return EmulatedClock(scale, make_times(2, 3), part, real), real


@given(
    st.floats(1.0, 1000.0),
    st.floats(0.0, 1.0),
    st.lists(st.tuples(TIMES, TIMES), min_size=1, max_size=6),
)
def test_what_lies_between_two_activities_counts_as_it_is_or_a_set_part(scale, part, gaps):
    clock, real = make_clock(scale, part)
    end = 0.0
    for seconds, control in gaps:
        start = clock.begin(end)
        end = start + seconds
        real.seconds += clock.count_real(end)
        real.seconds += control
    last = clock.begin(end)
    emulated = sum(seconds for seconds, _ in gaps)
    controlled = sum(control for _, control in gaps)
    assert last == pytest.approx(emulated + part * controlled, rel=1e-6, abs=1e-3)
    assert clock.now() == pytest.approx(last, abs=1e-3)


def test_a_cause_in_the_future_is_waited_for():
    clock, _real = make_clock(10.0)
    assert clock.begin(50.0) == 50.0 and clock.now() == 0.0
    assert clock.count_real(50.0) == 5.0


def test_the_drivers_activities_follow_each_other_and_all_that_is_complete():
    clock, real = make_clock(10.0)
    clock.times.complete(30.0)
    real.seconds = 4.0
    assert clock.begin_drivers() == 31.0  # 30 and one real second
    assert clock.times.driver_time == 31.0
    real.seconds = 6.0
    assert clock.begin_drivers() == 33.0


def test_a_driver_that_does_not_wait_for_the_pool_acts_after_its_own_acts():
    clock, real = make_clock(10.0)
    clock.times.is_drained = False
    clock.times.driver_time = 20.0
    real.seconds = 3.0
    clock.times.complete(29.0)  # while the driver was late
    assert clock.begin_drivers() == 21.0


def test_processes_see_each_others_times(tmp_path):
    path = tmp_path / "times"
    create_times(path, 2, 3, 100.0)
    ours, theirs = (EmulatedClock(100.0, open_times(path, 2, 3)) for _ in range(2))
    assert 0.0 <= ours.now() < 100.0
    ours.times.complete(7.0)
    ours.times.rewarded[1, 2] = ours.times.generated[0, 1] = 5.0
    assert theirs.times.frontier == 7.0 and theirs.times.rewarded[1, 2] == 5.0
    assert theirs.times.generated[0, 1] == 5.0
    # Far behind its cause: both clocks go back.
    ours.times.words[0] -= 1e6
    start = theirs.begin(7.0)
    assert ours.now() < start + 100.0


def test_the_driver_is_due_until_it_begins_what_it_could():
    times = make_times(2, 1)
    assert times.is_driver_due(0.0)  # the first publication
    times.publish(0.0)
    assert not times.is_driver_due(9.0) and times.newest_version == 0
    times.rewarded[0, 0] = 5.0
    assert not times.is_driver_due(4.0)
    assert times.is_driver_due(5.0)  # the first update
    with times.train(6.0, updates=1):
        assert not times.is_driver_due(5.5) and times.trains_until == 6.0
    assert times.is_driver_due(6.0)  # its publication
    times.publish(6.0)
    assert not times.is_driver_due(9.0)  # until the second batch is complete
