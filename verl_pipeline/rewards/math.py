"""Reward for mathematics, for verl's reward loop: 1 if the last boxed answer equals the expected
one, else 0.

    reward.custom_reward_function.path=pkg://verl_pipeline.rewards.math

What equal means: :mod:`verl_pipeline.rewards.math_answer`, which runs in a process of its own,
under limits.

Invariants:
* What comes before the last ``</think>`` is no answer; without ``\\boxed{...}`` there is none; the
  last box counts.
* Every result has the same keys, of the same types.
* An answer that cannot be read, or not within its limits of CPU time and memory, or that ends two
  processes in a row, is wrong. What no answer can bring about is ``infrastructure``: an expected
  answer that cannot be read, a process that does not start, is killed from outside twice, or gets
  no CPU.
* The event loop is never blocked. A process belongs to one thread and ends with it; nothing is
  shared across a fork.
"""

import asyncio
import functools
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import wait
from typing import Any

from verl.utils.reward_score.math_dapo import last_boxed_only_string, remove_boxed

from verl_pipeline.grading.extract import answer_part
from verl_pipeline.grading.verdict import Verdict

logger = logging.getLogger(__name__)

# Of CPU for an answer; of wall time, with the start of a process, after which the machine is to
# blame.
CPU_S, WALL_S = 10.0, 240.0
# A final answer is short, and parsing is not linear.
MOST_CHARACTERS = 2000

_COMMAND = [sys.executable, "-c", "from verl_pipeline.rewards.math_answer import serve; serve()"]
_CRASHES = {
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGABRT,
    signal.SIGILL,
    signal.SIGFPE,
    signal.SIGXCPU,
}

Judged = tuple[Verdict, str]


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any] | None = None,
    *,
    workers: int = 1,
    **_unused: Any,
) -> dict[str, float | str]:
    """Grade one response.

    Args:
        data_source, extra_info: unused, part of verl's interface.
        solution_str: the response, as text.
        ground_truth: the expected answer: a number or an expression, in LaTeX or plain.
        workers: comparisons at a time in this process.

    Returns:
        ``score`` and ``acc`` (1.0 or 0.0), ``grader``, ``verdict`` and ``reason``.
    """
    answer = last_boxed(answer_part(solution_str))
    if answer is None:
        verdict, reason = Verdict.WRONG_ANSWER, "no \\boxed{} after the last </think>"
    elif len(answer) > MOST_CHARACTERS:
        verdict, reason = (
            Verdict.WRONG_ANSWER,
            f"an answer of more than {MOST_CHARACTERS} characters",
        )
    else:
        threads = _threads(workers, os.getpid())
        verdict, reason = await asyncio.get_running_loop().run_in_executor(
            threads, _judge, str(ground_truth), answer
        )
    if verdict is Verdict.INFRASTRUCTURE:
        logger.error("an answer to be compared with %r could not be: %s", ground_truth, reason)
    score = float(verdict is Verdict.ACCEPTED)
    return {
        "score": score,
        "acc": score,
        "grader": "math",
        "verdict": str(verdict),
        "reason": reason,
    }


def last_boxed(text: str) -> str | None:
    """What the last ``\\boxed{...}`` holds, braces balanced; None if there is none, or it is never
    closed.
    """
    boxed = last_boxed_only_string(text)
    return None if boxed is None else remove_boxed(boxed)


class _Verifier:
    """A process that compares.

    Attributes:
        owner: the process that started it, which alone may ask it.
        ready: it has said that it can compare.
    """

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.ready = False
        self._process = subprocess.Popen(
            _COMMAND,
            bufsize=0,  # what waits in a buffer of ours, `wait` does not see
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A hash decides the order in which sympy looks at things.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "0"},
            start_new_session=True,  # a terminal's Ctrl-C is for us
        )

    def judge(self, expected: str, answer: str) -> Judged:
        """The verdict.

        Raises:
            TimeoutError: ``WALL_S`` passed.
            OSError, EOFError: the process has ended.
        """
        assert self._process.stdin
        deadline = time.monotonic() + WALL_S
        if not self.ready:
            self._line(deadline)
            self.ready = True
        self._process.stdin.write(json.dumps([expected, answer, CPU_S]).encode() + b"\n")
        verdict, reason = json.loads(self._line(deadline))
        return Verdict(verdict), reason

    def _line(self, deadline: float) -> bytes:
        assert self._process.stdout
        if not wait([self._process.stdout.fileno()], max(0.0, deadline - time.monotonic())):
            raise TimeoutError
        line = self._process.stdout.readline()
        if not line:
            raise EOFError
        return line

    def close(self) -> int:
        """How it ended, if it had, as ``Popen.returncode``."""
        with self._process:
            self._process.kill()
        return self._process.returncode


_local = threading.local()


def _judge(expected: str, answer: str) -> Judged:
    for _attempt in range(2):
        try:
            verifier = _own_verifier()
        except OSError as error:
            return Verdict.INFRASTRUCTURE, f"no process to compare in: {error}"
        try:
            return verifier.judge(expected, answer)
        except (OSError, EOFError) as error:
            late = isinstance(error, TimeoutError)
        _local.verifier = None
        ended = verifier.close()
        if late:
            return Verdict.INFRASTRUCTURE, f"{WALL_S:g} s passed, but not {CPU_S:g} s of CPU time"
        if verifier.ready and ended == -signal.SIGPROF:
            return Verdict.WRONG_ANSWER, f"not compared within {CPU_S:g} s of CPU time"
    if verifier.ready and (ended > 0 or -ended in _CRASHES):
        return Verdict.WRONG_ANSWER, f"the answer twice ended the process that compares ({ended})"
    return Verdict.INFRASTRUCTURE, f"the process that compares was ended twice ({ended})"


def _own_verifier() -> _Verifier:
    verifier: _Verifier | None = getattr(_local, "verifier", None)
    if verifier is None or verifier.owner != os.getpid():
        verifier = _local.verifier = _Verifier()
    return verifier


@functools.cache
def _threads(count: int, _process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="math")
