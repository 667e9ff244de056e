"""Calls the reward for mathematics, and finds the processes in which it compares answers."""

import asyncio
import contextlib

import psutil

from verl_pipeline.rewards import math as math_reward

# Sums and powers that no time is enough for: in Python, and in one call into C.
ENDLESS, ENDLESS_IN_C = "\\sum_{n=1}^{10^{9}} n^{n}", "9^{9^{9^{9}}}"


def score_response(response, expected):
    return asyncio.run(math_reward.compute_score("math", response, expected))


def get_verdict(answer, expected):
    return score_response(f"\\boxed{{{answer}}}", expected)["verdict"]


def list_verifiers(pid=None):
    """Return the comparing processes of ``pid``, by default of this process."""
    verifiers = []
    for child in psutil.Process(pid).children():
        # ZombieProcess is a NoSuchProcess: the child has just ended.
        with contextlib.suppress(psutil.NoSuchProcess):
            if math_reward._VERIFIER_COMMAND[-1] in " ".join(child.cmdline()):
                verifiers.append(child)
    return verifiers
