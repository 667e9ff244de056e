"""A process's time does not jump, and its distance to the driver's is known to a stated error."""

from hypothesis import given
from hypothesis import strategies as st

from verl_pipeline.telemetry.clock import Clock, estimate_offset

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
