"""Fixtures for the processes in which the reward for mathematics compares answers."""

import sys

import pytest

from tests.helpers.math_reward import list_verifiers
from tests.helpers.patience import wait_until
from verl_pipeline.rewards import math as math_reward


@pytest.fixture(scope="module")
def no_other_verifiers():
    """Wait until the verifiers of other tests have ended, with the threads that own them."""
    math_reward._get_thread_pool.cache_clear()
    wait_until(lambda: list_verifiers() == [], 30, "the verifiers of other tests to end")


@pytest.fixture
def replace_verifier(monkeypatch):
    """A function that replaces the comparing process by a script, for one test."""

    def replace(script):
        monkeypatch.setattr(math_reward, "_VERIFIER_COMMAND", [sys.executable, "-c", script])
        math_reward._get_thread_pool.cache_clear()

    yield replace
    math_reward._get_thread_pool.cache_clear()
