"""Calls of reward functions that hang: callers go on, and what is left behind is counted."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.helpers.patience import scale_deadline, wait_until
from verl_pipeline.trainer.deadlines import DeadlineExceeded
from verl_pipeline.trainer.reward_calls import BoundedCalls, TooManyHangingCalls, describe_function

pytestmark = pytest.mark.timeout(120)

SETTING = "deadlines.reward_s=1"


class Gate:
    """A reward function whose hanging calls can be let go."""

    def __init__(self):
        self.opened = threading.Event()
        self.threads = []

    def grade(self, value, hangs=False):
        self.threads.append(threading.current_thread())
        if hangs:
            self.opened.wait()
        if isinstance(value, BaseException):
            raise value
        return value


@pytest.fixture
def gate():
    made = Gate()
    yield made
    made.opened.set()
    for thread in made.threads:
        assert thread.daemon  # none would keep a reward worker's process alive


def test_answers_and_errors_pass_and_threads_are_reused(gate):
    calls = BoundedCalls(gate.grade, scale_deadline(30), SETTING)
    assert [calls(n) for n in range(20)] == list(range(20))
    for error in (ValueError("planted"), TimeoutError("its own"), SystemExit(3)):
        with pytest.raises(type(error)) as caught:
            calls(error)
        assert caught.value is error and not isinstance(caught.value, DeadlineExceeded)
    assert len(set(gate.threads)) == 1 and calls.abandoned == 0


def test_a_call_that_hangs_gives_its_caller_back_and_names_its_line(gate):
    calls = BoundedCalls(gate.grade, 0.2, SETTING)
    with pytest.raises(DeadlineExceeded) as caught:
        calls(1, hangs=True)
    message = str(caught.value)
    assert message.startswith(
        f"the reward function {__name__}.Gate.grade has not returned for 0.2 s ({SETTING}); "
        "1 of its calls hang in this worker"
    )
    assert "self.opened.wait()" in message and "test_reward_calls.py" in message
    assert calls.abandoned == 1
    hanging = gate.threads[0]
    gate.opened.set()
    wait_until(lambda: calls.abandoned == 0, 20, "the call to return")
    wait_until(lambda: not hanging.is_alive(), 20, "its thread to end")
    assert calls(2) == 2 and gate.threads[-1] is not hanging


def test_a_pool_of_two_threads_outlives_ten_calls_that_hang(gate):
    """As verl calls it: in the threads of an event loop."""
    calls = BoundedCalls(gate.grade, 0.3, SETTING)
    with ThreadPoolExecutor(2) as executor:
        graded = [executor.submit(calls, n, hangs=n % 3 == 0) for n in range(30)]
        answers = [each.exception() or each.result() for each in graded]
    lost = [n for n, answer in enumerate(answers) if isinstance(answer, DeadlineExceeded)]
    assert lost == list(range(0, 30, 3)) and calls.abandoned == 10
    assert [n for n in answers if isinstance(n, int)] == [n for n in range(30) if n % 3]


def test_no_more_calls_than_allowed_are_left_behind(gate):
    calls = BoundedCalls(gate.grade, 0.1, SETTING, most_abandoned=3)
    for _ in range(3):
        with pytest.raises(DeadlineExceeded):
            calls(0, hangs=True)
    with pytest.raises(TooManyHangingCalls, match=r"^3 calls of the reward function .*grade hang"):
        calls(0)
    assert len(gate.threads) == 3
    gate.opened.set()
    wait_until(lambda: calls.abandoned == 0, 20, "the calls to return")
    assert calls(1) == 1


def test_a_call_that_returns_at_its_deadline_is_either_given_up_or_not():
    calls = BoundedCalls(lambda seconds: time.sleep(seconds) or "graded", 0.02, SETTING)
    answers = []
    for _ in range(40):
        try:
            answers.append(calls(0.02))
        except DeadlineExceeded:
            answers.append(None)
    assert set(answers) <= {"graded", None}
    wait_until(lambda: calls.abandoned == 0, 20, "the calls to return")


def test_the_users_function_is_named_not_verls_wrapper():
    def wrapper(raw_fn, extra_kwargs, *args, **kwargs):
        raise NotImplementedError

    assert describe_function(partial(wrapper, scale_deadline, {})).endswith(".scale_deadline")
    assert describe_function(partial(scale_deadline, seconds=1)).endswith(".scale_deadline")
    assert describe_function(Gate()).endswith(".Gate")
