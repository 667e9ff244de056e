"""A server is dead when it is known to be, or after a long enough silence."""

from hypothesis import given
from hypothesis import strategies as st

from verl_pipeline.trainer.server_health import MISSES, ServerWatch, Sign

CHECKS = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0, 25.0, 60.0, 3600.0]), st.sampled_from(Sign)), max_size=12
)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@given(CHECKS, st.sampled_from([1.0, 60.0, 100.0]))
def test_every_sequence_of_answers(checks, silent_s):
    clock = Clock()
    watch = ServerWatch(silent_s, clock)
    seen = []
    for pause, sign in checks:
        clock.now += pause
        verdict = watch.judge(sign)
        seen.append((clock.now, sign))
        silence = []
        for moment, earlier in reversed(seen):
            if earlier is Sign.ALIVE:
                break
            silence += [moment] if earlier is Sign.SILENT else []
        is_long = len(silence) >= MISSES and silence[0] - silence[-1] >= silent_s
        assert (verdict is not None) == (sign is Sign.DEAD or (sign is Sign.SILENT and is_long))


def test_one_stall_ends_nothing_and_the_verdict_says_how_long():
    clock = Clock()
    watch = ServerWatch(60.0, clock)
    verdicts = []
    for clock.now in (0, 3600, 3605, 3610):
        sign = Sign.ALIVE if clock.now == 3600 else Sign.SILENT
        verdicts.append(watch.judge(sign))
    assert verdicts == [None] * 4
    clock.now = 3675
    assert watch.judge(Sign.SILENT) == "has not answered 3 checks in a row, over 70 s"
