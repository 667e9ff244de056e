"""Waits end, and name who was awaited."""

import threading

import pytest

from verl_pipeline.trainer.deadlines import DeadlineExceeded, run_with_deadline

WATCH = {"watchdog": lambda: None, "watch_every_s": 0.01}


def test_a_value_and_an_error_come_through():
    assert run_with_deadline(lambda: 7, 5, "x", "y", **WATCH) == 7
    with pytest.raises(KeyError, match="lost"):
        run_with_deadline(lambda: {}["lost"], 5, "x", "y", **WATCH)


def test_an_overlong_wait_ends_with_the_culprit_and_the_next_step():
    release = threading.Event()
    with pytest.raises(
        DeadlineExceeded, match=r"weight sync of v_3: no answer for 0.05 s; look there"
    ):
        run_with_deadline(release.wait, 0.05, "weight sync of v_3", "look there", **WATCH)
    release.set()


def test_the_watchdog_ends_a_wait_for_the_dead():
    def dead():
        raise ConnectionError("replica 0 is dead")

    release = threading.Event()
    with pytest.raises(ConnectionError, match="replica 0 is dead"):
        run_with_deadline(release.wait, 60, "x", "y", watchdog=dead, watch_every_s=0.01)
    release.set()
