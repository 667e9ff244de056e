"""Fixtures for the processes in which the reward for mathematics compares answers."""

import sys
import time

import pytest

from tests.helpers.math_reward import list_verifiers
from verl_pipeline.rewards import math as math_reward


@pytest.fixture(scope="module")
def no_other_verifiers():
    """Wait until the verifiers of other tests have ended, with the threads that own them."""
    math_reward._get_thread_pool.cache_clear()
    deadline = time.monotonic() + 30
    while list_verifiers() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list_verifiers() == []


@pytest.fixture
def replace_verifier(monkeypatch):
    """A function that replaces the comparing process by a script, for one test."""

    def replace(script):
        monkeypatch.setattr(math_reward, "_VERIFIER_COMMAND", [sys.executable, "-c", script])
        math_reward._get_thread_pool.cache_clear()

    yield replace
    math_reward._get_thread_pool.cache_clear()
