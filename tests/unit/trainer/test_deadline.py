"""Waits end, and name who was awaited."""

import threading

import pytest

from verl_pipeline.trainer.deadline import DeadlineExceeded, run_with_deadline


def test_a_value_and_an_error_come_through():
    assert run_with_deadline(lambda: 7, 5, "x", "y") == 7
    with pytest.raises(KeyError, match="lost"):
        run_with_deadline(lambda: {}["lost"], 5, "x", "y")


def test_an_overlong_wait_ends_with_the_culprit_and_the_next_step():
    release = threading.Event()
    with pytest.raises(DeadlineExceeded, match=r"weight sync of v_3: no answer for 0.05 s; look there"):
        run_with_deadline(release.wait, 0.05, "weight sync of v_3", "look there")
    release.set()
